"""Reports: what runs in some directories learned, as data and as a page.

    report = rltransfer.report("runs")
    report.write("report.html")

`rltransfer report` prints and writes the same data.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rltransfer.errors import InputError, check_number, unknown
from rltransfer.metrics import Interval
from rltransfer.reports.baseline import choose_baseline
from rltransfer.reports.comparison import CurveName, TaskComparison, compare_task
from rltransfer.reports.fairness import Difference, differing_settings, warnings
from rltransfer.reports.grouping import Group, Lineage, Names, group_runs
from rltransfer.reports.matrix import Matrix, transfer_matrices
from rltransfer.reports.reading import CURVES, find_runs
from rltransfer.reports.scores import Scores, compare_scores


@dataclass(frozen=True)
class RunRow:
    """A run in the list of runs."""

    path: str
    """Its folder."""
    group: str
    """Its group's label."""
    tasks: tuple[str, ...]
    """Its tasks."""
    seed: int
    """Its seed."""
    status: str
    """Whether it is finished, or where it was cut short."""
    finished: bool
    """Whether it came to its end."""
    counted: bool
    """Whether it counts: False for a repeated seed."""
    steps: int
    """Environment steps that were done."""
    parameters: int | None
    """Parameters of the learned policy; None if unknown."""


@dataclass(frozen=True)
class GroupRow:
    """A group in the list of groups."""

    label: str
    """Its label."""
    tasks: tuple[str, ...]
    """The tasks of its runs."""
    seeds: tuple[int, ...]
    """Its seeds."""
    runs: int
    """Number of runs that count."""
    finished: int
    """Number of those that are finished."""


@dataclass(frozen=True)
class Report:
    """What the runs in some directories learned."""

    folders: tuple[str, ...]
    """The directories."""
    runs: tuple[RunRow, ...]
    """All runs."""
    unreadable: tuple[str, ...]
    """A sentence for each run that cannot be read."""
    groups: tuple[GroupRow, ...]
    """The groups, the baseline first."""
    baseline: str | None
    """The baseline's label; None if nothing is compared."""
    baseline_reason: str
    """How the baseline was chosen."""
    warnings: tuple[str, ...]
    """What makes a comparison unfair or uncertain."""
    tasks: tuple[TaskComparison, ...]
    """The comparison on each task."""
    scores: Scores
    """The comparison over tasks."""
    matrices: tuple[Matrix, ...]
    """Results by source and task."""
    differences: tuple[Difference, ...]
    """Settings that differ between groups."""

    def to_json(self) -> dict[str, Any]:
        """All data as JSON: an interval is null, or has null ends, where it is not known."""
        found: dict[str, Any] = _as_json(self)
        return found

    def write(self, path: str | Path) -> Path:
        """Writes the report as one page: HTML, or Markdown if the name ends with .md.

        An earlier report is replaced; any other file is kept.

        Returns:
            The file.

        Raises:
            InputError: The name has another ending, there is another file, it cannot be written, or
                the packages for HTML are not installed.
        """
        from rltransfer.reports.writing import write_report

        return write_report(self, Path(path))


def report(
    *folders: str | Path,
    baseline: str | Path | None = None,
    curve: CurveName = "evaluation",
    threshold: float = 0.9,
) -> Report:
    """Compares the runs in some directories.

    Runs that differ in nothing but the seed are one group, see `grouping`.

    Args:
        folders: Run directories, or folders with runs at any depth.
        baseline: The group that others are compared with: its label or a part of it, or a folder
            with runs of it. None chooses one, see `choose_baseline`.
        curve: "evaluation": greedy evaluations during training; "training": the episodes of
            training.
        threshold: The threshold of the steps to threshold: a fraction of the way from the random
            policy's return to the baseline's asymptote.

    Raises:
        InputError: A folder contains no run, or an argument is invalid.
    """
    if not folders:
        raise InputError("No folder is given: pass run directories, or their parent.")
    check_number("threshold", threshold, "finite and above 0")
    if curve not in CURVES:
        raise unknown("curve", str(curve), CURVES)
    runs, unreadable = find_runs([Path(folder) for folder in folders])
    names, lineage = Names(runs), Lineage(runs)
    groups = group_runs(runs, names, lineage)
    chosen = choose_baseline(groups, None if baseline is None else str(baseline), names)
    groups.sort(key=lambda group: group is not chosen.group)
    tasks = tuple(
        compare_task(task, groups, chosen.group, names, curve, threshold) for task in names.all()
    )
    return Report(
        folders=tuple(map(str, folders)),
        runs=tuple(_run_rows(groups, names)),
        unreadable=tuple(unreadable),
        groups=tuple(_group_row(group, names) for group in groups),
        baseline=None if chosen.group is None else chosen.group.label,
        baseline_reason=chosen.reason,
        warnings=tuple(warnings(groups, chosen.group, names)),
        tasks=tasks,
        scores=compare_scores(groups, chosen.group, names),
        matrices=tuple(transfer_matrices(groups, tasks, names, lineage)),
        differences=tuple(differing_settings(groups)),
    )


def _run_rows(groups: Sequence[Group], names: Names) -> list[RunRow]:
    rows = []
    for group in groups:
        for run in (*group.runs, *group.repeated):
            parameters = run.result.get("student_parameters")
            rows.append(
                RunRow(
                    path=str(run.path),
                    group=group.label,
                    tasks=tuple(names.tasks(run)),
                    seed=run.seed,
                    status=run.status,
                    finished=run.is_finished,
                    counted=run in group.runs,
                    steps=run.steps,
                    parameters=parameters if isinstance(parameters, int) else None,
                )
            )
    return rows


def _group_row(group: Group, names: Names) -> GroupRow:
    own = {task for run in group.runs for task in names.tasks(run)}
    return GroupRow(
        label=group.label,
        tasks=tuple(task for task in names.all() if task in own),
        seeds=tuple(group.seeds),
        runs=len(group.runs),
        finished=group.num_finished,
    )


def _as_json(value: Any) -> Any:
    if isinstance(value, Interval):
        ends = (value.low, value.high) if value.is_known else (None, None)
        return {
            "estimate": _as_json(value.estimate), "low": ends[0], "high": ends[1],
            "seeds": value.seeds,
        }  # fmt: skip
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: _as_json(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _as_json(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return _as_json(value.tolist())
    if isinstance(value, tuple | list):
        return [_as_json(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
