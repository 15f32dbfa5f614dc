"""A made-up task in torch tensors, cheap enough that a training loop is what is measured on it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.tasks.vector_env import VectorEnv

TASK = "rltransfer-benchmarks/Linear-v0"
"""What `register` calls it."""
OBSERVATION_SIZE = 48
ACTION_SIZE = 12
SHORTEST, LONGEST = 50, 150
"""Steps of an episode."""


class LinearVectorEnv(VectorEnv):
    """Linear dynamics with noise; episodes are of random length, the reward is nearness to zero.

    x' = A x + B a + e, e ~ N(0, 1), with A and B the same in every environment. Each step hands out
    fresh tensors, so that whoever keeps one need not copy it.
    """

    truncates = False

    def __init__(self, num_envs: int = 1, device: str | torch.device = "cpu") -> None:
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (OBSERVATION_SIZE,), np.float32)
        self.single_action_space = spaces.Box(-np.inf, np.inf, (ACTION_SIZE,), np.float32)
        self.generator = torch.Generator(self.device).manual_seed(0)
        rotation = torch.linalg.qr(self._normal(OBSERVATION_SIZE)).Q
        # Shrinks a little each step, so that the state stays near its noise.
        self.from_state = 0.9 * rotation
        self.from_action = 0.1 * self._normal(ACTION_SIZE)
        self.state = self._normal(num_envs)
        self.left = self._lengths()

    def _normal(self, rows: int) -> Tensor:
        """Returns normal noise.    (rows, OBSERVATION_SIZE)"""
        return torch.randn(rows, OBSERVATION_SIZE, generator=self.generator, device=self.device)

    def _lengths(self) -> Tensor:
        """Returns the steps of new episodes.    (num_envs,)"""
        return torch.randint(
            SHORTEST, LONGEST, (self.num_envs,), generator=self.generator, device=self.device
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Begins new episodes.

        Args:
            seed: Where the random stream begins.
            options: There are none.

        Returns:
            The observation (num_envs, OBSERVATION_SIZE), and an empty dictionary.
        """
        if seed is not None:
            self.generator.manual_seed(seed)
        self.state, self.left = self._normal(self.num_envs), self._lengths()
        return self.state, {}

    def send(self, actions: Tensor) -> None:
        """Begins a step.

        Args:
            actions: float32 (num_envs, ACTION_SIZE).
        """
        self.actions = actions

    def recv(self) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Ends the step that `send` began."""
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
        """Returns copies of the whole state."""
        return {
            "state": self.state.clone(),
            "left": self.left.clone(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes back to a state that `state_dict` returned."""
        self.state = state["state"].to(self.device)
        self.left = state["left"].to(self.device)
        self.generator.set_state(state["generator"])


def register() -> None:
    """Registers the task with Gymnasium, once."""
    if TASK not in gymnasium.registry:
        gymnasium.register(TASK, entry_point=None, vector_entry_point=f"{__name__}:LinearVectorEnv")
