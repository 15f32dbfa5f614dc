"""Tasks and suites: what is to be done, by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rltransfer.errors import InputError


@dataclass(frozen=True)
class Task:
    """A Gymnasium id with the keyword arguments that its environment is made with."""

    id: str
    """The id that `gymnasium.make` knows, e.g. "ALE/Pong-v5"."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment; JSON values."""

    def with_kwargs(self, **kwargs: Any) -> Task:
        """Returns this task with keyword arguments added or replaced."""
        return Task(self.id, {**self.kwargs, **kwargs})

    def only(self, other: Task) -> Task:
        """Returns this task with those of its keyword arguments that another one names."""
        kept = {name: value for name, value in self.kwargs.items() if name in other.kwargs}
        return Task(self.id, kept)

    def contradicts(self, other: Task) -> bool:
        """Tells whether another task of the same id has another value of an argument of this."""
        return any(other.kwargs.get(name, value) != value for name, value in self.kwargs.items())

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON form that `from_json` reads."""
        return {"id": self.id, "kwargs": dict(self.kwargs)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Task:
        """Returns the task that `to_json` wrote."""
        return Task(data["id"], dict(data["kwargs"]))

    def __str__(self) -> str:
        return f"{self.id}{json.dumps(dict(self.kwargs))}" if self.kwargs else self.id

    def __hash__(self) -> int:
        # The values are left out: equal ones may be unhashable, or be written in another way.
        return hash((self.id, frozenset(self.kwargs)))


@dataclass(frozen=True)
class Suite:
    """A named, ordered tuple of tasks that one policy may be trained on together.

    The tasks share one observation and one action specification: channels and actions are padded
    to the largest, and the actions that a task does not have are masked.
    """

    name: str
    """How users ask for it."""
    tasks: tuple[Task, ...]
    """The tasks, in the order of their index."""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise InputError(f"The suite {self.name!r} holds no task: it needs at least one.")
        if len(set(self.tasks)) < len(self.tasks):
            raise InputError(f"The suite {self.name!r} holds a task twice: each may be there once.")

    @staticmethod
    def of(*tasks: str | Task) -> Suite:
        """Returns the suite of these tasks or ids, named after them."""
        made = tuple(task if isinstance(task, Task) else Task(task) for task in tasks)
        return Suite("+".join(task.id for task in made), made)

    def names(self) -> tuple[str, ...]:
        """Returns what results call each task: its id, with its arguments where ids repeat."""
        ids = [task.id for task in self.tasks]
        return tuple(task.id if ids.count(task.id) == 1 else str(task) for task in self.tasks)

    def place_of(self, task: Task) -> int | None:
        """Returns the index by which a policy of this suite knows a task, or None.

        It is that of the same task; or else of the one whose arguments the task has, and others
        beside them; or else of the only one of its id. Where several would do, none is right.
        """
        named = [index for index, own in enumerate(self.tasks) if own.id == task.id]
        same = [index for index in named if self.tasks[index] == task]
        within = [index for index in named if self.tasks[index] == task.only(self.tasks[index])]
        return next((found[0] for found in (same, within, named) if len(found) == 1), None)

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON form that `from_json` reads."""
        return {"name": self.name, "tasks": [task.to_json() for task in self.tasks]}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Suite:
        """Returns the suite that `to_json` wrote."""
        return Suite(data["name"], tuple(Task.from_json(task) for task in data["tasks"]))

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)
