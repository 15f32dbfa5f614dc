"""A small task for learning tests: say what you see.

A device environment of another package than rltransfer's, registered as any user would: the
observation shows one of four symbols, the action that names it earns 1, and an episode is ten steps
long. Random actions earn 2.5 an episode, a policy that has learned it 10.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.tasks.vector_env import VectorEnv

SYMBOLS = 4
LENGTH = 10
TASK = "tests/Echo-v0"
SHORT_TASK = "tests/EchoTruncated-v0"
NAN_TASK = "tests/EchoNaN-v0"


class EchoVectorEnv(VectorEnv):
    """Four symbols; the right name of the one that is shown earns 1."""

    def __init__(
        self,
        num_envs: int = 1,
        device: str | torch.device = "cpu",
        truncates: bool = False,
        nan_at: int = 0,
        capturable: bool = False,
    ) -> None:
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.truncates = truncates
        self.capturable = capturable
        self.nan_at = nan_at
        self.steps = 0
        self.single_observation_space = spaces.Box(0, 1, (SYMBOLS,), np.float32)
        self.single_action_space = spaces.Discrete(SYMBOLS)
        self.generator = torch.Generator(self.device)
        self.symbol = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.time = torch.zeros(num_envs, dtype=torch.int64, device=self.device)

    def _show(self) -> Tensor:
        return torch.nn.functional.one_hot(self.symbol, SYMBOLS).float()

    def _draw(self) -> None:
        self.symbol = torch.randint(
            SYMBOLS, (self.num_envs,), generator=self.generator, device=self.device
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        if seed is not None:
            self.generator.manual_seed(seed)
        self._draw()
        self.time.zero_()
        return self._show(), {}

    def send(self, actions: Tensor) -> None:
        self.actions = actions.clone()

    def recv(self) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        reward = (self.actions == self.symbol).float()
        self.steps += 1
        if self.nan_at and self.steps >= self.nan_at:
            reward[0] = torch.nan
        self.time += 1
        done = self.time >= LENGTH
        self._draw()
        final = self._show()
        self.time.masked_fill_(done, 0)
        never = torch.zeros_like(done)
        terminated, truncated = (never, done) if self.truncates else (done, never)
        return self._show(), reward, terminated, truncated, {"final_obs": final}

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "symbol": self.symbol.clone(),
            "time": self.time.clone(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.symbol = state["symbol"].to(self.device)
        self.time = state["time"].to(self.device)
        self.generator.set_state(state["generator"])


def register() -> None:
    """Registers the tasks, once."""
    for name, kwargs in ((TASK, {}), (SHORT_TASK, {"truncates": True}), (NAN_TASK, {"nan_at": 50})):
        if name not in gymnasium.registry:
            gymnasium.register(
                name, entry_point=None, vector_entry_point=EchoVectorEnv, kwargs=kwargs
            )
