"""Vector environments: tensors in, tensors out.

A `VectorEnv` is Gymnasium's vector environment with torch tensors on `device` in place of numpy
arrays. Device environments keep their state in tensors; host environments (`host_env.py`) are
numpy's, stepped in two halves so that simulation and inference overlap.

Every environment here resets in the step in which an episode ends (`AutoresetMode.SAME_STEP`), so
that no row is one that an autoreset put in: the observation returned is the new episode's first and
`info["final_obs"]` holds the old one's last.
"""

from __future__ import annotations

import abc
from typing import Any

import gymnasium
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor


class VectorEnv(gymnasium.vector.VectorEnv, abc.ABC):
    """Gymnasium's vector environment with tensors on `device`.

    `step` returns `(observation, reward, terminated, truncated, info)`: the observation as
    `single_observation_space` says (a tensor, or a dictionary of tensors for a `Dict`), `reward`
    float32 `(num_envs,)`, `terminated` and `truncated` bool `(num_envs,)`, and `info["final_obs"]`,
    of which the rows are meant whose episode ended. The tensors may be overwritten by the next
    step: whoever keeps one copies it.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    num_envs: int
    device: torch.device
    truncates: bool = True
    """Whether an episode can be cut short; if not, nobody needs to look at `final_obs`."""
    overlaps: bool = False
    """Whether `send` returns while the step goes on elsewhere, so that two halves pay."""
    capturable: bool = False
    """Whether a step may be part of a CUDA graph: it neither waits for the device nor makes tensors
    that outlive it, what it returns is the same tensors each time, and `final_obs` is always
    there."""
    frame_stack: int = 0
    """The number of frames that the observation's first axis stacks, oldest first, black before the
    episode's start; 0 where the observation is no such stack. A memory stores each frame once."""

    @abc.abstractmethod
    def send(self, actions: Tensor) -> None:
        """Begins a step, without waiting for it.

        Args:
            actions: int64 `(num_envs,)` or float32 `(num_envs, action_dim)`, on `device`.
        """

    @abc.abstractmethod
    def recv(self) -> tuple[Any, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Ends the step that `send` began and returns what `step` returns."""

    def step(self, actions: Tensor) -> tuple[Any, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Steps every environment once."""
        self.send(actions)
        return self.recv()

    def state_dict(self) -> dict[str, Tensor] | None:
        """Returns copies of the whole state, random state included; None if it cannot be had.

        An environment that cannot say its state starts new episodes at every checkpoint, in a run
        that is never stopped too, so that a resumed run equals an unbroken one.
        """
        return None

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes back to a state that `state_dict` returned."""
        raise ValueError(f"{type(self).__name__} cannot go back to a state.")
