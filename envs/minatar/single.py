"""One MinAtar environment with NumPy arrays, as `gymnasium.make` returns it."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rltransfer.envs.warp_env import SingleWarpEnv

from .vector_env import MinAtarVectorEnv


class MinAtarEnv(SingleWarpEnv):
    """One environment; the arguments are those of `MinAtarVectorEnv`.

    Args:
        game: The game's module, one of `GAMES`.
        render_mode: "rgb_array" for pictures, or None.
        options: The other arguments.
    """

    def __init__(self, game: str, *, render_mode: str | None = None, **options: Any) -> None:
        super().__init__(MinAtarVectorEnv(game, 1, **options), render_mode)

    def _picture(self, observation: NDArray[Any]) -> NDArray[np.uint8]:
        picture = np.zeros((*observation.shape[1:], 3), np.uint8)
        # Later channels are drawn over earlier ones.
        for index, channel in enumerate(observation):
            colour = colorsys.hsv_to_rgb(index / len(observation), 0.7, 1.0)
            picture[channel == 1] = [round(255 * part) for part in colour]
        return picture
