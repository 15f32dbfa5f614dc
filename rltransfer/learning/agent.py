"""Methods (configurations) and agents (policies in training)."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rltransfer.aliases import AcceptsAliases
from rltransfer.errors import check_range
from rltransfer.learning.learner import Learner, Loss, OptimizerName, PrecisionName
from rltransfer.learning.minibatches import Batch
from rltransfer.machine.devices import restore_generator
from rltransfer.options import normalize
from rltransfer.policies.network import ActivationName, Network
from rltransfer.policies.policy import Policy
from rltransfer.rollouts.rollout import Rollout
from rltransfer.tasks.observation import Observation
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.tasks.task import Suite
from rltransfer.teachers.teacher import Teacher


@dataclass(frozen=True)
class TrainingContext:
    """The tasks, seed and device that a method builds its agent for."""

    spaces: SuiteSpaces
    """The tasks with their observation and action spaces."""
    frame_stack: int
    """Frames stacked in an observation; 0 for none."""
    num_rows: int
    """Environments, over all tasks."""
    seed: int
    device: torch.device
    on_device: bool = True
    """Whether all environments are simulated on the device, where their steps cost little."""
    resumed: Path | None = None
    """The folder of a run that resumes from a checkpoint; None for a new one."""

    @property
    def suite(self) -> Suite:
        """The tasks."""
        return self.spaces.suite


@dataclass(frozen=True, kw_only=True)
class Method(metaclass=AcceptsAliases):
    """A method's configuration: its fields are the command line's options."""

    earlier: ClassVar[Mapping[str, Any]] = {}
    """Fields that runs of earlier versions lack, with the values that they behaved like."""

    num_envs: int = 64
    """Environments per task."""
    rollout_length: int = 128
    """Steps per environment between two updates."""

    def __post_init__(self) -> None:
        normalize(self)
        check_range(self, "at least 1", "num_envs", "rollout_length")
        check_range(self, "at most 1,000,000", "num_envs", "rollout_length")
        for field in dataclasses.fields(self):
            network = getattr(self, field.name)
            if isinstance(network, Network):
                network = network.with_activation(self.default_activation(network))
                object.__setattr__(self, field.name, network)

    def default_activation(self, network: Network) -> ActivationName:
        """What "auto" means for a network of this method; "auto" if it depends on the tasks."""
        return "relu"

    def default_steps(self, suite: Suite) -> int:
        """Environment steps of a run on these tasks, where a user does not say how many."""
        return 1_000_000

    def first_task(self) -> Method:
        """The method of the first task of a sequence."""
        return self

    def next_task(self, run_dir: str) -> tuple[Method, dict[str, Any]]:
        """How a sequence goes on to its next task: by default, from the weights of the last one.

        Args:
            run_dir: The finished run of the task before.

        Returns:
            The method, and the options of the run that change.
        """
        return self, {"init_from": run_dir}

    def compressed(self, run_dir: str) -> Method | None:
        """The method that distils a finished run into a network of the size of one column.

        Args:
            run_dir: The run.

        Returns:
            The method; None if this one has no columns.
        """
        return None

    @abc.abstractmethod
    def build(self, context: TrainingContext) -> Agent:
        """Builds the agent; the context's seed determines its initial weights.

        Raises:
            InputError: The method does not support the context's tasks.
        """


@dataclass(frozen=True, kw_only=True)
class GradientMethod(Method):
    """A method that trains one network on minibatches with one optimizer."""

    learning_rate: float
    """Initial step size of the optimizer; decays linearly to zero over the run."""
    batch_size: int
    """Samples per minibatch."""
    max_grad_norm: float = 10.0
    """Maximum gradient norm; larger gradients are scaled down to it."""
    precision: PrecisionName = "float32"
    """Precision of the updates; bfloat16 is mixed precision."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "at least 1", "batch_size")
        check_range(self, "at most 10,000,000", "batch_size")
        check_range(self, "finite and at least 0", "learning_rate")
        check_range(self, "above 0", "max_grad_norm")

    def learner(
        self, module: nn.Module, optimizer: OptimizerName = "adam", epsilon: float = 1e-8
    ) -> Learner:
        """Builds the learner of a module; see `Learner`."""
        return Learner(
            module,
            learning_rate=self.learning_rate,
            optimizer=optimizer,
            epsilon=epsilon,
            max_grad_norm=self.max_grad_norm,
            precision=self.precision,
        )


