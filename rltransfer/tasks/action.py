"""Action spaces: units of their dimensions, the joint space of several tasks, the mask of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rltransfer.errors import InputError

LARGEST_BOUND = 1e9
"""Bounds at least this far from zero count as none: environments write "unbounded" in many ways."""


def action_size(space: spaces.Space[Any]) -> int:
    """The number of discrete actions, or of action dimensions."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    assert isinstance(space, spaces.Box)
    (size,) = space.shape
    return size


def center_and_half_range(box: spaces.Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The middle of each action dimension's bounds, and half the distance between them.

    0 and 1 for dimensions without bounds; 1 for the half-range of dimensions with a single value.

    Args:
        box: The action space.

    Returns:
        center (action_dim,) and half-range (action_dim,), float32.
    """
    low, high = (bound.astype(np.float64).reshape(-1) for bound in (box.low, box.high))
    bounded = bounded_dimensions(box)
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    half_range = (high - low) / 2
    half_range[half_range == 0] = 1.0
    return ((low + high) / 2).astype(np.float32), half_range.astype(np.float32)


def bounded_dimensions(box: spaces.Box) -> NDArray[np.bool_]:
    """Whether an action dimension has both bounds.    (action_dim,)"""
    inside: NDArray[np.bool_] = (np.abs(box.low) < LARGEST_BOUND) & (
        np.abs(box.high) < LARGEST_BOUND
    )
    return inside.reshape(-1)


def joint_action_space(named: Sequence[tuple[str, spaces.Space[Any]]]) -> spaces.Space[Any]:
    """The action space that all tasks fit: as large as the largest one.

    Each dimension of a continuous action gets the widest bounds of all tasks that have it.

    Args:
        named: Each task's id and action space.

    Raises:
        InputError: Some tasks have discrete actions and others continuous ones.
    """
    first_id, first = named[0]
    for task_id, space in named:
        if type(space) is not type(first):
            raise InputError(
                f"The tasks {first_id!r} and {task_id!r} cannot share a policy: "
                "one has discrete actions, the other continuous ones."
            )
    size = max(action_size(space) for _, space in named)
    if isinstance(first, spaces.Discrete):
        return spaces.Discrete(size)
    low, high = np.full(size, np.inf, np.float32), np.full(size, -np.inf, np.float32)
    for _, box in named:
        assert isinstance(box, spaces.Box)
        part = slice(action_size(box))
        low[part], high[part] = np.minimum(low[part], box.low), np.maximum(high[part], box.high)
    return spaces.Box(low, high, dtype=np.float32)


def action_mask(
    joint: spaces.Space[Any], own: Sequence[spaces.Space[Any]]
) -> tuple[tuple[bool, ...], ...] | None:
    """Which joint actions or action dimensions are available in each task; None if all are."""
    size = action_size(joint)
    counts = [action_size(space) for space in own]
    if all(count == size for count in counts):
        return None
    return tuple(tuple(action < count for action in range(size)) for count in counts)
