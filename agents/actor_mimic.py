"""Actor-Mimic: one network learns to act like the expert of each of several tasks.

Written for transfer: its weights are where the policy of a new task starts (`--init-from`). For
task i with the expert E_i, and h the last hidden layers (Parisotto 2015, section 3):

    pi_Ei(a|s) = softmax(Q_Ei(s) / temperature), or the expert's own policy        (eq. 2)
    L_policy   = -sum_a pi_Ei(a|s) log pi_AMN(a|s)                                  (eq. 3)
    L_feature  = ||f_i(h_AMN(s)) - h_Ei(s)||^2, f_i a linear map that learns along  (eq. 4)
    L          = L_policy + beta * L_feature                                        (eq. 5)

The network acts, with a fraction of `exploration` of random actions. All tasks share one head;
actions that a task lacks are masked in both softmaxes. The gradient of L_feature reaches the
network and the maps, never the experts.

Differs from the paper:

- L_policy is KL(pi_E || pi_AMN), which differs from the cross-entropy by the expert's entropy: the
  gradients are equal, and a perfect mimic has a loss of 0;
- L_feature is divided by the variance of the expert's features in its task, so that `beta` means
  the same whatever the scale of an expert's features;
- Adam as the learner uses it, with a step size that decays linearly, instead of the paper's variant
  without bias correction;
- minibatches mix the tasks instead of being of one game each.

Logs: `kl`, `feature_regression` (weighted by beta), and what `policy_distillation.py` logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rltransfer.errors import check_range
from rltransfer.learning.agent import GradientMethod, TrainingContext
from rltransfer.objectives.features import FeatureRegression
from rltransfer.objectives.objective import Objective
from rltransfer.objectives.outputs import KL
from rltransfer.policies.network import Network
from rltransfer.schedule import Schedule
from rltransfer.teachers.teacher import Teacher

from .policy_distillation import PolicyDistillation, PolicyDistillationAgent


@dataclass(frozen=True, kw_only=True)
class Mimicry(PolicyDistillation):
    """Policy distillation into the network of the run that the mimic is to start."""

    layers_of_teacher: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class ActorMimic(GradientMethod):
    """Actor-Mimic: policy and feature regression onto the experts of several tasks.

    Source: Parisotto 2015 (arXiv 1511.06342).
    """

    earlier: ClassVar[Mapping[str, Any]] = {"rescale_actions": False}

    teacher: str | Teacher
    """The experts: "zoo" for the installed teacher of each task, a run directory, a file, or a
    composition, e.g. "PerTask({'CartPole-v1': 'a.zip', 'Acrobot-v1': 'runs/b'})"."""
    vecnormalize: Path | None = None
    """Observation statistics (a VecNormalize pickle) of a Stable-Baselines3 zip, or "none". By
    default, those next to the zip are used, as rl-zoo stores them."""
    rescale_actions: bool = False
    """Scale the teacher's continuous actions from its bounds to the task's, which are else refused
    if they differ."""
    student: Network = Network()
    """The mimic's network."""
    beta: float = 0.01
    """Weight of the feature regression; 0 for policy regression alone, which any expert allows."""
    temperature: float = 1.0
    """Temperature of an expert's softmax."""
    teacher_acts: str | float | Schedule = 0.0
    """Probability that the expert acts: a number, or a schedule such as "1->0@0.5"."""
    exploration: float = 0.1
    """Probability of a random action; for continuous actions, standard deviation of the noise, in
    standard deviations of the experts' actions."""
    memory_steps: int = 200_000
    """Capacity of the replay buffer, in steps; has no effect with a recurrent student."""
    memory_dir: Path | None = None
    """Folder of a memory-mapped replay buffer; None keeps it in RAM."""
    epochs: float = 4.0
    """Average number of times that each step is learned from; an integer with a recurrent
    student."""
    batch_size: int = 512
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "finite and at least 0", "beta")
        check_range(self, "finite and above 0", "temperature")
        self.distillation  # noqa: B018 - what policy distillation refuses is refused here

    @property
    def objective(self) -> Objective:
        """The loss; see the module's docstring."""
        policy_regression = KL(temperature=self.temperature)
        if not self.beta:
            return policy_regression
        return policy_regression + self.beta * FeatureRegression(scale="variance")

    @property
    def distillation(self) -> PolicyDistillation:
        """The policy distillation with these settings."""
        return Mimicry(
            num_envs=self.num_envs,
            rollout_length=self.rollout_length,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            max_grad_norm=self.max_grad_norm,
            precision=self.precision,
            teacher=self.teacher,
            vecnormalize=self.vecnormalize,
            rescale_actions=self.rescale_actions,
            student=self.student,
            objective=self.objective,
            teacher_acts=self.teacher_acts,
            exploration=self.exploration,
            memory_steps=self.memory_steps,
            memory_dir=self.memory_dir,
            epochs=self.epochs,
        )

    def build(self, context: TrainingContext) -> PolicyDistillationAgent:
        """Builds the agent."""
        return self.distillation.build(context)
