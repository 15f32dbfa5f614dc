"""Makes the vector environment of any task."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import gymnasium
import torch

from rltransfer.errors import InputError, unknown
from rltransfer.expression import shown
from rltransfer.tasks.families import family_of, suites, task_ids
from rltransfer.tasks.gymnasium_env import host_env_overlaps, make_host_env
from rltransfer.tasks.history import HistoryVectorEnv, split_history
from rltransfer.tasks.task import Task
from rltransfer.tasks.transforms import TransformedVectorEnv, split_transform
from rltransfer.tasks.vector_env import VectorEnv

PLACE = re.compile(r"[/\\:~]")
"""What the text of a path or of a module's attribute contains."""


def make_vector_env(task: Task, num_envs: int, device: torch.device) -> VectorEnv:
    """Makes a task's vector environment: its family's, or any Gymnasium environment.

    Raises:
        InputError: There is no such task, or its arguments are invalid.
    """
    if num_envs < 1:
        raise InputError(f"The number of environments is {num_envs}: it must be at least 1.")
    _check_arguments(task)
    seen, length = split_history(task)
    plain, transforms = split_transform(seen)
    env = _make_plain(plain, num_envs, device)
    try:
        if transforms:
            env = TransformedVectorEnv(env, transforms, task.id)
        return HistoryVectorEnv(env, length, task.id) if length else env
    except InputError:
        env.close()
        raise


def _make_plain(task: Task, num_envs: int, device: torch.device) -> VectorEnv:
    family = family_of(task)
    in_workers = family is None and task.kwargs.get("vectorization_mode") == "async"
    if task.env_timeout and not in_workers:
        raise InputError(
            f"The environments of {task.id!r} cannot be interrupted, as they are in the training's "
            "own process: leave out --env-timeout, or for a Gymnasium environment add "
            "--task-option vectorization_mode=async."
        )
    if family is None and task.id not in gymnasium.registry and ":" not in task.id:
        if task.id in suites():
            raise InputError(f"{task.id!r} is a suite, not a task: use --suite {task.id}.")
        known = task_ids()
        family = family_of(task)  # some know their old ids only once they have listed their ids
        if family is None:
            sentence = str(unknown("task", task.id, known, "rltransfer list tasks"))
            raise InputError(
                f"{sentence.rstrip('.')}; put the module before an id of your own: "
                f"{f'my_module:{task.id}'!r}."
            )
    if family is not None:
        return family.make(task, num_envs, device)
    return make_host_env(task, num_envs, device)


def _check_arguments(task: Task) -> None:
    """Checks the keyword arguments that a file gives to an environment.

    Some environments open the file, or import the module, that an argument names.

    Raises:
        InputError: One may name a file or a module.
    """
    for name, value in task.kwargs.items() if task.from_file else ():
        found = next(filter(PLACE.search, _texts(value)), None)
        if found is not None:
            raise InputError(
                f"The run's task {task.id!r} has the keyword argument {name!r} with the text "
                f"{shown(found)}, which may name a file or a module: if you trust it, pass --task "
                f"{task.id}."
            )


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value of JSON."""
    match value:
        case str():
            yield value
        case list() | tuple():
            for part in value:
                yield from _texts(part)
        case dict():
            for key, part in value.items():
                yield key
                yield from _texts(part)


def overlaps(task: Task) -> bool:
    """Whether the task's environments step while the policy acts for others: see `VectorEnv`.

    A family declares it with an attribute `overlaps`, which defaults to False.
    """
    family = family_of(task)
    if family is not None:
        return bool(getattr(family, "overlaps", False))
    known = task.id in gymnasium.registry or ":" in task.id
    return known and host_env_overlaps(task)
