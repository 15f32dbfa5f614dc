"""An artificial task in torch tensors, so cheap that benchmarks measure the training loop."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.tasks.vector_env import VectorEnv

TASK = "rltransfer-benchmarks/Linear-v0"
"""The id that `register` uses."""
OBSERVATION_SIZE = 48
ACTION_SIZE = 12
SHORTEST, LONGEST = 50, 150
"""Bounds of the steps per episode."""


class LinearVectorEnv(VectorEnv):
    """Noisy linear dynamics with episodes of random length; the reward is minus the mean square.

    x' = A x + B a + e, e ~ N(0, 1), with the same A and B in every environment. Each step returns
    fresh tensors, so that callers can keep them without a copy.
    """

    truncates = False

    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float32)
        self.single_action_space = spaces.Box(-np.inf, np.inf, (ACTION_SIZE,), np.float32)
        self.generator = torch.Generator(self.device).manual_seed(0)
        rotation = torch.linalg.qr(self._normal(OBSERVATION_SIZE)).Q
        # Shrinks the state a little each step, so that it stays close to the noise.
        self.from_state = 0.9 * rotation
        self.from_action = 0.1 * self._normal(ACTION_SIZE)
        self.state = self._normal(num_envs)
        self.left = self._lengths()

    def _normal(self, rows: int) -> Tensor:
        """Normal noise.    (rows, OBSERVATION_SIZE)"""
        return torch.randn(rows, OBSERVATION_SIZE, generator=self.generator, device=self.device)

    def _lengths(self) -> Tensor:
        """The steps of new episodes.    (num_envs,)"""
        return torch.randint(
            SHORTEST, LONGEST, (self.num_envs,), generator=self.generator, device=self.device
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Starts new episodes.

        Args:
            seed: Seed of the random generator.
            options: Not used.

        Returns:
            The observation (num_envs, OBSERVATION_SIZE), and an empty dictionary.
        """
        if seed is not None:
            self.generator.manual_seed(seed)
        self.state, self.left = self._normal(self.num_envs), self._lengths()
        return self.state, {}

    def send(self, actions: Tensor) -> None:
        """Starts a step.

        Args:
            actions: float32 (num_envs, ACTION_SIZE).
        """
        self.actions = actions

    def recv(self) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Finishes the step that `send` started."""
        noise = self._normal(self.num_envs)
        moved = torch.addmm(noise, self.state, self.from_state)
        moved.addmm_(self.actions, self.from_action)
        reward = -moved.square().mean(1)
        terminated = self.left <= 1
        self.left = torch.where(terminated, self._lengths(), self.left - 1)
        self.state = torch.where(terminated.unsqueeze(1), noise, moved)
        truncated = torch.zeros_like(terminated)
        return self.state, reward, terminated, truncated, {"final_obs": moved}

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the whole state."""
        return {
            "state": self.state.clone(),
            "left": self.left.clone(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores a state from `state_dict`."""
        self.state = state["state"].to(self.device)
        self.left = state["left"].to(self.device)
        self.generator.set_state(state["generator"])


def register() -> None:
    """Registers the task with Gymnasium, once."""
    if TASK not in gymnasium.registry:
        gymnasium.register(TASK, entry_point=None, vector_entry_point=f"{__name__}:LinearVectorEnv")
