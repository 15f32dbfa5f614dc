"""Two tasks that one network can know, and that finetuning forgets."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

import rltransfer as rt
from rltransfer.agents.ppo import Surrogate
from rltransfer.policies.network import mlp


class Signs(gymnasium.Env[np.ndarray, np.int64]):
    """Two signs: the first one shows the right action, or the second one, and the first the wrong.

    A policy that follows the second sign where there is one knows both tasks.
    """

    def __init__(self, second: bool = False) -> None:
        self.observation_space = spaces.Box(0, 1, (4,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.second = second

    def _show(self) -> np.ndarray:
        self.right = int(self.np_random.integers(2))
        signs = np.eye(2, dtype=np.float32)
        if self.second:
            return np.concatenate([signs[1 - self.right], 0.3 * signs[self.right]])
        return np.concatenate([signs[self.right], 0 * signs[0]])

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.steps = 0
        return self._show(), {}

    def step(self, action: np.int64):
        earned = float(action == self.right)
        self.steps += 1
        return self._show(), earned, False, self.steps == 10, {}


def settings() -> dict[str, Any]:
    """Options of PPO and its kin that learn either task in 12,000 steps.

    With more entropy than by default, as the Fisher information of a certain policy vanishes.
    """
    return {
        "num_envs": 8,
        "rollout_length": 20,
        "batch_size": 40,
        "learning_rate": 5e-3,
        "network": mlp(hidden=(16,)),
        "surrogate": Surrogate(entropy_coefficient=0.1),
    }


gymnasium.register("tests/Signs-v0", Signs)
FIRST = rt.Task("tests/Signs-v0", {"second": False})
SECOND = rt.Task("tests/Signs-v0", {"second": True})
