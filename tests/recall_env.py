"""A task that needs a memory of five steps."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

RECALL = "tests/Recall-v0"


class Recall(gymnasium.Env[np.ndarray, np.int64]):
    """One of two symbols is shown at first, and has to be named in each of five steps."""

    observation_space = spaces.Box(0, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.symbol, self.steps = int(self.np_random.integers(2)), 0
        return np.eye(2, dtype=np.float32)[self.symbol], {}

    def step(self, action: np.int64) -> Any:
        self.steps += 1
        reward = float(action == self.symbol)
        return np.zeros(2, np.float32), reward, self.steps == 5, False, {}


if RECALL not in gymnasium.registry:
    gymnasium.register(RECALL, Recall)
