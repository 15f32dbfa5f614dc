"""The tasks that a command is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from rltransfer.errors import InputError, check_range
from rltransfer.files.named_values import named_values
from rltransfer.tasks import families
from rltransfer.tasks.history import OPTION as OBSERVATION_HISTORY
from rltransfer.tasks.task import OBSERVATION_TRANSFORM, Suite


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Tasks: a suite, or one or more ids."""

    suite: str | None = None
    """A suite of tasks for one policy; `rltransfer list` names them."""
    task: tuple[str, ...] = ()
    """One or more tasks for one policy: any Gymnasium ids."""
    task_option: tuple[str, ...] = ()
    """Keyword arguments of each task, e.g. `sticky_action_prob=0.0 difficulty_ramping=False`."""
    transform: str = ""
    """How images are transformed before the policy sees them, e.g. noise or
    flip_horizontal+invert: sets the task option `observation_transform`."""
    history: int = 0
    """Shows the last observations of a vector, this many, as the group `history`, which a student
    reads with --groups history: sets the task option `observation_history`."""
    env_timeout: float = 0.0
    """Seconds that a step of an environment may take, with `--task-option
    vectorization_mode=async`; 0 for any time."""


def requested_suite(where: TaskOptions) -> Suite:
    """The suite of the options.

    Raises:
        InputError: Neither or both are given, or there is no suite of that name.
    """
    if (where.suite is None) == (not where.task):
        raise InputError("Pass either --task ID or --suite NAME to choose the tasks.")
    suite = families.find_suite(where.suite) if where.suite is not None else Suite.of(*where.task)
    return with_timeout(with_options(suite, option_words(where)), where)


def option_words(where: TaskOptions) -> tuple[str, ...]:
    """The task options, with those of `--transform` and `--history`."""
    history = (f"{OBSERVATION_HISTORY}={where.history}",) if where.history else ()
    return (*where.task_option, *transform_words(where.transform), *history)


def transform_words(transform: str) -> tuple[str, ...]:
    """The task options that `--transform` sets."""
    return (f"{OBSERVATION_TRANSFORM}={transform}",) if transform else ()


def with_timeout(suite: Suite, where: TaskOptions) -> Suite:
    """A suite whose environments may take as long as the options say.

    Raises:
        InputError: It is not a number of seconds.
    """
    check_range(where, "finite and at least 0", "env_timeout")
    timed = (dataclasses.replace(task, env_timeout=where.env_timeout) for task in suite)
    return Suite(suite.name, tuple(timed)) if where.env_timeout else suite


def with_options(suite: Suite, words: Sequence[str]) -> Suite:
    """A suite with keyword arguments added to each task.

    Args:
        suite: The tasks.
        words: NAME=VALUE; the value is JSON or plain text.

    Raises:
        InputError: A word is not of this form, a name occurs twice, or tasks become the same.
    """
    if not words:
        return suite
    kwargs = named_values(words, "task option")
    tasks = tuple(task.with_kwargs(**kwargs) for task in suite)
    if len(set(tasks)) < len(set(suite)):
        raise InputError(
            f"With {', '.join(words)}, tasks of the suite {suite.name!r} are the same: its tasks "
            "set that themselves. Leave it out, or pass one --task."
        )
    return Suite(suite.name, tasks)
