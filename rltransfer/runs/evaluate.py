"""Evaluating what a user names: a run's policy on its own tasks or on others, or any teacher."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rltransfer.errors import InputError
from rltransfer.files.checkpoint import newest_generation
from rltransfer.machine.devices import find_device
from rltransfer.policies.policy import Policy
from rltransfer.rollouts.evaluation import (
    Evaluation,
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


def evaluate(
    source: str | Path | Teacher,
    suite: SuiteLike | None = None,
    episodes: int = 100,
    *,
    vecnormalize: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    deterministic: bool = True,
    num_envs: int = 64,
) -> dict[str, Evaluation]:
    """Plays whole episodes of each task, rewards as they are, and returns what came out by task.

    Args:
        source: A run directory, or any teacher: see `load_teacher`.
        suite: What is played; a run's own tasks, or that of "zoo:ID", if None.
        episodes: Episodes of each task.
        vecnormalize: Observation statistics of a Stable-Baselines3 zip.
        seed: Seeds the environments.
        device: "cpu", "cuda", ...; "auto" takes CUDA where it is there.
        deterministic: Whether the best action is taken, and none is drawn.
        num_envs: Environments at once, at most.

    Raises:
        InputError: There is no such policy, it does not fit a task, or nobody says what is played.
    """
    how: dict[str, Any] = {
        "seed": seed,
        "device": find_device(device),
        "deterministic": deterministic,
        "num_envs": num_envs,
    }
    asked = None if suite is None else as_suite(suite)
    if not isinstance(source, Teacher) and os.path.isdir(source):
        if vecnormalize is not None:
            raise InputError(
                f"Observation statistics go with a Stable-Baselines3 zip, and {source} is a run: "
                "leave --vecnormalize out."
            )
        return _evaluate_run(Path(source), asked, episodes, how)
    teacher = None
    if asked is None and source != ZOO:
        # What is wrong with the source itself is said first.
        teacher = load_teacher(source, vecnormalize)
        asked = teacher.suite if isinstance(teacher, PolicyTeacher) else None
    if asked is None:
        raise InputError(f"The teacher {source} does not say what it plays: add --task ID.")
    if teacher is None:
        teacher = load_teacher(source, vecnormalize, asked)
    return evaluate_teacher(teacher, asked, episodes, **how)


def run_suite(source: Path) -> Suite:
    """Returns the tasks of a run, or of a chain of runs."""
    return Suite.from_json(read_config(newest_generation(source))["suite"])


def _evaluate_run(
    source: Path, asked: Suite | None, episodes: int, how: dict[str, Any]
) -> dict[str, Evaluation]:
    """Returns the evaluations of a run's policy, by task."""
    run_dir = newest_generation(source)
    policy = load_run_policy(run_dir).to(how["device"])
    learned = run_suite(source)
    if asked is None:
        return evaluate_policy(policy, learned, episodes, **how)
    found: dict[str, Evaluation] = {}
    all_of_them = [task.id for task in asked] == [task.id for task in learned]
    for index, (name, task) in enumerate(zip(asked.names(), asked, strict=True)):
        order = index if all_of_them else None
        played, place = _one_of(learned, task, order, policy, source)
        (found[name],) = evaluate_policy(
            policy, Suite.of(played), episodes, first=place, **how
        ).values()
    return found


def _one_of(
    learned: Suite, asked: Task, order: int | None, policy: Policy, source: Path
) -> tuple[Task, int]:
    """Returns one of a run's tasks, as the run learned it, and its place; or another task.

    Args:
        learned: The run's tasks.
        asked: The task that is asked for; where several have its id, its arguments tell which is
            meant.
        order: Which one it is if no arguments tell, where all are asked for in their order.
        policy: The run's.
        source: What the user calls the run.

    Raises:
        InputError: The policy does as each task asks, and none of them, or no single one, is meant.
    """
    named = [place for place, own in enumerate(learned) if own.id == asked.id]
    meant = [place for place in named if not learned.tasks[place].contradicts(asked)]
    # Of one task alone the arguments may be others than it was learned with.
    places = named if len(named) == 1 else meant
    if not places and order is not None:
        places = [order]
    if len(places) == 1:
        return learned.tasks[places[0]].with_kwargs(**asked.kwargs), places[0]
    if policy.spec.asks_for_task:
        raise InputError(
            f"{source} has its own policy for each of {', '.join(learned.names())}, and none for "
            f"{str(asked)!r} alone: give one of those as --task, with its --task-option."
        )
    return asked, 0
