"""Tasks and suites of tasks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rltransfer.errors import InputError, check_number
from rltransfer.options import json_value, pack_tuples, unpack_tuples, without_lists


@dataclass(frozen=True)
class Task:
    """A Gymnasium id with the keyword arguments of its environment."""

    id: str
    """The id passed to `gymnasium.make`, e.g. "ALE/Pong-v5"."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment: None, bools, numbers, text, and lists, tuples and
    dictionaries of these."""
    env_timeout: float = field(default=0.0, compare=False, repr=False)
    """Seconds that a step may take if each environment is in its own process; 0 for any time. It is
    not part of what is played: runs neither store nor compare it."""
    from_file: bool = field(default=False, compare=False, repr=False)
    """Whether a file named the id: then no module of its own is imported, see `trusted`."""

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise InputError(f"{self.id!r} is not a task: pass an id or a Task.")
        if not isinstance(self.kwargs, Mapping):
            raise InputError(
                f"The keyword arguments of {self.id!r} are {self.kwargs!r}: pass a dictionary."
            )
        for name in self.kwargs:
            if not isinstance(name, str) or not name:
                raise InputError(
                    f"A keyword argument of {self.id!r} is called {name!r}: its name must be text."
                )
        check_number(f"The env_timeout of {self.id!r}", self.env_timeout, "finite and at least 0")
        own = {
            str.__str__(name): json_value(f"The keyword argument {name!r} of {self.id!r}", value)
            for name, value in self.kwargs.items()
        }
        object.__setattr__(self, "id", str.__str__(self.id))
        object.__setattr__(self, "kwargs", own)

    def with_kwargs(self, **kwargs: Any) -> Task:
        """The task with keyword arguments added or replaced."""
        return dataclasses.replace(self, kwargs={**self.kwargs, **kwargs})

    def only(self, other: Task) -> Task:
        """The task without the keyword arguments that the other task does not set."""
        common = {name: value for name, value in self.kwargs.items() if name in other.kwargs}
        return dataclasses.replace(self, kwargs=common)

    def contradicts(self, other: Task) -> bool:
        """Whether both tasks set a keyword argument to different values."""
        return any(
            without_lists(other.kwargs.get(name, value)) != without_lists(value)
            for name, value in self.kwargs.items()
        )

    def trusted(self) -> Task:
        """The task as if the user had named it: making it may import the module of "module:ID"."""
        return dataclasses.replace(self, from_file=False)

    def to_json(self) -> dict[str, Any]:
        """JSON form of the task."""
        return {"id": self.id, "kwargs": pack_tuples(self.kwargs)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Task:
        """Inverse of `to_json`; the task counts as named by a file.

        Raises:
            Exception: The data are not those of a task: KeyError, TypeError or ValueError.
        """
        return Task(data["id"], unpack_tuples(dict(data["kwargs"])), from_file=True)

    def __str__(self) -> str:
        return f"{self.id}{json.dumps(dict(self.kwargs))}" if self.kwargs else self.id

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Task):
            return NotImplemented
        return (self.id, without_lists(self.kwargs)) == (other.id, without_lists(other.kwargs))

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
        if not isinstance(self.name, str):
            raise InputError(f"The name of a suite is {self.name!r}: it must be text.")
        if not isinstance(self.tasks, Iterable):
            raise InputError(
                f"The tasks of the suite {self.name!r} are {self.tasks!r}: pass Tasks."
            )
        object.__setattr__(self, "tasks", tuple(self.tasks))
        for task in self.tasks:
            if not isinstance(task, Task):
                raise InputError(f"The suite {self.name!r} contains {task!r}: pass a Task.")
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


OBSERVATION_TRANSFORM = "observation_transform"
"""The keyword argument of a task that changes how its images are seen; see `transforms.py`."""


def transformed_suite(name: str, task_id: str, transforms: Iterable[str]) -> Suite:
    """A suite of one task, seen in several ways.

    Args:
        name: The suite's name.
        task_id: The task.
        transforms: Values of `observation_transform`; "" for the task as it is.
    """
    tasks = (Task(task_id, {OBSERVATION_TRANSFORM: one} if one else {}) for one in transforms)
    return Suite(name, tuple(tasks))
