"""Reports: what runs in some directories learned, as data and as a page.

    report = rltransfer.report("runs")
    report.write("report.html")

`rltransfer report` prints and writes the same data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rltransfer.errors import InputError, check_number, unknown
from rltransfer.reports.baseline import choose_baseline, task_baseline
from rltransfer.reports.comparison import CurveName, compare_task
from rltransfer.reports.data import GroupRow, ReportData, RunRow
from rltransfer.reports.fairness import differing_settings, warnings
from rltransfer.reports.grouping import Group, Lineage, Names, group_runs
from rltransfer.reports.matrix import transfer_matrices
from rltransfer.reports.reading import CURVES, find_runs, printable
from rltransfer.reports.scores import compare_scores
from rltransfer.reports.writing import write_report


@dataclass(frozen=True)
class Report(ReportData):
    """What the runs in some directories learned, and the page about it."""

    def write(self, path: str | Path) -> Path:
        """Writes the report as one page: HTML, or Markdown if the name ends with .md.

        An earlier report is replaced; any other file is kept.

        Returns:
            The file.

        Raises:
            InputError: The name has another ending, there is another file, it cannot be written, or
                the packages for HTML are not installed.
        """
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
    baselines = {
        task: task_baseline(task, groups, chosen, baseline is not None, names)
        for task in names.all()
    }
    tasks = tuple(
        compare_task(task, groups, one.group, names, curve, threshold, one.reason)
        for task, one in baselines.items()
    )
    compared = {task: one.group for task, one in baselines.items() if one.group is not None}
    return Report(
        folders=tuple(printable(str(folder)) for folder in folders),
        runs=tuple(_run_rows(groups, names)),
        unreadable=tuple(unreadable),
        groups=tuple(_group_row(group, names) for group in groups),
        baseline=None if chosen.group is None else chosen.group.label,
        baseline_reason=chosen.reason,
        warnings=tuple(warnings(groups, compared, names)),
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
                    path=run.name,
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
