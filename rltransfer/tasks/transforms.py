"""Observation transforms: the same task, seen in another way.

Any task of images takes one as the keyword argument `observation_transform`, or several, joined by
"+". They are computed on the environments' device, so that device environments stay there. Rewards,
actions and episodes stay as they are.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError, unknown
from rltransfer.tasks.image_transforms import MOVES, TRANSFORMS, ImageSpec, keeps_black
from rltransfer.tasks.task import OBSERVATION_TRANSFORM as OPTION
from rltransfer.tasks.task import Task
from rltransfer.tasks.vector_env import VectorEnv
from rltransfer.tasks.wrapped_env import WrappedVectorEnv


def split_transform(task: Task) -> tuple[Task, tuple[str, ...]]:
    """The task without its transforms, and the transforms.

    Raises:
        InputError: There is no such transform.
    """
    if OPTION not in task.kwargs:
        return task, ()
    kwargs = dict(task.kwargs)
    value = kwargs.pop(OPTION)
    names = tuple(value.split("+")) if isinstance(value, str) else (str(value),)
    for name in names:
        if not name:
            raise InputError(
                f"The {OPTION} of {task.id!r} is {value!r}: join names by single pluses, e.g. "
                "flip_horizontal+noise."
            )
        if name not in TRANSFORMS:
            raise unknown(OPTION, name, TRANSFORMS)
    return dataclasses.replace(task, kwargs=kwargs), names


class TransformedVectorEnv(WrappedVectorEnv):
    """A vector environment whose images are transformed.

    A frame stack is transformed frame by frame. Frames before an episode's start stay black.
    """

    def __init__(self, env: VectorEnv, names: Sequence[str], task_id: str) -> None:
        """Takes over an environment.

        Args:
            env: The environment.
            names: The transforms, in the order in which they are applied.
            task_id: The task's id, for messages.

        Raises:
            InputError: The observation is not an image, or a transform cannot be applied to it.
        """
        space = env.single_observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 3:
            raise InputError(
                f"The observation of {task_id!r} is not an image: leave out {OPTION}, which is for "
                "images."
            )
        super().__init__(env)
        self._frames = env.frame_stack or 1
        spec = _image_spec(space, self._frames, task_id)
        self._functions = [TRANSFORMS[name](spec) for name in names]
        self._fills_black = env.frame_stack > 0 and not all(map(keeps_black, names))
        # Returned at each step, so that a CUDA graph finds them in place.
        buffer = torch.as_tensor(space.low).new_empty((env.num_envs, *space.shape))
        self._observation = buffer.to(env.device)
        self._final_observation = torch.zeros_like(self._observation)
        self.single_observation_space = self._transformed_space(space, names)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Begins new episodes; the arguments are those of the environment."""
        observation, info = self._env.reset(seed=seed, options=options)
        return self._transformed(observation, self._observation), info

    def recv(self) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """See `VectorEnv`."""
        observation, reward, terminated, truncated, info = self._env.recv()
        if "final_obs" in info:
            final = self._transformed(info["final_obs"], self._final_observation)
            info = {**info, "final_obs": final}
        shown = self._transformed(observation, self._observation)
        return shown, reward, terminated, truncated, info

    def _transformed(self, image: Tensor, out: Tensor) -> Tensor:
        before = image.unflatten(1, (self._frames, -1))
        after = self._applied(before)
        if self._fills_black:
            is_blank = (before == 0).flatten(2).all(-1)
            after = after.masked_fill(is_blank[..., None, None, None], 0)
        return out.copy_(after.flatten(1, 2))

    def _applied(self, images: Tensor) -> Tensor:
        for function in self._functions:
            images = function(images)
        return images

    def _transformed_space(self, space: spaces.Box, names: Sequence[str]) -> spaces.Box:
        """A copy of the space with other bounds; an `ImageBox` keeps its layout."""
        made = copy.deepcopy(space)
        if all(name in MOVES for name in names):
            for bound in ("low", "high", "bounded_below", "bounded_above"):
                images = torch.as_tensor(getattr(space, bound))[None]
                moved = self._applied(images.unflatten(1, (self._frames, -1)))
                setattr(made, bound, moved.flatten(1, 2)[0].numpy())
            return made
        made.low, made.high = (
            np.full_like(space.low, value) for value in (space.low.min(), space.high.max())
        )
        return made


def _image_spec(space: spaces.Box, frames: int, task_id: str) -> ImageSpec:
    channels, height, width = space.shape
    return ImageSpec(
        channels=channels // frames,
        height=height,
        width=width,
        dtype=torch.as_tensor(space.low).dtype,
        low=float(space.low.min()),
        high=float(space.high.max()),
        task_id=task_id,
    )
