"""rltransfer: an MLP is distilled from a larger one on linear dynamics; collect, label, learn.

    python -m rltransfer.experiments.benchmarks.mlp_distillation --num-envs 4096

The student acts with noise, the teacher labels, and the loss is the squared error. As in rsl_rl's
defaults, each step is learned from once, in as many minibatches as a rollout has steps.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from rltransfer.agents import PolicyDistillation
from rltransfer.policies.network import Network, mlp
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.runs.benchmark import benchmark_train
from rltransfer.runs.stopwatch import Measuring
from rltransfer.tasks.observation import DEFAULT_GROUP
from rltransfer.tasks.task import Suite
from rltransfer.teachers.policy_teacher import PolicyTeacher

from .linear_env import ACTION_SIZE, OBSERVATION_SIZE, TASK, register
from .script import main

TEACHER = (512, 256, 128)
"""Hidden units of the teacher."""
STUDENT = (128, 128)
"""Hidden units of the student."""


@dataclass(frozen=True, kw_only=True)
class MlpDistillation:
    """Steps per second of rltransfer's policy distillation, including learning."""

    measuring: Measuring = Measuring(repeats=3, device="cpu")
    num_envs: int = 4096
    """Number of environments."""
    rollout_length: int = 30
    """Steps per environment between two updates."""

    def run(self) -> dict[str, Any]:
        """Runs the measurement."""
        register()
        torch.manual_seed(self.measuring.seed)
        method = PolicyDistillation(
            teacher=PolicyTeacher(Policy(_spec(mlp(TEACHER))), "fresh", ""),
            student=Network(encoder="mlp", hidden=STUDENT, normalize=False),
            objective="mse",
            teacher_acts=0.0,
            exploration=0.1,
            num_envs=self.num_envs,
            rollout_length=self.rollout_length,
            memory_steps=self.num_envs * self.rollout_length,
            epochs=1.0,
            batch_size=self.num_envs,
        )
        found = benchmark_train(
            "policy-distillation", method, Suite.of(TASK), 1_000_000_000, self.measuring
        )
        return {**found, "steps_per_second": found["with_training"]["median"]}


def _spec(network: Network) -> PolicySpec:
    seen = spaces.Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float32)
    acted = spaces.Box(-np.inf, np.inf, (ACTION_SIZE,), np.float32)
    return PolicySpec(network, spaces.Dict({DEFAULT_GROUP: seen}), acted, value=False)


if __name__ == "__main__":
    sys.exit(main(MlpDistillation, "mlp_distillation"))
