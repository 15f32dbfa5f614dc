"""Gridworlds as device environments: two rooms with a corridor, and numbered mazes.

`rltransfer/TwoRooms-v0` is the first experiment of Teh 2017 (1707.04175, section 4.1): rooms joined
by a corridor, a goal for each task, a random start. `rltransfer/Maze-v0` is a family of mazes that
differ in walls and goal. In both, reaching the goal gives 1 and moves the agent to a random cell,
and episodes are truncated after `time_limit` steps: the return counts how often the goal was
reached. The keyword arguments are those of `layouts.two_rooms`, `layouts.random_maze` and
`vector_env.GridworldVectorEnv`:

    gymnasium.make("rltransfer/TwoRooms-v0", goal=3, observation="pixels")
    rltransfer.train(..., suite=mazes(16, size=13))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium

from rltransfer.errors import InputError, unknown
from rltransfer.tasks.task import Suite, Task

if TYPE_CHECKING:
    import torch

    from rltransfer.tasks.vector_env import VectorEnv


TWO_ROOMS = "rltransfer/TwoRooms-v0"
MAZE = "rltransfer/Maze-v0"

_DEFAULTS: dict[str, dict[str, Any]] = {
    TWO_ROOMS: {"map": "two-rooms"},
    MAZE: {"map": "maze", "observation": "pixels", "view": 4},
}
"""Default keyword arguments of each id."""


def two_rooms(num_tasks: int = 4, **kwargs: Any) -> Suite:
    """The suite `two-rooms`: goals alternate between the left and the right room.

    Args:
        num_tasks: Number of goals.
        kwargs: Keyword arguments of every task.
    """
    return _numbered("two-rooms", TWO_ROOMS, "goal", num_tasks, kwargs)


def mazes(num_tasks: int = 8, **kwargs: Any) -> Suite:
    """The suite `mazes-N`: mazes that differ in walls and goal.

    Args:
        num_tasks: Number of mazes.
        kwargs: Keyword arguments of every task.
    """
    return _numbered(f"mazes-{num_tasks}", MAZE, "maze", num_tasks, kwargs)


def _numbered(name: str, task_id: str, number: str, count: int, kwargs: dict[str, Any]) -> Suite:
    if count < 1:
        raise InputError(f"The suite {name!r} has {count} tasks: it needs at least 1.")
    return Suite(name, tuple(Task(task_id, {number: index, **kwargs}) for index in range(count)))


class GridworldFamily:
    """The task family `gridworld`."""

    name = "gridworld"

    def register(self) -> None:
        """Registers both ids with Gymnasium, unless they are registered."""
        for env_id, kwargs in _DEFAULTS.items():
            if env_id not in gymnasium.registry:
                gymnasium.register(
                    id=env_id,
                    entry_point="rltransfer.envs.gridworld.single:GridworldEnv",
                    vector_entry_point="rltransfer.envs.gridworld.vector_env:GridworldVectorEnv",
                    kwargs=kwargs,
                )

    def suites(self) -> tuple[Suite, ...]:
        """`two-rooms` with four goals, and `mazes-8`."""
        return two_rooms(), mazes()

    def task_ids(self) -> tuple[str, ...]:
        """Both ids."""
        return tuple(_DEFAULTS)

    def accepts(self, task: Task) -> bool:
        """Whether the id is of this family, in any version."""
        return task.id.startswith(tuple(task_id.split("-v")[0] for task_id in _DEFAULTS))

    def make(self, task: Task, num_envs: int, device: torch.device) -> VectorEnv:
        """Makes a task's vector environment.

        Raises:
            InputError: The id does not exist, or a keyword argument is unknown or out of range.
        """
        if task.id not in _DEFAULTS:
            raise unknown("gridworld", task.id, _DEFAULTS)
        from .vector_env import GridworldVectorEnv

        kwargs = {**_DEFAULTS[task.id], **task.kwargs}
        return GridworldVectorEnv(num_envs=num_envs, device=device, **kwargs)

    def evaluation_task(self, task: Task) -> Task:
        """The task itself: training modifies neither episodes nor rewards."""
        return task


FAMILY = GridworldFamily()
"""The entry point."""
