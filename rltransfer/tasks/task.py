"""Tasks and suites of tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rltransfer.errors import InputError


@dataclass(frozen=True)
class Task:
    """A Gymnasium id with the keyword arguments of its environment."""

    id: str
    """The id passed to `gymnasium.make`, e.g. "ALE/Pong-v5"."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment; JSON values."""

    def with_kwargs(self, **kwargs: Any) -> Task:
        """The task with keyword arguments added or replaced."""
        return Task(self.id, {**self.kwargs, **kwargs})

    def only(self, other: Task) -> Task:
        """The task without the keyword arguments that the other task does not set."""
        common = {name: value for name, value in self.kwargs.items() if name in other.kwargs}
        return Task(self.id, common)

    def contradicts(self, other: Task) -> bool:
        """Whether both tasks set a keyword argument to different values."""
        return any(other.kwargs.get(name, value) != value for name, value in self.kwargs.items())

    def to_json(self) -> dict[str, Any]:
        """JSON form of the task."""
        return {"id": self.id, "kwargs": dict(self.kwargs)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Task:
        """Inverse of `to_json`.

        Raises:
            Exception: The data are not those of a task: KeyError, TypeError or ValueError.
        """
        if not isinstance(data["id"], str):
            raise TypeError("The id of a task is text.")
        return Task(data["id"], dict(data["kwargs"]))

    def __str__(self) -> str:
        return f"{self.id}{json.dumps(dict(self.kwargs))}" if self.kwargs else self.id

    def __hash__(self) -> int:
        # Without the values: they may be unhashable, and equal values may differ in type.
        return hash((self.id, frozenset(self.kwargs)))


@dataclass(frozen=True)
class Suite:
    """A named, ordered tuple of tasks for one policy.

    The tasks share one observation space and one action space: observations and actions are padded
    to the largest task, and actions that a task lacks are masked.
    """

    name: str
    """The name that users pass, e.g. to `--suite`."""
    tasks: tuple[Task, ...]
    """The tasks, in the order of their index."""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise InputError(f"The suite {self.name!r} contains no task: it needs at least one.")
        if len(set(self.tasks)) < len(self.tasks):
            raise InputError(
                f"The suite {self.name!r} contains a task twice: each task may occur once."
            )

    @staticmethod
    def of(*tasks: str | Task) -> Suite:
        """A suite of these tasks or ids, named after them."""
        made = tuple(task if isinstance(task, Task) else Task(task) for task in tasks)
        return Suite("+".join(task.id for task in made), made)

    def names(self) -> tuple[str, ...]:
        """Display names of the tasks: the id, with the keyword arguments where ids repeat."""
        ids = [task.id for task in self.tasks]
        return tuple(task.id if ids.count(task.id) == 1 else str(task) for task in self.tasks)

    def place_of(self, task: Task) -> int | None:
        """The index of the task that a policy of this suite treats a given task as.

        Prefers an exact match, then a task whose kwargs are a subset, then the only task with this
        id. None if no task matches or the match is ambiguous.
        """
        same_id = [index for index, known in enumerate(self.tasks) if known.id == task.id]
        exact = [index for index in same_id if self.tasks[index] == task]
        subset = [index for index in same_id if self.tasks[index] == task.only(self.tasks[index])]
        return next((found[0] for found in (exact, subset, same_id) if len(found) == 1), None)

    def to_json(self) -> dict[str, Any]:
        """JSON form of the suite."""
        return {"name": self.name, "tasks": [task.to_json() for task in self.tasks]}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Suite:
        """Inverse of `to_json`; see `Task.from_json`."""
        if not isinstance(data["name"], str):
            raise TypeError("The name of a suite is text.")
        return Suite(data["name"], tuple(Task.from_json(task) for task in data["tasks"]))

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)
