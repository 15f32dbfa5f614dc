"""Observation groups: every observation is a dictionary of named tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError

Observation = dict[str, Tensor]
"""Named observation groups, each `(..., *shape)`."""

DEFAULT_GROUP = "policy"
"""The group that an environment without named groups hands out."""


def grouped(space: spaces.Space[Any]) -> spaces.Dict:
    """Returns the space as a dictionary of groups; a plain space is the group "policy"."""
    return space if isinstance(space, spaces.Dict) else spaces.Dict({DEFAULT_GROUP: space})


def as_groups(observation: Any) -> Observation:
    """Returns an environment's observation, tensor or dictionary of tensors, as groups."""
    return observation if isinstance(observation, dict) else {DEFAULT_GROUP: observation}


def resized(observation: Observation, space: spaces.Dict) -> Observation:
    """The groups of a space, each cut or padded with zeros to its own size.    (rows, *shape) each

    Vectors and channels come first: it is the first axis after the rows that suites pad.

    Args:
        observation: The groups, of any sizes.    (rows, ...)
        space: The groups that are wanted.
    """
    own: Observation = {}
    for name, part in space.spaces.items():
        shape = shown_shape(part) or (1,)
        group = observation[name][:, : shape[0]]
        missing = shape[0] - group.shape[1]
        # The first axis after the rows is the last that `pad` counts.
        own[name] = F.pad(group, (*[0, 0] * (len(shape) - 1), 0, missing)) if missing else group
    return own


def shown_shape(space: spaces.Space[Any]) -> tuple[int, ...]:
    """The shape of an observation as rollouts show it: discrete ones are one-hot."""
    return (int(space.n),) if isinstance(space, spaces.Discrete) else tuple(space.shape or ())


def joint_observation_space(named: Sequence[tuple[str, spaces.Space[Any]]]) -> spaces.Dict:
    """Returns the one space that the observations of several tasks fit, padded with zeros.

    Vectors and the channels of images may differ in length; all else must be the same.

    Args:
        named: Each task's id and observation space.

    Raises:
        InputError: The tasks' groups, kinds or image sizes differ.
    """
    first_id, first = named[0][0], grouped(named[0][1])
    for task_id, space in named:
        apart = first.spaces.keys() ^ grouped(space).spaces.keys()
        if apart:
            raise InputError(
                f"The tasks {first_id!r} and {task_id!r} cannot share a policy: "
                f"only one of them observes the group {min(apart)!r}."
            )
    joint: dict[str, spaces.Space[Any]] = {}
    for group in first.spaces:
        boxes = []
        for task_id, space in named:
            box = grouped(space)[group]
            if not isinstance(box, spaces.Box):
                raise InputError(
                    f"The task {task_id!r} observes {group!r} as {box}: it must be a Box."
                )
            boxes.append((task_id, box))
        joint[group] = _joint_box(group, boxes)
    return spaces.Dict(joint)


def _joint_box(group: str, boxes: list[tuple[str, spaces.Box]]) -> spaces.Box:
    """Returns the box that all boxes of a group fit."""
    first_id, first = boxes[0]
    for task_id, box in boxes:
        if box.dtype != first.dtype or box.shape[1:] != first.shape[1:]:
            raise InputError(
                f"The tasks {first_id!r} and {task_id!r} cannot share a policy: they observe "
                f"{group!r} as {first.dtype}{list(first.shape)} and {box.dtype}{list(box.shape)}."
            )
    if all(box == first for _, box in boxes):
        return first
    size = max(box.shape[0] for _, box in boxes)
    low = min(float(box.low.min()) for _, box in boxes)
    high = max(float(box.high.max()) for _, box in boxes)
    dtype = np.dtype(first.dtype)
    return spaces.Box(low, high, (size, *first.shape[1:]), dtype.type)


def space_to_json(space: spaces.Space[Any]) -> dict[str, Any]:
    """Returns the JSON form of a Box, Discrete or Dict space.

    Raises:
        TypeError: The space is of another kind.
    """
    if isinstance(space, spaces.Dict):
        return {"dict": {name: space_to_json(part) for name, part in space.spaces.items()}}
    if isinstance(space, spaces.Discrete):
        return {"discrete": int(space.n)}
    if not isinstance(space, spaces.Box):
        raise TypeError(f"A {type(space).__name__} space has no JSON form here.")
    shape = list(space.shape)
    return {
        "box": shape,
        "dtype": str(space.dtype),
        "low": _bound_to_json(space.low),
        "high": _bound_to_json(space.high),
    }


def _bound_to_json(bound: np.ndarray[Any, Any]) -> Any:
    """Returns one number where all bounds are the same; infinities as JSON-safe strings."""
    if bound.size and (bound == bound.flat[0]).all():
        return repr(float(bound.flat[0]))
    return [repr(float(value)) for value in bound.flat]


def space_from_json(data: dict[str, Any]) -> spaces.Space[Any]:
    """Returns the space that `space_to_json` wrote."""
    if "dict" in data:
        return spaces.Dict({name: space_from_json(part) for name, part in data["dict"].items()})
    if "discrete" in data:
        return spaces.Discrete(data["discrete"])
    shape, dtype = tuple(data["box"]), np.dtype(data["dtype"])
    bounds = []
    for bound in (data["low"], data["high"]):
        values = [bound] if isinstance(bound, str) else bound
        array = np.array([float(value) for value in values], dtype=dtype)
        if isinstance(bound, str):
            array = np.full(shape, array[0])
        bounds.append(array.reshape(shape))
    return spaces.Box(bounds[0], bounds[1], shape, dtype.type)


def describe_space(space: spaces.Space[Any]) -> str:
    """Returns how a space of Gymnasium is called in an error."""
    return f"{space.dtype}{list(space.shape)}" if isinstance(space, spaces.Box) else str(space)
