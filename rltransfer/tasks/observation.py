"""Observation groups: every observation is a dictionary of named tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.tasks.image_layout import ImageBox

Observation = dict[str, Tensor]
"""Named observation groups, each `(..., *shape)`."""

LARGEST_SPACE = 2**25
"""Values of a space that a file describes, whose bounds take memory: 3000 x 3000 pixels in RGB."""

DEFAULT_GROUP = "policy"
"""The group of an environment whose observations are not a dictionary."""


def grouped(space: spaces.Space[Any]) -> spaces.Dict:
    """The space as a dictionary of groups; a plain space becomes the group "policy"."""
    return space if isinstance(space, spaces.Dict) else spaces.Dict({DEFAULT_GROUP: space})


def as_groups(observation: Any) -> dict[str, Any]:
    """An environment's observation as groups; a plain one becomes the group "policy"."""
    return observation if isinstance(observation, dict) else {DEFAULT_GROUP: observation}


def copied(observation: Observation) -> Observation:
    """A copy for code of a user, which may change it in place.    (rows, ...) each"""
    return {name: group.clone() for name, group in observation.items()}


def resized(observation: Observation, space: spaces.Dict) -> Observation:
    """The groups of a space, each cropped or padded with zeros to its size.    (rows, *shape) each

    Suites pad the first axis after the rows: the entries of vectors, the channels of images.

    Args:
        observation: The groups, of any sizes.    (rows, ...)
        space: The groups of the result.
    """
    fitted: Observation = {}
    for name, part in space.spaces.items():
        shape = shown_shape(part) or (1,)
        group = observation[name][:, : shape[0]]
        missing = shape[0] - group.shape[1]
        # `pad` counts axes from the last.
        fitted[name] = F.pad(group, (*[0, 0] * (len(shape) - 1), 0, missing)) if missing else group
    return fitted


def images_as_shown(observation: Observation, space: spaces.Dict) -> Observation:
    """The groups, with images as the environment of the space shows them.    (rows, ...) each"""
    return {
        name: part.layout.as_shown(observation[name])
        if isinstance(part, ImageBox)
        else observation[name]
        for name, part in space.spaces.items()
    }


def shown_shape(space: spaces.Space[Any]) -> tuple[int, ...]:
    """Shape of an observation in a rollout: discrete observations are one-hot."""
    return (int(space.n),) if isinstance(space, spaces.Discrete) else tuple(space.shape or ())


def joint_observation_space(named: Sequence[tuple[str, spaces.Space[Any]]]) -> spaces.Dict:
    """The observation space that several tasks fit, padded with zeros.

    Vectors may differ in length and images in channels; all else must be equal.

    Args:
        named: Each task's id and observation space.

    Raises:
        InputError: The tasks' groups, kinds or image sizes differ.
    """
    observed = [(task_id, grouped(space).spaces) for task_id, space in named]
    first_id, first = observed[0]
    for task_id, groups in observed:
        differing = first.keys() ^ groups.keys()
        if differing:
            raise InputError(
                f"The tasks {first_id!r} and {task_id!r} cannot share a policy: "
                f"only one of them observes the group {min(differing)!r}."
            )
    joint: dict[str, spaces.Space[Any]] = {}
    for name in first:
        joint[name] = _joint_box(name, [(task_id, groups[name]) for task_id, groups in observed])
    return spaces.Dict(joint)


def _joint_box(group: str, named: list[tuple[str, spaces.Space[Any]]]) -> spaces.Box:
    boxes = []
    for task_id, box in named:
        if not isinstance(box, spaces.Box):
            raise InputError(f"The task {task_id!r} observes {group!r} as {box}: it must be a Box.")
        boxes.append(box)
    first_id, first = named[0][0], boxes[0]
    for (task_id, _), box in zip(named, boxes, strict=True):
        if box.dtype != first.dtype or box.shape[1:] != first.shape[1:]:
            raise InputError(
                f"The tasks {first_id!r} and {task_id!r} cannot share a policy: they observe "
                f"{group!r} as {describe_space(first)} and {describe_space(box)}."
            )
    layouts = {box.layout if isinstance(box, ImageBox) else None for box in boxes}
    if all(box == first for box in boxes) and len(layouts) == 1:
        return first
    if all(box == first for box in boxes):
        return spaces.Box(first.low, first.high, first.shape, np.dtype(first.dtype).type)
    size = max(box.shape[0] for box in boxes)
    low = min(float(box.low.min()) for box in boxes)
    high = max(float(box.high.max()) for box in boxes)
    return spaces.Box(low, high, (size, *first.shape[1:]), np.dtype(first.dtype).type)


def space_to_json(space: spaces.Space[Any]) -> dict[str, Any]:
    """JSON form of a Box, Discrete or Dict space.

    Raises:
        TypeError: The space is of another kind.
    """
    if isinstance(space, spaces.Dict):
        return {"dict": {name: space_to_json(part) for name, part in space.spaces.items()}}
    if isinstance(space, spaces.Discrete):
        start = {"start": int(space.start)} if space.start else {}
        return {"discrete": int(space.n), **start}
    if not isinstance(space, spaces.Box):
        raise TypeError(f"A {type(space).__name__} space has no JSON form.")
    shape = list(space.shape)
    return {
        "box": shape,
        "dtype": str(space.dtype),
        "low": _bound_to_json(space.low),
        "high": _bound_to_json(space.high),
    }


def _bound_to_json(bound: np.ndarray[Any, Any]) -> Any:
    # One number where all bounds are the same; text, as JSON has no infinities.
    if bound.size and (bound == bound.flat[0]).all():
        return repr(float(bound.flat[0]))
    return [repr(float(value)) for value in bound.flat]


def space_from_json(data: dict[str, Any]) -> spaces.Space[Any]:
    """Inverse of `space_to_json`.

    Raises:
        ValueError: The space has more than `LARGEST_SPACE` values.
        Exception: Another one of `DAMAGE`, where the JSON is not that of a space.
    """
    if _declared(data) > LARGEST_SPACE:
        raise ValueError("a space of too many values")
    return _space(data)


def _declared(data: dict[str, Any]) -> int:
    """The number of values of a space."""
    if "dict" in data:
        return sum(map(_declared, data["dict"].values()))
    return math.prod(data["box"]) if "box" in data else 1


def _space(data: dict[str, Any]) -> spaces.Space[Any]:
    if "dict" in data:
        return spaces.Dict({name: _space(part) for name, part in data["dict"].items()})
    if "discrete" in data:
        return spaces.Discrete(data["discrete"], start=data.get("start", 0))
    shape, dtype = tuple(data["box"]), np.dtype(data["dtype"])
    if dtype.kind not in "biuf" or min(shape, default=1) < 1:
        raise ValueError("a space of other values than numbers")

    def bound(value: Any) -> np.ndarray[Any, Any]:
        if isinstance(value, str):
            return np.full(shape, float(value), dtype)
        return np.array([float(entry) for entry in value], dtype).reshape(shape)

    return spaces.Box(bound(data["low"]), bound(data["high"]), shape, dtype.type)


def describe_space(space: spaces.Space[Any]) -> str:
    """The name of a Gymnasium space in errors."""
    return f"{space.dtype}{list(space.shape)}" if isinstance(space, spaces.Box) else str(space)
