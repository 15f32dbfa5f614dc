"""What a method is: who acts, and what is learned from what was seen."""

from __future__ import annotations

import abc
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rltransfer.errors import check_kinds, check_range
from rltransfer.learning.learner import Learner, Loss
from rltransfer.learning.minibatches import Batch
from rltransfer.policies.policy import Policy
from rltransfer.rollouts.rollout import Rollout
from rltransfer.tasks.observation import Observation
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.tasks.task import Suite
from rltransfer.teachers.teacher import Teacher


@dataclass(frozen=True)
class TrainingContext:
    """What a method is set to work on."""

    spaces: SuiteSpaces
    """The tasks with their observation and action spaces."""
    frame_stack: int
    """Frames that an observation stacks, 0 for none."""
    num_rows: int
    """Environments in all."""
    seed: int
    device: torch.device

    @property
    def suite(self) -> Suite:
        """The tasks."""
        return self.spaces.suite


@dataclass(frozen=True, kw_only=True)
class Method(abc.ABC):
    """A method's configuration: what the command line shows, and what builds the agent."""

    num_envs: int = 64
    """Environments of each task."""
    rollout_length: int = 128
    """Steps of each environment between two updates."""

    def __post_init__(self) -> None:
        check_kinds(self)
        check_range(self, "at least 1", "num_envs", "rollout_length")

    @abc.abstractmethod
    def build(self, context: TrainingContext) -> Agent:
        """Returns the agent, with fresh weights that depend on the context's seed.

        Raises:
            InputError: The method cannot take the context's tasks.
        """


class Agent(abc.ABC):
    """A method at work.

    Attributes:
        policy: What is learned, evaluated and saved.
        learner: Steps its parameters.
        progress: The share of the run that is done, 0 to 1; see `begin_rollout`.
        generator: Randomness on the device, for acting.
        order: Randomness on the CPU, for the order of samples.
        teacher: Whom the policy learns from, if anyone.
        teacher_seconds: Time spent on the teacher's labels since it was last set to 0.
    """

    needs_reference_returns = False
    """Whether `set_reference_returns` must be called before training."""

    def __init__(self, policy: Policy, learner: Learner, seed: int, device: torch.device) -> None:
        self.policy = policy
        self.learner = learner
        self.progress = 0.0
        self.generator = torch.Generator(device).manual_seed(seed)
        self.order = torch.Generator().manual_seed(seed + 1)
        self.teacher: Teacher | None = None
        self.teacher_seconds = 0.0

    @property
    def state_size(self) -> int:
        """Columns of the policy's recurrent state."""
        return self.policy.state_size

    @property
    def graph_key(self) -> Hashable:
        """See `rollout.Actor`."""
        return None

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """See `rollout.Actor`."""
        own = () if self.teacher is None else self.teacher.generators()
        return (self.generator, *own)

    def begin_rollout(self, progress: float) -> None:
        """Sets what stays the same within a rollout: the progress, and schedules that follow it.

        Args:
            progress: The share of the run that is done, 0 to 1.
        """
        self.progress = progress

    def set_reference_returns(  # noqa: B027
        self, teacher: Mapping[str, float], random: Mapping[str, float]
    ) -> None:
        """Stores the returns of the teacher and of a random policy, measured before the run.

        Called only where `needs_reference_returns`. The returns are those of the tasks as trained,
        with clipped rewards and lives that end episodes, so that they compare with the returns of
        a rollout.

        Args:
            teacher: The teacher's mean return of each task, by the task's name.
            random: The random policy's mean return, likewise.
        """

    @abc.abstractmethod
    def act(self, observation: Observation, task: Tensor, state: Tensor, start: Tensor) -> Batch:
        """Returns "action" and what else `batches` needs of this step: see `rollout.Actor`."""

    @abc.abstractmethod
    def batches(self, rollout: Rollout) -> Iterable[Batch]:
        """Returns the minibatches that a rollout is learned from."""

    @abc.abstractmethod
    def loss(self, batch: Batch) -> Loss:
        """Scores a minibatch."""

    @abc.abstractmethod
    def learning_rate(self) -> float:
        """Returns the step size at the present progress."""

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Learns from a rollout and returns the metrics' means."""
        metrics = self.learner.update(self.batches(rollout), self.loss, self.learning_rate())
        # After the update: within it, old and new probabilities are of equally normalised vectors.
        self.policy.update_statistics(rollout.observation, rollout.task)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that learning depends on, but for the environments."""
        return {
            "policy": dict(self.policy.state_dict()),
            "learner": self.learner.state_dict(),
            "generator": self.generator.get_state(),
            "order": self.order.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to what `state_dict` returned."""
        self.policy.load_state_dict(state["policy"])
        self.learner.load_state_dict(state["learner"])
        self.generator.set_state(state["generator"])
        self.order.set_state(state["order"])
