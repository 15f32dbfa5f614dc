"""`rltransfer list`: what is installed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import tyro

from rltransfer.cli.experiment import experiment_names
from rltransfer.cli.parsing import parse
from rltransfer.learning import methods
from rltransfer.tasks import families
from rltransfer.tasks.task import Suite
from rltransfer.teachers.zoo import zoo_cards

KindName = Literal["all", "agents", "suites", "teachers", "experiments", "tasks"]


@dataclass(frozen=True)
class ListOptions:
    """List agents, suites, zoo teachers, experiments and tasks."""

    kind: tyro.conf.Positional[KindName] = "all"
    """What to list; "all" only counts the tasks."""


def run(words: list[str]) -> None:
    """Prints what is installed."""
    kind = parse(ListOptions, words, "rltransfer list").kind
    sections: dict[str, list[str]] = {
        "agents": methods.method_names(),
        "suites": [f"{s.name}: {_task_names(s)}" for s in families.suites().values()],
        "teachers": [
            f"zoo:{card.task.id}, return {card.data['return_mean']:.1f}" for card in zoo_cards()
        ],
        "experiments": experiment_names(),
        "tasks": families.task_ids(),
    }
    if kind != "all":
        print("\n".join(sections[kind]))
        return
    sections["tasks"] = [f"{len(sections['tasks'])}: `rltransfer list tasks` names them"]
    for name, rows in sections.items():
        print(name + "".join(f"\n  {row}" for row in rows))


def _task_names(suite: Suite) -> str:
    """A suite's ids, each once: tasks may differ in keyword arguments alone."""
    counts = Counter(task.id for task in suite)
    return ", ".join(f"{count} x {id_}" if count > 1 else id_ for id_, count in counts.items())
