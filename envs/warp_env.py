"""Base classes of environments whose step is a Warp kernel."""

from __future__ import annotations

import abc
import functools
from typing import Any

import gymnasium
import numpy as np
import torch
import warp as wp
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from rltransfer.envs.warp_device import current_stream, find_device
from rltransfer.errors import InputError, unknown
from rltransfer.tasks.vector_env import VectorEnv

BLOCK = 64
"""Environments in a CUDA block: few, so that thousands of them occupy every multiprocessor."""

CELL_PIXELS = 16
"""The edge of a cell in a picture."""


class WarpVectorEnv(VectorEnv):
    """Many environments with state and step on the device, each with a separate random stream.

    Subclasses call `_allocate`, implement the launch of a step, and set the kernel that begins
    episodes, with its inputs: `_mask`, then those after the seed. The next step overwrites the
    observation, which must not be written to.
    """

    _reset_kernel: wp.Kernel
    _reset_inputs: list[Any]

    def __init__(self, num_envs: int, device: torch.device | str) -> None:
        if num_envs < 1:
            raise InputError(f"num_envs is {num_envs}: it must be at least 1.")
        self.num_envs = num_envs
        self.device = find_device(device)

    def _allocate(self, observation: Tensor, **state: Tensor) -> None:
        """Allocates actions and results, and registers the state.

        Args:
            observation: The current observation.           (num_envs, *shape)
            state: The other tensors of the state.          (num_envs, ...) each
        """
        zeros = functools.partial(torch.zeros, self.num_envs, device=self.device)
        self._warp_device = wp.device_from_torch(self.device)
        self._state = {**state, "observation": observation}
        self._actions = zeros(dtype=torch.int64)
        self._mask = zeros(dtype=torch.bool)
        self._final_observation = torch.zeros_like(observation)
        self._reward = zeros(dtype=torch.float32)
        self._terminated = zeros(dtype=torch.bool)
        self._truncated = zeros(dtype=torch.bool)

    @abc.abstractmethod
    def _launch_step(self) -> None:
        """Begins a step of every environment with `_actions`."""

    def _launch_reset(self, seeded: bool, seed: int) -> None:
        """Begins new episodes where `_mask` is true.

        Args:
            seeded: Whether to seed the random streams.
            seed: The seed, below 2 ** 64.
        """
        mask, *rest = self._reset_inputs
        wp.launch(
            self._reset_kernel,
            dim=self.num_envs,
            inputs=[mask, seeded, seed, *rest],
            device=self._warp_device,
            stream=current_stream(self.device),
            block_dim=BLOCK,
        )

    def _wait(self) -> None:
        """Waits for the step, if it does not run on torch's stream."""

    @functools.cached_property
    def observation_space(self) -> gymnasium.Space[Any]:  # type: ignore[override]
        """The observation space of all environments; made lazily, as it is large."""
        return batch_space(self.single_observation_space, self.num_envs)

    @functools.cached_property
    def action_space(self) -> gymnasium.Space[Any]:  # type: ignore[override]
        """The action space of all environments."""
        return batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Begins new episodes.

        Args:
            seed: Seeds the random streams; without one they continue.
            options: `reset_mask`, bool `(num_envs,)`, selects environments; all by default.

        Returns:
            The observation `(num_envs, *shape)` and an empty dictionary.

        Raises:
            InputError: The seed is negative, or an option is unknown.
        """
        if seed is not None and seed < 0:
            raise InputError(f"The seed is {seed}: it must be 0 or more.")
        self._wait()
        self._set_mask(options or {})
        self._launch_reset(seed is not None, (seed or 0) % (1 << 64))
        return self._state["observation"], {}

    def _set_mask(self, options: dict[str, Any]) -> None:
        for option in options:
            if option != "reset_mask":
                raise unknown("option of reset", option, ("reset_mask",))
        if "reset_mask" not in options:
            self._mask.fill_(True)
            return
        mask = torch.as_tensor(options["reset_mask"])
        if mask.dtype != torch.bool or mask.shape != self._mask.shape:
            raise InputError(f"reset_mask must be a bool tensor of shape ({self.num_envs},).")
        self._mask.copy_(mask)

    def send(self, actions: Tensor) -> None:
        """Begins a step, without waiting for it.

        Args:
            actions: The actions, integers `(num_envs,)`; an action out of range does nothing.

        Raises:
            InputError: The actions have another shape.
            ClosedEnvironmentError: The environments are closed.
        """
        if self.closed:
            raise ClosedEnvironmentError("The environments are closed: make new ones.")
        if actions.shape != self._actions.shape:
            raise InputError(
                f"The actions have shape {tuple(actions.shape)}: it must be ({self.num_envs},)."
            )
        self._wait()
        self._actions.copy_(actions)
        self._launch_step()

    def recv(self) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Ends the step that `send` began.

        Returns:
            The observation `(num_envs, *shape)`; the reward, float32 `(num_envs,)`; terminated and
            truncated, bool `(num_envs,)`; and `final_obs`, of the observation's shape.
        """
        self._wait()
        info = {"final_obs": self._final_observation}
        return self._state["observation"], self._reward, self._terminated, self._truncated, info

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the whole state, random streams included."""
        self._wait()
        return {name: tensor.clone() for name, tensor in self._state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores a state that `state_dict` returned.

        Raises:
            InputError: The state is one of other environments, or of another number of them.
        """
        shapes = {name: tensor.shape for name, tensor in self._state.items()}
        if {name: tensor.shape for name, tensor in state.items()} != shapes:
            raise InputError(
                "The state is of other environments, or of another number of them: make the "
                "environments with the same arguments."
            )
        self._wait()
        for name, tensor in state.items():
            self._state[name].copy_(tensor)


