"""Environments that are stepped one after the other."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rltransfer.tasks.env_layer import EnvMaker


class SyncEnvs(SyncVectorEnv):
    """Gymnasium's `SyncVectorEnv` with less work per environment: for layers, in the same step.

    The next step overwrites the observations.
    """

    def __init__(self, makers: Sequence[EnvMaker]) -> None:
        made: list[gymnasium.Env[Any, Any]] = []
        try:
            made.extend(maker() for maker in makers)
        except BaseException:
            # What they hold, e.g. a port, is free again for whoever tries with fewer.
            for env in made:
                env.close()
            raise
        functions = [functools.partial(_itself, env) for env in made]
        super().__init__(functions, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)

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


def _itself(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    return env
