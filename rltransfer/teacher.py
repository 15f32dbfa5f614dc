"""Teachers by name: run directories, zips, the zoo, and compositions of them as text."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltransfer.callable_teacher import CallableTeacher
from rltransfer.checkpoint import newest_checkpoint, newest_generation
from rltransfer.errors import InputError, unknown
from rltransfer.file_teacher import is_zip, load_file_teacher
from rltransfer.per_task import PerTask
from rltransfer.policy import load_policy
from rltransfer.registry import SuiteLike, as_suite, zoo_folders
from rltransfer.task import Suite, Task
from rltransfer.teacher_base import (
    ModuleTeacher,
    PolicyTeacher,
    TaskSpaces,
    Teacher,
    ZipTeacher,
)
from rltransfer.teacher_text import is_composition, read_composition

__all__ = [
    "ZOO",
    "CallableTeacher",
    "Card",
    "ModuleTeacher",
    "PerTask",
    "PolicyTeacher",
    "TaskSpaces",
    "Teacher",
    "ZipTeacher",
    "load_teacher",
    "zoo_cards",
]

ZOO = "zoo"
"""The source that stands for the installed teacher of each task; "zoo:ID" is that of one task."""


@dataclass(frozen=True)
class Card:
    """What is known of a zoo's teacher."""

    task: Task
    stem: Path
    data: Mapping[str, Any]


def zoo_cards() -> list[Card]:
    """Returns the cards of every installed zoo."""
    cards = []
    for folder in zoo_folders():
        for path in sorted(folder.glob("*.card.json")):
            data = json.loads(path.read_text())
            stem = path.with_name(path.name.removesuffix(".card.json"))
            cards.append(Card(Task.from_json(data["task"]), stem, data))
    return cards


def load_teacher(
    source: str | Path | Teacher,
    vecnormalize: str | Path | None = None,
    suite: SuiteLike | None = None,
) -> Teacher:
    """Returns a teacher.

    Args:
        source: A run directory, or that of a chain of generations, of which the newest is taken; a
            file, here or on the Hugging Face hub as "hf:REPO/FILE": a Stable-Baselines3 zip, an
            rsl_rl checkpoint, a TorchScript file, see `torch_file.py`; "zoo": the installed teacher
            of each of the suite's tasks, "zoo:ID": that of one task; or a composition of such
            sources in quotes, "Ensemble('a.zip', 'runs/b')": see `teacher_text.py`. A teacher is
            returned as it is.
        vecnormalize: Observation statistics of a Stable-Baselines3 zip.
        suite: The tasks, or the name of a suite or task; needed for "zoo".

    Raises:
        InputError: The source is none of these, or is damaged.
    """
    if callable(source) and not isinstance(source, Teacher):
        raise InputError("The teacher is a function: write CallableTeacher(function).")
    text = str(source)
    if vecnormalize is not None and (isinstance(source, Teacher) or not is_zip(text)):
        raise InputError(
            f"Observation statistics go with a Stable-Baselines3 zip, but the teacher is {text}: "
            "in a composition write load_teacher('a.zip', vecnormalize='a.pkl') for one."
        )
    if isinstance(source, Teacher):
        return source
    if text == ZOO:
        return _zoo_teacher(None if suite is None else as_suite(suite))
    if text.startswith(f"{ZOO}:"):
        return _of_card(text.removeprefix(f"{ZOO}:"))
    if is_composition(text) and not os.path.exists(text):
        return read_composition(text, load_teacher, None if suite is None else as_suite(suite))
    if os.path.isdir(text):
        return _of_run(Path(source))
    return load_file_teacher(text, None if vecnormalize is None else str(vecnormalize))


def _of_run(run_dir: Path) -> Teacher:
    """Returns a run's newest policy, which knows its tasks by their place in the run's suite."""
    run_dir = newest_generation(run_dir)
    stem = newest_checkpoint(run_dir) / "policy"
    try:
        config = json.loads((run_dir / "config.json").read_text())
        suite = Suite.from_json(config["suite"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{run_dir} is no whole run: its config.json is missing or damaged."
        ) from error
    return PolicyTeacher(
        load_policy(stem), str(run_dir), _sha256(stem), suite,
        frame_stack=config.get("frame_stack"), recorded_return=_recorded_return(run_dir),
    )  # fmt: skip


def _recorded_return(run_dir: Path) -> dict[str, float]:
    """Returns the mean return of each task, where the run has come to its end."""
    try:
        tasks = json.loads((run_dir / "result.json").read_text())["tasks"]
        return {name: row["return_mean"] for name, row in tasks.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _zoo_teacher(suite: Suite | None) -> Teacher:
    """Returns the installed teachers of a suite's tasks."""
    if suite is None:
        raise InputError("The zoo has a teacher for each task: say which suite or task it is for.")
    teachers = {task.id: _of_card(task.id) for task in suite}
    return next(iter(teachers.values())) if len(suite) == 1 else PerTask(teachers)


def _of_card(task_id: str) -> Teacher:
    """Returns the installed teacher of a task."""
    cards = {card.task.id: card for card in zoo_cards()}
    if task_id not in cards:
        raise unknown("teacher in the zoo for the task", task_id, cards, "rltransfer list")
    card = cards[task_id]
    return PolicyTeacher(
        load_policy(card.stem), f"{ZOO}:{task_id}", _sha256(card.stem), Suite.of(card.task),
        kind=ZOO, recorded_return={task_id: card.data["return_mean"]},
    )  # fmt: skip


def _sha256(stem: Path) -> str:
    return hashlib.sha256(stem.with_suffix(".safetensors").read_bytes()).hexdigest()
