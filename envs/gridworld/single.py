"""One gridworld with numpy arrays, as `gymnasium.make` returns it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from rltransfer.errors import InputError

from .rules import STATES_PER_CELL
from .vector_env import GridworldVectorEnv

_CELL_PIXELS = 16
"""The edge of a cell in a picture."""
_COLOURS = {"wall": (90, 90, 90), "goal": (60, 180, 75), "agent": (230, 80, 60)}


class GridworldEnv(gymnasium.Env[NDArray[Any], np.int64]):
    """One environment over the same kernel; it begins a new episode when it is told to."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # as in Gymnasium

    def __init__(self, map: str, *, render_mode: str | None = None, **options: Any) -> None:
        """Makes the environment; the arguments are `GridworldVectorEnv`'s.

        Args:
            map: The kind of map, one of `layouts.KINDS`.
            render_mode: "rgb_array" for pictures, or None.
            options: The other arguments.

        Raises:
            InputError: An argument is not one of the permitted values.
        """
        if render_mode not in (None, "rgb_array"):
            raise InputError(f"There is no render mode {render_mode!r}: there is 'rgb_array'.")
        self.render_mode = render_mode
        self._env = GridworldVectorEnv(map, 1, **options)
        self.observation_space = self._env.single_observation_space
        self.action_space = self._env.single_action_space
        self._action = torch.zeros(1, dtype=torch.int64)
        self._has_begun = False
        # The kernel has begun the next episode by the time that one ends.
        self._has_begun_next = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Begins an episode; there are no options.

        Args:
            seed: Where the random stream begins; without one it goes on.
            options: Ignored, as Gymnasium's wrappers pass them through.
        """
        super().reset(seed=seed)
        if seed is not None or not self._has_begun:
            self._env.reset(seed=int(self.np_random.integers(1 << 62)))
        elif not self._has_begun_next:
            self._env.reset()
        self._has_begun, self._has_begun_next = True, False
        return self._env.state_dict()["observation"][0].numpy(), {}

    def step(self, action: np.int64) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Plays one step.

        Args:
            action: The action: up, right, down or left.

        Raises:
            ResetNeeded: No episode has begun, or the last one has ended.
        """
        if not self._has_begun or self._has_begun_next:
            raise ResetNeeded("There is no episode to step: call reset() first.")
        self._action[0] = int(action)
        observation, reward, _, truncated, info = self._env.step(self._action)
        self._has_begun_next = bool(truncated[0])
        shown = info["final_obs"] if self._has_begun_next else observation
        return shown[0].clone().numpy(), float(reward[0]), False, self._has_begun_next, {}

    def render(self) -> NDArray[np.uint8] | None:
        """Returns a picture of the map, uint8 `[16 * height, 16 * width, 3]`.

        Raises:
            ResetNeeded: No episode has begun.
        """
        if self.render_mode is None:
            return None
        if not self._has_begun:
            raise ResetNeeded("There is no episode to show: call reset() first.")
        free = self._env.rules.layout.free
        picture = np.zeros((*free.shape, 3), np.uint8)
        picture[~free] = _COLOURS["wall"]
        picture[self._env.rules.layout.goal] = _COLOURS["goal"]
        cell = int(self._env.state_dict()["states"][0]) // STATES_PER_CELL
        picture[divmod(cell, free.shape[1])] = _COLOURS["agent"]
        return picture.repeat(_CELL_PIXELS, axis=0).repeat(_CELL_PIXELS, axis=1)

    def close(self) -> None:
        """Ends the environment."""
        self._env.close()