class Agent(abc.ABC):
    """A policy in training: it acts, and learns from its rollouts.

    Attributes:
        policy: The trained policy, which is evaluated and saved.
        learner: Updates the policy's parameters.
        progress: Completed fraction of the run, 0 to 1; see `begin_rollout`.
        generator: Random numbers on the device, for acting.
        order: Random numbers on the CPU, for the order of samples.
        teacher: The policy's teacher; None without one.
        sources: The policies inside the agent's: each one's "source" and the "sha256" of its file.
        chosen: The options that a method left to its teacher, by name, as JSON.
        teacher_seconds: Time spent on labels since it was last set to 0.
    """

    needs_reference_returns = False
    """Whether `set_reference_returns` must be called before training."""

    def __init__(self, policy: Policy, learner: Learner, context: TrainingContext) -> None:
        self.policy = policy
        self.learner = learner
        self.progress = 0.0
        self.generator = torch.Generator(context.device).manual_seed(context.seed)
        self.order = torch.Generator().manual_seed(context.seed + 1)
        self.teacher: Teacher | None = None
        self.sources: Sequence[dict[str, str]] = ()
        self.chosen: Mapping[str, Any] = {}
        self.teacher_seconds = 0.0

    def check_size(self, total_steps: int, run_dir: Path) -> Sequence[str]:
        """Checks that what the agent will store fits into memory and onto the disk.

        Args:
            total_steps: Environment steps of the run, over all processes.
            run_dir: The folder of its checkpoints.

        Returns:
            Sentences, without a full stop, on what takes much of them.

        Raises:
            InputError: Something does not fit.
        """
        return ()

    @property
    def student_acts(self) -> bool:
        """Whether the policy in training acts at some time of the run."""
        return True

    @property
    def state_size(self) -> int:
        """Size of the policy's recurrent state."""
        return self.policy.state_size

    @property
    def graph_key(self) -> Hashable:
        """See `rollout.Actor`."""
        return None

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """See `rollout.Actor`."""
        return (self.generator, *(self.teacher.generators() if self.teacher else ()))

    def begin_rollout(self, progress: float) -> None:
        """Sets the progress and the schedules that follow it, constant within a rollout.

        Args:
            progress: Completed fraction of the run, 0 to 1.
        """
        self.progress = progress

    def set_reference_returns(  # noqa: B027
        self, teacher: Mapping[str, float], random: Mapping[str, float]
    ) -> None:
        """Stores the returns of the teacher and of a random policy, measured before the run.

        Called only if `needs_reference_returns`. The tasks are configured as for training, with
        clipped rewards and episodes that end with a life, so that these returns compare with those
        of a rollout.

        Args:
            teacher: The teacher's mean return, by task name.
            random: The random policy's mean return, by task name.
        """

    @abc.abstractmethod
    def act(self, observation: Observation, task: Tensor, state: Tensor, start: Tensor) -> Batch:
        """Chooses "action" and stores what `batches` needs of this step: see `rollout.Actor`."""

    @abc.abstractmethod
    def batches(self, rollout: Rollout) -> Iterable[Batch]:
        """The minibatches to learn from after a rollout."""

    @abc.abstractmethod
    def loss(self, batch: Batch) -> Loss:
        """The loss of a minibatch."""

    def describe_metrics(self) -> dict[str, str]:
        """What each metric of `loss` means, with its unit, for TensorBoard.

        By the metric's name, without the name of a task that follows it.
        """
        return {}

    def learning_rate(self) -> float:
        """The optimizer's step size at the current progress: linear decay to zero."""
        return self.learner.initial_learning_rate * (1 - self.progress)

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Learns from a rollout and averages the metrics."""
        metrics = self.learner.update(self.batches(rollout), self.loss, self.learning_rate())
        # After the update, so that old and new probabilities see the same normalisation.
        self.policy.update_statistics(rollout.observation, rollout.task)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Everything that training depends on, except the environments."""
        return {
            "policy": dict(self.policy.state_dict()),
            "learner": self.learner.state_dict(),
            "generator": self.generator.get_state(),
            "order": self.order.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `state_dict`."""
        self.policy.load_state_dict(state["policy"])
        self.learner.load_state_dict(state["learner"])
        restore_generator(self.generator, state["generator"])
        self.order.set_state(state["order"])
