"""Observation transforms: the same task, seen in another way.

Any task of images takes one as the keyword argument `observation_transform`. It is computed on the
environments' device, so that device environments stay there. Rewards, actions and episodes stay as
they are.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError, unknown
from rltransfer.tasks.task import Task
from rltransfer.tasks.vector_env import VectorEnv

OPTION = "observation_transform"
"""The keyword argument of a task."""

TRANSFORMS = ("rotate_channels",)
"""rotate_channels: each channel of an image takes the place of the next one, the last that of the
first, so that none stays where it was."""


def split_transform(task: Task) -> tuple[Task, str | None]:
    """The task without its transform, and the transform.

    Raises:
        InputError: There is no such transform.
    """
    if OPTION not in task.kwargs:
        return task, None
    kwargs = dict(task.kwargs)
    name = kwargs.pop(OPTION)
    if name not in TRANSFORMS:
        raise unknown(OPTION, str(name), TRANSFORMS)
    return dataclasses.replace(task, kwargs=kwargs), str(name)


class TransformedVectorEnv(VectorEnv):
    """A vector environment of images whose channels are in another order.

    With a frame stack, the order changes within each frame.
    """

    def __init__(self, env: VectorEnv, task_id: str) -> None:
        """Takes over an environment, which is closed with this one.

        Args:
            env: The environment.
            task_id: The task's id, for messages.

        Raises:
            InputError: The observation is not an image, or a frame has a single channel.
        """
        space = env.single_observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 3:
            raise InputError(
                f"The observation of {task_id!r} is not an image: leave out {OPTION}, which is for "
                "images."
            )
        channels, frames = space.shape[0], env.frame_stack or 1
        order = torch.arange(channels).view(frames, channels // frames).roll(1, dims=1).flatten()
        if channels == frames:
            raise InputError(
                f"The images of {task_id!r} have one channel: leave out {OPTION}, which moves "
                "channels."
            )
        self._env = env
        self._order = order.to(env.device)
        # Returned at each step, so that a CUDA graph finds them in place.
        buffer = torch.as_tensor(space.low).new_empty((env.num_envs, *space.shape))
        self._observation = buffer.to(env.device)
        self._final_observation = torch.zeros_like(self._observation)
        self.num_envs, self.device = env.num_envs, env.device
        self.single_observation_space = _in_order(space, order)
        self.single_action_space = env.single_action_space
        self.host_action_space = env.host_action_space
        self.truncates, self.overlaps = env.truncates, env.overlaps
        self.capturable, self.frame_stack = env.capturable, env.frame_stack
        self.metadata = env.metadata

    @property
    def first_index(self) -> int:
        """See `VectorEnv`."""
        return self._env.first_index

    @first_index.setter
    def first_index(self, index: int) -> None:
        self._env.first_index = index

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Begins new episodes; the arguments are those of the environment."""
        observation, info = self._env.reset(seed=seed, options=options)
        return self._moved(observation, self._observation), info

    def send(self, actions: Tensor) -> None:
        """See `VectorEnv`."""
        self._env.send(actions)

    def recv(self) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """See `VectorEnv`."""
        observation, reward, terminated, truncated, info = self._env.recv()
        if "final_obs" in info:
            final = self._moved(info["final_obs"], self._final_observation)
            info = {**info, "final_obs": final}
        shown = self._moved(observation, self._observation)
        return shown, reward, terminated, truncated, info

    def _moved(self, image: Tensor, out: Tensor) -> Tensor:
        return torch.index_select(image, 1, self._order, out=out)

    def state_dict(self) -> dict[str, Tensor] | None:
        """See `VectorEnv`."""
        return self._env.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See `VectorEnv`."""
        self._env.load_state_dict(state)

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the environment."""
        self._env.close(**kwargs)


def _in_order(space: spaces.Box, order: Tensor) -> spaces.Box:
    """A copy of the space with its channels in this order; an `ImageBox` keeps its layout."""
    moved = copy.deepcopy(space)
    for bound in ("low", "high", "bounded_below", "bounded_above"):
        setattr(moved, bound, getattr(space, bound)[order.numpy()])
    return moved
