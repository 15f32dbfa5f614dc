"""One MinAtar environment with numpy arrays, as `gymnasium.make` returns it."""

from __future__ import annotations

import colorsys
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from rltransfer.errors import InputError

from .vector_env import MinAtarVectorEnv

_CELL_PIXELS = 16
"""The edge of a cell in a picture."""


class MinAtarEnv(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """One environment over the same kernel; it begins a new episode when it is told to."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # as in Gymnasium

    def __init__(
        self,
        game: str,
        *,
        minimal_actions: bool,
        sticky_action_prob: float = 0.1,
        difficulty_ramping: bool = True,
        render_mode: str | None = None,
    ) -> None:
        """Makes the environment; the arguments are `MinAtarVectorEnv`'s.

        Args:
            game: The game's module, one of `GAMES`.
            minimal_actions: Whether the actions that do nothing in this game are left out.
            sticky_action_prob: The probability that the last action is done again instead.
            difficulty_ramping: Whether the game gets harder, where it can.
            render_mode: "rgb_array" for pictures, or None.

        Raises:
            InputError: An argument is not one of the permitted values.
        """
        if render_mode not in (None, "rgb_array"):
            raise InputError(f"There is no render mode {render_mode!r}: there is 'rgb_array'.")
        self.render_mode = render_mode
        self._env = MinAtarVectorEnv(
            game,
            1,
            minimal_actions=minimal_actions,
            sticky_action_prob=sticky_action_prob,
            difficulty_ramping=difficulty_ramping,
        )
        self.observation_space = self._env.single_observation_space
        self.action_space = self._env.single_action_space
        self._action = torch.zeros(1, dtype=torch.int64)
        self._observation: NDArray[np.uint8] | None = None
        # The kernel has begun the next episode by the time that one ends.
        self._has_begun_next = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Begins an episode; there are no options.

        Args:
            seed: Where the random stream begins; without one it goes on.
            options: Ignored, as Gymnasium's wrappers pass them through.
        """
        is_first = self._observation is None
        super().reset(seed=seed)
        if seed is not None or is_first:
            self._env.reset(seed=int(self.np_random.integers(1 << 62)))
        elif not self._has_begun_next:
            self._env.reset()
        self._has_begun_next = False
        self._observation = self._env.state_dict()["observation"][0].numpy()
        return self._observation.copy(), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Plays one step.

        Args:
            action: The action.

        Raises:
            ResetNeeded: No episode has begun, or the last one has ended.
        """
        if self._observation is None or self._has_begun_next:
            raise ResetNeeded("There is no episode to step: call reset() first.")
        self._action[0] = int(action)
        observation, reward, terminated, _, info = self._env.step(self._action)
        self._has_begun_next = bool(terminated[0])
        shown = info["final_obs"] if self._has_begun_next else observation
        self._observation = shown[0].clone().numpy()
        return self._observation.copy(), float(reward[0]), self._has_begun_next, False, {}

    def render(self) -> NDArray[np.uint8] | None:
        """Returns a picture of what was observed last, uint8 `[160, 160, 3]`, later channels above.

        Raises:
            ResetNeeded: No episode has begun.
        """
        if self.render_mode is None:
            return None
        if self._observation is None:
            raise ResetNeeded("There is no episode to show: call reset() first.")
        picture = np.zeros((10, 10, 3), np.uint8)
        channels = len(self._observation)
        for index, channel in enumerate(self._observation):
            colour = colorsys.hsv_to_rgb(index / channels, 0.7, 1.0)
            picture[channel == 1] = [round(255 * part) for part in colour]
        return picture.repeat(_CELL_PIXELS, axis=0).repeat(_CELL_PIXELS, axis=1)

    def close(self) -> None:
        """Ends the environment."""
        self._env.close()
