"""Environments that are stepped one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rltransfer.tasks.env_layer import EnvMaker


class SyncEnvs(SyncVectorEnv):
    """Gymnasium's `SyncVectorEnv` with less work per environment: for layers, in the same step.

    The next step overwrites the observations.
    """

    def __init__(self, makers: Sequence[EnvMaker]) -> None:
        super().__init__(makers, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps every environment; `info` contains "final_obs" and failures."""
        infos: dict[str, Any] = {}
        steps = []
        groups = self._observations if isinstance(self._observations, dict) else None
        for row, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            observation, reward, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                infos = self._add_info(infos, {"final_obs": observation}, row)
                observation, info = env.reset()
            if info:
                infos = self._add_info(infos, info, row)
            if groups is None:
                self._observations[row] = observation
            else:
                for name, values in groups.items():
                    values[row] = observation[name]
            steps.append((reward, terminated, truncated))
        rewards, terminations, truncations = zip(*steps, strict=True)
        return (
            self._observations,
            np.array(rewards, np.float32),
            np.array(terminations, np.bool_),
            np.array(truncations, np.bool_),
            infos,
        )
