"""One gridworld with NumPy arrays, as `gymnasium.make` returns it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rltransfer.envs.warp_env import SingleWarpEnv

from .rules import STATES_PER_CELL
from .vector_env import GridworldVectorEnv

_COLOURS = {"wall": (90, 90, 90), "goal": (60, 180, 75), "agent": (230, 80, 60)}


class GridworldEnv(SingleWarpEnv):
    """One environment; the arguments are those of `GridworldVectorEnv`.

    Args:
        map: The kind of map, one of `layouts.KINDS`.
        render_mode: "rgb_array" for pictures, or None.
        options: The other arguments.
    """

    def __init__(self, map: str, *, render_mode: str | None = None, **options: Any) -> None:
        env = GridworldVectorEnv(map, 1, **options)
        super().__init__(env, render_mode)
        self._layout = env.rules.layout

    def _picture(self, observation: NDArray[Any]) -> NDArray[np.uint8]:
        free = self._layout.free
        picture = np.zeros((*free.shape, 3), np.uint8)
        picture[~free] = _COLOURS["wall"]
        picture[self._layout.goal] = _COLOURS["goal"]
        cell = int(self._env.state_dict()["states"][0]) // STATES_PER_CELL
        picture[divmod(cell, free.shape[1])] = _COLOURS["agent"]
        return picture