class SingleWarpEnv(gymnasium.Env[NDArray[Any], np.int64], abc.ABC):
    """One environment of a `WarpVectorEnv` with NumPy arrays; `reset` begins each episode."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # as in Gymnasium

    def __init__(self, env: WarpVectorEnv, render_mode: str | None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise InputError(f"There is no render mode {render_mode!r}: use 'rgb_array'.")
        self.render_mode = render_mode
        self._env = env
        self.observation_space = env.single_observation_space
        self.action_space = env.single_action_space
        self._action = torch.zeros(1, dtype=torch.int64)
        self._observation: NDArray[Any] | None = None
        # The kernel resets in the step in which an episode ends.
        self._has_begun_next = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Begins an episode.

        Args:
            seed: Seeds the random stream; without one it continues.
            options: Ignored, as Gymnasium's wrappers pass them through.
        """
        super().reset(seed=seed)
        if seed is not None or self._observation is None:
            self._env.reset(seed=int(self.np_random.integers(1 << 62)))
        elif not self._has_begun_next:
            self._env.reset()
        self._has_begun_next = False
        self._observation = self._env.state_dict()["observation"][0].numpy()
        return self._observation.copy(), {}

    def step(self, action: np.int64) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Plays one step.

        Raises:
            ResetNeeded: No episode has begun, or the last one has ended.
        """
        if self._observation is None or self._has_begun_next:
            raise ResetNeeded("There is no episode to step: call reset() first.")
        self._action[0] = int(action)
        observation, reward, terminated, truncated, info = self._env.step(self._action)
        self._has_begun_next = bool(terminated[0] | truncated[0])
        shown = info["final_obs"] if self._has_begun_next else observation
        self._observation = shown[0].clone().numpy()
        ended = bool(terminated[0]), bool(truncated[0])
        return self._observation.copy(), float(reward[0]), *ended, {}

    def render(self) -> NDArray[np.uint8] | None:
        """A picture of the last observation, uint8 `(16 * height, 16 * width, 3)`.

        Raises:
            ResetNeeded: No episode has begun.
        """
        if self.render_mode is None:
            return None
        if self._observation is None:
            raise ResetNeeded("There is no episode to show: call reset() first.")
        return self._picture(self._observation).repeat(CELL_PIXELS, 0).repeat(CELL_PIXELS, 1)

    @abc.abstractmethod
    def _picture(self, observation: NDArray[Any]) -> NDArray[np.uint8]:
        """A picture with one pixel for each cell.    (height, width, 3)"""

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()
