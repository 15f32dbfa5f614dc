"""What is installed: task families, methods and zoos, found through entry points.

The core names none of them; another package adds its own under the same groups:
`rltransfer.envs` (an `EnvFamily`), `rltransfer.agents` (a `Method`) and `rltransfer.zoo` (a folder
of policies with their cards). Policies of other kinds are found by `policy.py`
(`rltransfer.policies`), experiments by `experiment.py` (`rltransfer.experiments`).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence

import gymnasium
import torch

from rltransfer.entry_points import describe_entry, entries, load_entry
from rltransfer.errors import InputError, unknown
from rltransfer.tasks.gymnasium_env import host_env_overlaps, make_host_env
from rltransfer.tasks.task import Suite, Task
from rltransfer.tasks.vector_env import EnvFamily, VectorEnv


@functools.cache
def families() -> tuple[EnvFamily, ...]:
    """Returns the installed families of tasks, by name."""
    found = []
    for entry in entries("rltransfer.envs"):
        try:
            family = load_entry(entry)
            if isinstance(family, type) or not isinstance(family, EnvFamily):
                raise InputError(
                    f"{describe_entry(entry)} is no EnvFamily: it must be an instance."
                )
            found.append(family)
        except InputError as error:
            # One package's mistake is not to take every command away.
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
    return tuple(found)


def register_environments() -> None:
    """Registers every family's ids with Gymnasium."""
    for family in families():
        family.register()


def suites() -> dict[str, Suite]:
    """Returns every named suite."""
    return {suite.name: suite for family in families() for suite in family.suites()}


def task_ids() -> list[str]:
    """Returns every task id there is: the families' and all others that Gymnasium knows.

    An id that a family accepts and does not name is an old one.
    """
    ids = [task_id for family in families() for task_id in family.task_ids()]
    others = [task_id for task_id in gymnasium.registry if _family(Task(task_id)) is None]
    return sorted({*ids, *others})


def find_suite(name: str) -> Suite:
    """Returns the suite of this name.

    Raises:
        InputError: There is none.
    """
    known = suites()
    if name not in known:
        if name in task_ids():
            raise InputError(f"{name!r} is a task and no suite: use --task {name}.")
        raise unknown("suite", name, known, "rltransfer list")
    return known[name]


SuiteLike = Suite | Task | str | Sequence[Task | str]
"""What stands for tasks: a suite, a task, the name of either, or several tasks or ids."""


def as_suite(suite: SuiteLike) -> Suite:
    """Returns the suite of what stands for tasks."""
    if isinstance(suite, Suite):
        return suite
    if isinstance(suite, str) and suite in suites():
        return find_suite(suite)
    if isinstance(suite, str | Task):
        return Suite.of(suite)
    if not isinstance(suite, Sequence):
        raise InputError(f"{suite!r} names no task: give a suite, a Task or an id, or several.")
    return Suite.of(*suite)


def make_vector_env(task: Task, num_envs: int, device: torch.device) -> VectorEnv:
    """Makes a task's vector environment: its family's, or any Gymnasium environment's.

    Raises:
        InputError: There is no such task, or it refuses its arguments.
    """
    if num_envs < 1:
        raise InputError(f"The number of environments is {num_envs}: it must be at least 1.")
    family = _family(task)
    if family is None and task.id not in gymnasium.registry and ":" not in task.id:
        if task.id in suites():
            raise InputError(f"{task.id!r} is a suite and no task: use --suite {task.id}.")
        known = task_ids()
        family = _family(task)  # some know their old ids only once they have named theirs
        if family is None:
            sentence = str(unknown("task", task.id, known, "rltransfer list tasks"))
            raise InputError(
                f"{sentence.rstrip('.')}; one of your own stands behind its module, "
                f"'my_module:{task.id}'."
            )
    if family is not None:
        return family.make(task, num_envs, device)
    return make_host_env(task, num_envs, device)


def overlaps(task: Task) -> bool:
    """Whether the task's environments step while the policy acts for others: see `VectorEnv`.

    A family says so by an attribute `overlaps`; without one its environments are taken not to.
    """
    family = _family(task)
    if family is not None:
        return bool(getattr(family, "overlaps", False))
    known = task.id in gymnasium.registry or ":" in task.id
    return known and host_env_overlaps(task)


def evaluation_task(task: Task) -> Task:
    """Returns the task as it is evaluated: whole episodes, rewards as they are."""
    family = _family(task)
    return task if family is None else family.evaluation_task(task)


def _family(task: Task) -> EnvFamily | None:
    """Returns the family that makes a task; None for any other Gymnasium environment."""
    return next((family for family in families() if family.accepts(task)), None)
