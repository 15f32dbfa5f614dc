"""Action spaces: the one that several tasks share, and what is legal in each."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces

from rltransfer.errors import InputError


def joint_action_space(named: list[tuple[str, spaces.Space[Any]]]) -> spaces.Space[Any]:
    """Returns the one action space that all tasks fit: as many actions as the largest has.

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
        if isinstance(space, spaces.Box) and space.shape != first.shape:
            raise InputError(
                f"The tasks {first_id!r} and {task_id!r} cannot share a policy: their actions have "
                f"{first.shape} and {space.shape} numbers."
            )
    if isinstance(first, spaces.Discrete):
        return spaces.Discrete(max(int(space.n) for _, space in named))  # type: ignore[attr-defined]
    return first


def action_mask(
    joint: spaces.Space[Any], own: list[spaces.Space[Any]]
) -> tuple[tuple[bool, ...], ...] | None:
    """Returns which discrete actions are legal in each task; None where all are in all."""
    if not isinstance(joint, spaces.Discrete):
        return None
    counts = [int(space.n) for space in own]  # type: ignore[attr-defined]
    if all(count == joint.n for count in counts):
        return None
    return tuple(tuple(action < count for action in range(int(joint.n))) for count in counts)
