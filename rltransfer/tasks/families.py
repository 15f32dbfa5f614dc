"""What is installed: task families, found through the entry points of `rltransfer.envs`.

The core names no environment. Importing this module is cheap: it loads neither torch nor an
environment, so that `import rltransfer` can register every id with Gymnasium.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import gymnasium

from rltransfer.entry_points import describe_entry, entries, load_entry
from rltransfer.errors import InputError, unknown
from rltransfer.tasks.task import Suite, Task

if TYPE_CHECKING:
    import torch

    from rltransfer.tasks.vector_env import VectorEnv


@runtime_checkable
class EnvFamily(Protocol):
    """A family of tasks, found through the entry points of the group `rltransfer.envs`."""

    name: str

    def register(self) -> None:
        """Registers the family's ids with Gymnasium by strings; nothing heavy is loaded."""

    def suites(self) -> tuple[Suite, ...]:
        """The family's named suites."""

    def task_ids(self) -> tuple[str, ...]:
        """Every id of the family, for lists and for "did you mean"."""

    def accepts(self, task: Task) -> bool:
        """Whether this family makes this task."""

    def make(self, task: Task, num_envs: int, device: torch.device) -> VectorEnv:
        """Makes the task's vector environment.

        Raises:
            InputError: The family does not know the task's id or one of its keyword arguments.
        """

    def evaluation_task(self, task: Task) -> Task:
        """The task as it is evaluated: whole episodes, unclipped rewards."""


@functools.cache
def families() -> tuple[EnvFamily, ...]:
    """The installed families of tasks, by name."""
    found = []
    for entry in entries("rltransfer.envs"):
        try:
            family = load_entry(entry)
            if isinstance(family, type) or not isinstance(family, EnvFamily):
                raise InputError(
                    f"{describe_entry(entry)} is not an EnvFamily: it must be an instance."
                )
            found.append(family)
        except InputError as error:
            # A broken package must not break every command.
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
    return tuple(found)


def register_environments() -> None:
    """Registers every family's ids with Gymnasium."""
    for family in families():
        family.register()


def suites() -> dict[str, Suite]:
    """Every named suite."""
    return {suite.name: suite for family in families() for suite in family.suites()}


def task_ids() -> list[str]:
    """Every task id: the families' ids and all others in Gymnasium's registry.

    An id that a family accepts but does not list is an old one, and left out.
    """
    ids = [task_id for family in families() for task_id in family.task_ids()]
    others = [task_id for task_id in gymnasium.registry if family_of(Task(task_id)) is None]
    return sorted({*ids, *others})


def find_suite(name: str) -> Suite:
    """The suite of this name.

    Raises:
        InputError: There is none.
    """
    known = suites()
    if name not in known:
        if name in task_ids():
            raise InputError(f"{name!r} is a task, not a suite: use --task {name}.")
        raise unknown("suite", name, known, "rltransfer list")
    return known[name]


SuiteLike = Suite | Task | str | Sequence[Task | str]
"""Tasks as users pass them: a suite, a task, the name of either, or several tasks or ids."""


def as_suite(suite: SuiteLike) -> Suite:
    """The suite of tasks in any of these forms."""
    if isinstance(suite, Suite):
        return suite
    if isinstance(suite, str) and suite in suites():
        return find_suite(suite)
    if isinstance(suite, str | Task):
        return Suite.of(suite)
    if not isinstance(suite, Sequence):
        raise InputError(f"{suite!r} is not a task: pass a suite, a Task or an id, or several.")
    return Suite.of(*suite)


def evaluation_task(task: Task) -> Task:
    """The task as it is evaluated: whole episodes, unclipped rewards."""
    family = family_of(task)
    return task if family is None else family.evaluation_task(task)


def family_of(task: Task) -> EnvFamily | None:
    """The family that makes a task; None for any other Gymnasium environment."""
    return next((family for family in families() if family.accepts(task)), None)
