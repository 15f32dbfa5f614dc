"""Transfer matrices: from which task, to which task, and with what result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rltransfer.metrics import Interval, mean_interval
from rltransfer.reports.comparison import Measures, TaskComparison, final_numbers
from rltransfer.reports.grouping import (
    SOURCES,
    Group,
    Lineage,
    Names,
    label_settings,
    source_tasks,
)
from rltransfer.reports.reading import RunRecord

SCRATCH = "none"
"""The source of runs that learned from scratch."""


@dataclass(frozen=True)
class Cell:
    """Runs with one source on one task."""

    final_return: Interval | None
    """Mean return of the final evaluation, over seeds; None if none is finished."""
    area_ratio: Interval | None
    """Area under the curves divided by the baseline's; None where it is not known."""
    cut_short: int
    """Number of runs that did not come to their end."""


@dataclass(frozen=True)
class Matrix:
    """The runs of one method, by source and task."""

    method: str
    """The method, with its settings where groups differ in more than the source."""
    sources: tuple[str, ...]
    """The tasks that sources were trained on, or their names if unknown; "none" from scratch."""
    tasks: tuple[str, ...]
    """The tasks that were learned."""
    cells: Mapping[str, Mapping[str, Cell]]
    """By source, then by task; what nobody ran is missing."""


def transfer_matrices(
    groups: Sequence[Group],
    tasks: Sequence[TaskComparison],
    names: Names,
    lineage: Lineage,
) -> list[Matrix]:
    """One matrix for all groups that differ in their source alone, if any of them has one.

    Args:
        groups: All groups.
        tasks: Their comparison on each task.
        names: What tasks are called.
        lineage: Which runs others learned from.
    """
    families: dict[tuple[tuple[str, str], ...], list[Group]] = {}
    for group in groups:
        rest = tuple((name, v) for name, v in sorted(group.settings.items()) if name not in SOURCES)
        families.setdefault(rest, []).append(group)
    labels = label_settings([dict(rest) for rest in families])
    return [
        _matrix(label, family, tasks, names, lineage)
        for label, family in zip(labels, families.values(), strict=True)
        if not all(group.is_from_scratch for group in family)
    ]


def _matrix(
    label: str,
    family: Sequence[Group],
    comparisons: Sequence[TaskComparison],
    names: Names,
    lineage: Lineage,
) -> Matrix:
    measured = {one.task: one.measures for one in comparisons}
    found: dict[str, dict[str, list[tuple[Group, RunRecord]]]] = {}
    for group in family:
        for run in group.runs:
            source = _source(run, names, lineage)
            for task in names.tasks(run):
                found.setdefault(source, {}).setdefault(task, []).append((group, run))
    order = names.all()
    sources = sorted(found, key=lambda one: (one != SCRATCH, _place(one, order), one))
    tasks = [task for task in order if any(task in row for row in found.values())]
    return Matrix(
        method=label,
        sources=tuple(sources),
        tasks=tuple(tasks),
        cells={
            source: {
                task: _cell(found[source][task], task, names, measured[task])
                for task in tasks
                if task in found[source]
            }
            for source in sources
        },
    )


def _place(source: str, order: Sequence[str]) -> int:
    return order.index(source) if source in order else len(order)


def _source(run: RunRecord, names: Names, lineage: Lineage) -> str:
    found = dict.fromkeys(source_tasks(one, run, names, lineage) for one in run.sources)
    return ", ".join(found) or SCRATCH


def _cell(
    members: Sequence[tuple[Group, RunRecord]],
    task: str,
    names: Names,
    measures: Mapping[str, Measures],
) -> Cell:
    runs = [run for _, run in members]
    finals = [row[0] for row in final_numbers(runs, task, names, "return_mean")]
    labels = {group.label for group, _ in members}
    # A group's area is of all its runs on the task: it is the cell's if they are in one cell.
    ratio = measures[labels.pop()].area_ratio if len(labels) == 1 else None
    return Cell(
        final_return=mean_interval(finals) if finals else None,
        area_ratio=ratio,
        cut_short=sum(not run.is_finished for run in runs),
    )
