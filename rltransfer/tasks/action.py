"""Action spaces: the one that several tasks share, and what of it each task has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from rltransfer.errors import InputError


def action_size(space: spaces.Space[Any]) -> int:
    """Returns how many discrete actions there are, or how many numbers a continuous one has."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    assert isinstance(space, spaces.Box)
    (size,) = space.shape
    return size


def joint_action_space(named: Sequence[tuple[str, spaces.Space[Any]]]) -> spaces.Space[Any]:
    """Returns the one action space that all tasks fit: as many actions as the largest has.

    A continuous action has as many numbers as the longest, each within the widest bounds.

    Args:
        named: Each task's id and its own actions.

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
    if isinstance(first, spaces.Discrete):
        return spaces.Discrete(max(action_size(space) for _, space in named))
    return _joint_box([space for _, space in named if isinstance(space, spaces.Box)])


def _joint_box(boxes: Sequence[spaces.Box]) -> spaces.Box:
    """Returns the smallest box that holds every task's actions, the shorter ones padded."""
    size = max(action_size(box) for box in boxes)
    low, high = np.full(size, np.inf, np.float32), np.full(size, -np.inf, np.float32)
    for box in boxes:
        own = slice(action_size(box))
        low[own], high[own] = np.minimum(low[own], box.low), np.maximum(high[own], box.high)
    return spaces.Box(low, high, dtype=np.float32)


def action_mask(
    joint: spaces.Space[Any], own: Sequence[spaces.Space[Any]]
) -> tuple[tuple[bool, ...], ...] | None:
    """Returns which of the joint actions, or of an action's numbers, each task has.

    None where each has all.
    """
    size = action_size(joint)
    counts = [action_size(space) for space in own]
    if all(count == size for count in counts):
        return None
    return tuple(tuple(action < count for action in range(size)) for count in counts)
