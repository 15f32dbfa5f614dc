"""The zoo: trained teachers in installed packages."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rltransfer.aliases import with_current_names
from rltransfer.entry_points import entries, load_entry
from rltransfer.errors import InputError, unknown
from rltransfer.tasks.task import Suite, Task

if TYPE_CHECKING:
    from rltransfer.teachers.teacher import Teacher

ZOO = "zoo"
"""The source of the installed teacher of each task; "zoo:ID" is the teacher of one task."""


@dataclass(frozen=True)
class Card:
    """Metadata of one of the zoo's teachers."""

    task: Task
    stem: Path
    data: Mapping[str, Any]


@functools.cache
def zoo_folders() -> tuple[Path, ...]:
    """The folders in which installed packages keep trained teachers."""
    return tuple(Path(str(load_entry(entry))) for entry in entries("rltransfer.zoo"))


def zoo_cards() -> list[Card]:
    """The cards of every installed zoo."""
    cards = []
    for folder in zoo_folders():
        for path in sorted(folder.glob("*.card.json")):
            data = with_current_names(json.loads(path.read_text()))
            stem = path.with_name(path.name.removesuffix(".card.json"))
            cards.append(Card(Task.from_json(data["task"]).trusted(), stem, data))
    return cards


def zoo_teacher(suite: Suite | None) -> Teacher:
    """Loads the installed teachers of a suite's tasks."""
    # Loaded only where a teacher is: `rltransfer list` reads the cards and needs no torch.
    from rltransfer.teachers.per_task import PerTask

    if suite is None:
        raise InputError("The zoo has one teacher per task: pass the suite or the task.")
    teachers = {task.id: card_teacher(task.id) for task in suite}
    return next(iter(teachers.values())) if len(suite) == 1 else PerTask(teachers)


def card_teacher(task_id: str) -> Teacher:
    """Loads the installed teacher of a task."""
    from rltransfer.files.hashing import weights_sha256
    from rltransfer.policies.saving import load_policy
    from rltransfer.teachers.policy_teacher import PolicyTeacher

    cards = {card.task.id: card for card in zoo_cards()}
    if task_id not in cards:
        raise unknown("teacher in the zoo for the task", task_id, cards, "rltransfer list")
    card = cards[task_id]
    return PolicyTeacher(
        load_policy(card.stem), f"{ZOO}:{task_id}", weights_sha256(card.stem), Suite.of(card.task),
        kind=ZOO, recorded_return={task_id: card.data["return_mean"]},
    )  # fmt: skip
