"""rsl_rl: an MLP is distilled from a larger one on linear dynamics; collect, label, learn.

    python -m rltransfer.experiments.benchmarks.rsl_rl_distillation --num-envs 4096

rsl_rl's `DistillationRunner` with its defaults: the student acts with noise, each step of all
environments is one minibatch, used once, and the losses of 15 minibatches make one optimizer step.
As on rltransfer's side, observations are not normalised and the networks have ReLUs.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from .linear_env import ACTION_SIZE, LONGEST, LinearVectorEnv
from .mlp_distillation import STUDENT, TEACHER
from .script import Timing, main

GROUP = "policy"
"""Observation group of both networks."""


class RslRlEnv:
    """The linear dynamics with the interface of rsl_rl's `VecEnv`."""

    def __init__(self, num_envs: int, seed: int) -> None:
        self.env = LinearVectorEnv(num_envs)
        self.seen, _ = self.env.reset(seed=seed)
        self.num_envs = num_envs
        self.num_actions = ACTION_SIZE
        self.max_episode_length = LONGEST
        self.episode_length_buf = torch.zeros(num_envs, dtype=torch.int64)
        self.device = "cpu"
        self.cfg: dict[str, Any] = {}

    def get_observations(self) -> TensorDict:
        """The current observations."""
        return TensorDict({GROUP: self.seen}, [self.num_envs])

    def step(self, actions: Tensor) -> tuple[TensorDict, Tensor, Tensor, dict[str, Any]]:
        """Steps every environment once.

        Args:
            actions: float32 (num_envs, ACTION_SIZE).
        """
        self.seen, reward, terminated, _, _ = self.env.step(actions)
        return self.get_observations(), reward, terminated, {}


@dataclass(frozen=True, kw_only=True)
class RslRlDistillation:
    """Steps per second of rsl_rl's distillation, including learning."""

    timing: Timing = Timing()
    num_envs: int = 4096
    """Number of environments."""
    rollout_length: int = 30
    """Steps per environment between two updates."""
    seed: int = 0
    """Random seed."""
    threads: int = 0
    """Number of torch threads; 0 leaves the choice to torch."""

    def run(self) -> dict[str, Any]:
        """Runs the measurement."""
        from rsl_rl.runners import DistillationRunner

        if self.threads:
            torch.set_num_threads(self.threads)
        torch.manual_seed(self.seed)
        env = RslRlEnv(self.num_envs, self.seed)
        # The runner prints its networks, but stdout must contain the line of JSON alone.
        with contextlib.redirect_stdout(sys.stderr):
            runner = DistillationRunner(env, self._configuration(), None, "cpu")
        runner.alg.teacher_loaded = True

        def work() -> int:
            runner.learn(1)
            return self.num_envs * self.rollout_length

        return {"steps_per_second": self.timing.speed(work), "threads": torch.get_num_threads()}

    def _configuration(self) -> dict[str, Any]:
        model = {"class_name": "MLPModel", "activation": "relu", "obs_normalization": False}
        noise = {"class_name": "GaussianDistribution", "init_std": 0.1}
        return {
            "num_steps_per_env": self.rollout_length,
            "save_interval": 1_000_000,
            "obs_groups": {"student": [GROUP], "teacher": [GROUP]},
            "algorithm": {"class_name": "Distillation", "loss_type": "mse"},
            "student": {**model, "hidden_dims": list(STUDENT), "distribution_cfg": noise},
            "teacher": {**model, "hidden_dims": list(TEACHER)},
        }


if __name__ == "__main__":
    sys.exit(main(RslRlDistillation, "rsl_rl_distillation"))
