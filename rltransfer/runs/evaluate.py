"""Evaluates a run's policy, or any teacher, on the run's tasks or on others."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rltransfer.errors import InputError, check_number
from rltransfer.files.checkpoint import newest_generation
from rltransfer.files.checkpoint_names import FINAL
from rltransfer.files.reading import is_folder
from rltransfer.machine.devices import find_device
from rltransfer.machine.terminal import print_line
from rltransfer.machine.threads import available, number_for, restored, use_threads
from rltransfer.options import flag, whole_number
from rltransfer.policies.policy import Policy
from rltransfer.policies.work import row_work
from rltransfer.rollouts.evaluation import (
    LONGEST,
    SILENT,
    Evaluation,
    Watcher,
    evaluate_policy,
    evaluate_teacher,
)
from rltransfer.runs.config import read_config
from rltransfer.runs.folder import load_run_policy
from rltransfer.tasks.families import SuiteLike, as_suite
from rltransfer.tasks.task import Suite, Task
from rltransfer.teachers.loading import load_teacher
from rltransfer.teachers.policy_teacher import PolicyTeacher
from rltransfer.teachers.teacher import Teacher
from rltransfer.teachers.zoo import ZOO


@restored()
def evaluate(
    source: str | Path | Teacher,
    suite: SuiteLike | None = None,
    episodes: int = 100,
    *,
    checkpoint: str | int = FINAL,
    vecnormalize: str | Path | None = None,
    rescale_actions: bool = False,
    seed: int = 0,
    device: str = "auto",
    deterministic: bool = True,
    num_envs: int = 64,
    max_steps: int = LONGEST,
    watcher: Watcher = SILENT,
) -> dict[str, Evaluation]:
    """Plays whole episodes of each task, with unclipped rewards; the results by task name.

    Args:
        source: A run directory, or any teacher: see `load_teacher`.
        suite: The tasks; None for the run's tasks, or the task of "zoo:ID".
        episodes: Episodes per task.
        checkpoint: Of a run: "final" for the newest checkpoint, "best" for the best policy by the
            evaluations during training, or the environment steps of a checkpoint.
        vecnormalize: Observation statistics of a Stable-Baselines3 zip: see `load_teacher`.
        rescale_actions: Whether continuous actions are scaled to the bounds of other tasks: see
            `load_teacher`.
        seed: Seed of the environments.
        device: "cpu", "cuda", ...; "auto" uses CUDA if available.
        deterministic: Whether to act greedily instead of sampling.
        num_envs: Maximum number of parallel environments, which with `seed` determines the
            episodes.
        max_steps: Steps after which an episode is cut.
        watcher: Follows the evaluation.

    Raises:
        InputError: There is no such policy, it does not fit a task, or the tasks are unknown.
    """
    episodes = whole_number("episodes", episodes, "at least 1")
    num_envs = whole_number("num_envs", num_envs, "at least 1")
    max_steps = whole_number("max_steps", max_steps, "at least 1")
    seed = whole_number("seed", seed, "at least 0")
    check_number("episodes", episodes, "at most 10,000,000")
    deterministic = flag("deterministic", deterministic)
    if isinstance(source, str | Path):
        source = os.path.expanduser(source)
    how: dict[str, Any] = {
        "seed": seed,
        "device": find_device(str(device)),
        "deterministic": deterministic,
        "num_envs": num_envs,
        "max_steps": max_steps,
        "watcher": watcher,
    }
    requested = None if suite is None else as_suite(suite)
    is_run = isinstance(source, str | Path) and is_folder(source)
    if isinstance(source, str | Path) and is_run:
        if vecnormalize is not None:
            raise InputError(
                f"--vecnormalize applies to Stable-Baselines3 zips, but {source} is a run: leave "
                "it out."
            )
        if not rescale_actions:
            return _evaluate_run(Path(source), checkpoint, requested, episodes, how)
    if checkpoint != FINAL and not is_run:
        raise InputError(f"--checkpoint applies to runs, but {source} is not a run: leave it out.")
    teacher = None
    if requested is None and source != ZOO:
        # Loaded first, so that an error of the source itself precedes that of the missing task.
        teacher = load_teacher(
            source, vecnormalize, checkpoint=checkpoint, rescale_actions=rescale_actions
        )
        requested = teacher.suite if isinstance(teacher, PolicyTeacher) else None
    if requested is None:
        raise InputError(f"The tasks of the teacher {source} are unknown: pass --task ID.")
    if teacher is None:
        teacher = load_teacher(
            source, vecnormalize, requested, checkpoint=checkpoint, rescale_actions=rescale_actions
        )
    for note in teacher.notes():
        print_line(note)
    if how["device"].type == "cpu":
        use_threads(number_for(teacher.row_work() * min(num_envs, episodes), available()))
    return evaluate_teacher(teacher, requested, episodes, **how)


def run_suite(source: Path) -> Suite:
    """The tasks of a run, or of a chain of runs."""
    return Suite.from_json(read_config(newest_generation(source))["suite"])


def sequence_tasks(source: Path) -> Suite:
    """The tasks of a sequence that have been learned, at least in part."""
    suite = Suite.from_json(read_config(source)["suite"])
    count = int(newest_generation(source).name.rpartition("-")[2])
    return Suite(suite.name, suite.tasks[:count])


def _evaluate_run(
    source: Path,
    checkpoint: str | int,
    requested: Suite | None,
    episodes: int,
    how: dict[str, Any],
) -> dict[str, Evaluation]:
    policy = load_run_policy(newest_generation(source), checkpoint).to(how["device"])
    if how["device"].type == "cpu":
        use_threads(number_for(row_work(policy) * min(how["num_envs"], episodes), available()))
    trained = run_suite(source)
    if requested is None and read_config(source).get("sequential"):
        learned = sequence_tasks(source)
        return {
            name: one
            for name, task in zip(learned.names(), learned, strict=True)
            for one in evaluate_policy(
                part_for(policy, task), Suite.of(task), episodes, **how
            ).values()
        }
    if requested is None:
        return evaluate_policy(policy, trained, episodes, **how)
    found: dict[str, Evaluation] = {}
    same_ids = [task.id for task in requested] == [task.id for task in trained]
    for order, (name, task) in enumerate(zip(requested.names(), requested, strict=True)):
        player, played, index = player_of(
            policy, trained, task, source, order if same_ids else None
        )
        alone = Suite.of(played)
        (found[name],) = evaluate_policy(player, alone, episodes, first=index, **how).values()
    return found


def players(policy: Policy, trained: Suite) -> Iterator[tuple[Policy, Suite]]:
    """A policy and its parts, each with the tasks that it was trained on; the newest first."""
    yield policy, trained
    for part, suite in reversed(policy.parts()):
        yield from players(part, suite)


def part_for(policy: Policy, task: Task) -> Policy:
    """The part of a policy that was trained on a task, or else the policy itself."""
    parts = (part for own in policy.parts() for part in players(*own))
    return next((part for part, suite in parts if task in suite.tasks), policy)


def player_of(
    policy: Policy, trained: Suite, requested: Task, source: Path, order: int | None = None
) -> tuple[Policy, Task, int]:
    """The policy that plays a task, the task as it plays it, and the task's index for the policy.

    Args:
        policy: The run's policy, of which a part may have been trained on the task.
        trained: The run's tasks.
        requested: The requested task.
        source: The user's name of the run.
        order: See `_trained_task`.

    Raises:
        InputError: See `_trained_task`.
    """
    player, tasks = _player(policy, trained, requested)
    return player, *_trained_task(tasks, requested, order, player, source)


def _player(policy: Policy, trained: Suite, requested: Task) -> tuple[Policy, Suite]:
    """The policy, or one of its parts, that was trained on a task, and that one's tasks.

    Args:
        policy: The run's policy.
        trained: The run's tasks.
        requested: The requested task; a part with exactly this task comes before one whose task
            has other keyword arguments besides.
    """
    everyone = list(players(policy, trained))
    exact = (one for one in everyone if requested in one[1].tasks)
    fitting = (
        (player, tasks)
        for player, tasks in everyone
        if any(task.id == requested.id and not task.contradicts(requested) for task in tasks)
    )
    return next(itertools.chain(exact, fitting), (policy, trained))


def _trained_task(
    trained: Suite, requested: Task, order: int | None, policy: Policy, source: Path
) -> tuple[Task, int]:
    """The run's task that a request means, and its index; the requested task and 0 if none.

    Args:
        trained: The run's tasks.
        requested: The requested task; its kwargs select one of several tasks with its id.
        order: Its index if the kwargs select none, where all of the run's tasks are requested.
        policy: The run's policy.
        source: The user's name of the run.

    Raises:
        InputError: The policy depends on the task, and the request does not mean exactly one.
    """
    named = [index for index, task in enumerate(trained) if task.id == requested.id]
    fitting = [index for index in named if not trained.tasks[index].contradicts(requested)]
    # A single task may be evaluated with other kwargs than those of training.
    indices = named if len(named) == 1 else fitting
    if not indices and order is not None:
        indices = [order]
    if len(indices) == 1:
        played = {**trained.tasks[indices[0]].kwargs, **requested.kwargs}
        return dataclasses.replace(requested, kwargs=played), indices[0]
    if policy.spec.asks_for_task:
        raise InputError(
            f"{source} has a separate policy for each of {', '.join(trained.names())}, and none "
            f"for {str(requested)!r}: pass one of these as --task, with its --task-option."
        )
    return requested, 0
