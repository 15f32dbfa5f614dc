"""Vector environments: tensors in, tensors out.

A `VectorEnv` is Gymnasium's vector environment with torch tensors on `device` in place of NumPy
arrays. Device environments keep their state in tensors. Host environments (`host_env.py`) wrap
NumPy environments, whose steps can overlap with inference.

Every environment resets in the step in which an episode ends (`AutoresetMode.SAME_STEP`): the
observation returned is the first of the new episode, and `info["final_obs"]` contains the last of
the old one.
"""

from __future__ import annotations

import abc
from typing import Any

import gymnasium
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from torch import Tensor


class LostEpisodeError(Exception):
    """Episodes under way cannot be continued; new ones must begin."""


class VectorEnv(gymnasium.vector.VectorEnv, abc.ABC):
    """Gymnasium's vector environment with tensors on `device`.

    `step` returns `(observation, reward, terminated, truncated, info)`: an observation of
    `single_observation_space` (a tensor, or a dictionary of tensors for a `Dict`), `reward` float32
    `(num_envs,)`, `terminated` and `truncated` bool `(num_envs,)`, and `info["final_obs"]`, valid
    in the rows whose episode ended. The next step may overwrite the tensors: copy those to keep.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    num_envs: int
    device: torch.device
    first_index: int = 0
    """Index of its first environment among those of its task, for messages."""
    truncates: bool = True
    """Whether episodes can be truncated; if not, `final_obs` is never needed."""
    overlaps: bool = False
    """Whether `send` returns while the step is still running, so that pipelining pays off."""
    on_host: bool = False
    """Whether it is simulated on the host, where a step costs more than on the device."""
    capturable: bool = False
    """Whether a step can be part of a CUDA graph: it does not wait for the device, allocates no
    tensor that outlives it, always returns the same tensors, and always returns `final_obs`."""
    host_action_space: spaces.Space[Any] | None = None
    """The action space as the host environment defines it, with its start or its shape; None if it
    is `single_action_space`."""
    frame_stack: int = 0
    """Number of frames stacked along the observation's first axis, oldest first, black before the
    episode's start; 0 for no frame stack. A replay buffer stores each frame once."""

    @abc.abstractmethod
    def send(self, actions: Tensor) -> None:
        """Begins a step, without waiting for it.

        Args:
            actions: int64 `(num_envs,)` or float32 `(num_envs, action_dim)`, on `device`.
        """

    @abc.abstractmethod
    def recv(self) -> tuple[Any, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Ends the step that `send` began; see `step`."""

    def step(self, actions: Tensor) -> tuple[Any, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Steps every environment once."""
        self.send(actions)
        return self.recv()

    def state_dict(self) -> dict[str, Tensor] | None:
        """Copies of the whole state, random state included; None if it cannot be saved.

        An environment without a state begins new episodes when a run is resumed: the episodes under
        way are lost, and the run differs from an uninterrupted one.
        """
        return None

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores a state that `state_dict` returned.

        Raises:
            LostEpisodeError: The state is whole, but cannot be reached again.
        """
        raise ValueError(f"{type(self).__name__} cannot restore a state.")
