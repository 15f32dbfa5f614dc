"""A report as sections with tables: what its pages and the terminal show alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rltransfer.metrics import Interval
from rltransfer.reports.comparison import TaskComparison
from rltransfer.reports.data import ReportData

LONGEST_VALUE = 200
"""Characters of a setting's value."""

UNKNOWN = "-"
"""A cell whose value is not known."""

DEFINITIONS = (
    "Intervals are 95 % intervals over seeds: Student's t for means, Welch's for differences, "
    "Fieller's for ratios, the stratified bootstrap for scores. With one seed there is none.",
    "Final return: mean of the final evaluation. Of the teacher: final return in per cent of the "
    "teacher's; both count from the random policy's if one of the three is negative.",
    "Asymptote and jumpstart: mean return over the last and the first tenth of the compared steps; "
    "jumpstart and asymptotic gain are differences from the baseline (Taylor & Stone 2009).",
    "Area ratio: area under the curve divided by the baseline's, both above the return that counts "
    "as nothing. 1 is the baseline. A ratio has no interval if the baseline's may be 0.",
    "Steps to threshold: restricted mean. Runs that end below the threshold are censored, not left "
    "out: they count with all their steps, so that the true mean is higher. Times are known to the "
    "distance between the curve's points.",
    "Curves, areas and asymptotes are of finished runs; steps to threshold are of all runs.",
)
"""What the columns mean."""


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    head: tuple[str, ...]
    """The columns' names."""
    rows: tuple[tuple[str, ...], ...]
    """The cells."""
    numbers: bool = False
    """Whether cells contain intervals, which are not broken over lines."""


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    title: str
    """Its heading."""
    level: int = 2
    """The heading's level."""
    notes: tuple[str, ...] = ()
    """Sentences below the heading."""
    warns: bool = False
    """Whether the sentences are warnings."""
    figure: str = ""
    """Name of the figure of an HTML page, see `figures.py`; empty for none."""
    table: Table | None = None
    """The table."""
    only_text: bool = False
    """Whether only pages without figures have this section."""


def sections(report: ReportData) -> list[Section]:
    """The sections of a page, in their order."""
    found = [_groups(report), _warnings(report)]
    for index, task in enumerate(report.tasks):
        found += _task(task, index)
    found += _scores(report)
    found += _matrices(report)
    if report.differences:
        found.append(_differences(report))
    found += [_runs(report), Section("What the numbers mean", notes=DEFINITIONS)]
    return found


def transfer_table(task: TaskComparison) -> Table:
    """What each group learned on a task, and gained over the baseline."""
    head = [
        "group", "seeds", "final return", "of the teacher, %", "asymptote", "jumpstart",
        "asymptotic gain", "area ratio", "steps to threshold", "censored", "steps ratio",
    ]  # fmt: skip
    rows = []
    for group, one in task.measures.items():
        own = "baseline" if group == task.baseline else UNKNOWN
        seeds = str(len(one.seeds))
        if one.cut_short:
            seeds += f" + {len(one.cut_short)} cut short"
        gains = [
            format_interval(value) if value else own
            for value in (one.jumpstart, one.asymptotic_gain)
        ]
        rows.append(
            (
                group,
                seeds,
                format_interval(one.final_return),
                format_interval(one.retention),
                format_interval(one.asymptote),
                *gains,
                format_interval(one.area_ratio) if one.area_ratio else own,
                format_steps(one.steps_to_threshold),
                f"{one.censored} of {one.timed}" if one.timed else UNKNOWN,
                format_interval(one.steps_ratio) if one.steps_ratio else own,
            )
        )
    return Table(tuple(head), tuple(rows), numbers=True)


def format_interval(interval: Interval | None) -> str:
    """An interval with three significant digits, e.g. "72.4 (70.1 to 74.7)"."""
    if interval is None:
        return UNKNOWN
    sizes = [abs(interval.estimate)]
    if interval.is_known:
        sizes = [abs(end) for end in (interval.low, interval.estimate, interval.high)]
    return _format(interval, digits_of(max(sizes)))


def format_steps(interval: Interval | None) -> str:
    """An interval of environment steps, in whole steps."""
    return UNKNOWN if interval is None else _format(interval, 0)


def digits_of(size: float) -> int:
    """The digits after the decimal point with which a number has three significant ones."""
    if not size > 0 or not math.isfinite(size):
        return 2
    return min(max(2 - math.floor(math.log10(size)), 0), 4)


def _format(interval: Interval, digits: int) -> str:
    ends = (interval.estimate, interval.low, interval.high)
    # Adding 0 makes a zero of a rounded minus zero.
    estimate, low, high = (f"{round(one, digits) + 0.0:,.{digits}f}" for one in ends)
    if interval.is_known:
        return f"{estimate} ({low} to {high})"
    return f"{estimate}, no interval" + (" (one seed)" if interval.seeds == 1 else "")


def _groups(report: ReportData) -> Section:
    rows = tuple(
        (
            group.label + (" (baseline)" if group.label == report.baseline else ""),
            ", ".join(group.tasks),
            ", ".join(map(str, group.seeds)),
            str(group.runs),
            str(group.finished),
            str(group.runs - group.finished),
        )
        for group in report.groups
    )
    notes = ["Runs of one group differ in the seed, and in the task if they have a single one."]
    if report.baseline is not None:
        notes.append(f"Baseline: {report.baseline}. {report.baseline_reason}")
    else:
        notes.append(report.baseline_reason)
    head = ("group", "tasks", "seeds", "runs", "finished", "cut short")
    return Section("Groups", notes=tuple(notes), table=Table(head, rows))


def _warnings(report: ReportData) -> Section:
    found = (*report.warnings, *(f"Left out: {sentence}" for sentence in report.unreadable))
    return Section(
        "Before you compare",
        notes=found or ("Budgets, networks, seeds and evaluations are alike.",),
        warns=True,
    )


def _task(task: TaskComparison, index: int) -> list[Section]:
    shown = "Evaluation returns" if task.kind == "evaluation" else "Training returns"
    drawn = f"{shown}: means over seeds with 95 % bands, and each run."
    notes = (drawn if task.lines else "No run has a curve.", *task.notes)
    found = [Section(task.task, notes=notes, figure=f"curves-{index}")]
    if task.lines:
        found.append(Section(f"Curves of {task.task}", 3, table=_curves(task), only_text=True))
    table = transfer_table(task)
    found.append(Section(f"Transfer on {task.task}", 3, table=table))
    return found


def _curves(task: TaskComparison) -> Table:
    """At most eleven points of each curve."""
    rows = []
    for group, line in task.lines.items():
        count = len(line.steps)
        shown = sorted({round(part * (count - 1) / 10) for part in range(11)})
        for place in shown:
            returns = line.returns[place]
            rows.append(
                (group, f"{line.steps[place]:,.0f}", format_interval(returns), str(returns.seeds))
            )
    return Table(("group", "steps", "mean return", "runs"), tuple(rows))


def _scores(report: ReportData) -> list[Section]:
    scores = report.scores
    title = "Scores over all tasks"
    if not scores.groups:
        return [Section(title, notes=(*scores.notes, "There are no scores."))]
    head = ("group", "seeds", "IQM", "median", "mean", "optimality gap", "P(better than baseline)")
    rows = [
        (
            group,
            ", ".join(map(str, one.seeds)),
            *(format_interval(value) for value in one.aggregates.values()),
            format_interval(one.improvement)
            if one.improvement
            else ("baseline" if group == report.baseline else UNKNOWN),
        )
        for group, one in scores.groups.items()
    ]
    profile = [
        (group, *(f"{one.profile[place].estimate:.2f}" for place in _places(scores.thresholds)))
        for group, one in scores.groups.items()
    ]
    levels = [f"> {scores.thresholds[place]:.2f}" for place in _places(scores.thresholds)]
    return [
        Section(
            title,
            notes=(f"Tasks: {', '.join(scores.tasks)}.", *scores.notes),
            table=Table(head, tuple(rows), numbers=True),
        ),
        Section(
            "Performance profiles",
            3,
            notes=("The fraction of runs and tasks with a score above each level.",),
            figure="profiles",
            table=Table(("group", *levels), tuple(profile)),
        ),
    ]


def _places(thresholds: Sequence[float]) -> list[int]:
    """Every fifth threshold, for tables."""
    return list(range(0, len(thresholds), 5))


def _matrices(report: ReportData) -> list[Section]:
    found = []
    for matrix in report.matrices:
        rows = []
        for source in matrix.sources:
            cells = [source]
            for task in matrix.tasks:
                cell = matrix.cells[source].get(task)
                if cell is None:
                    cells.append("")
                    continue
                text = format_interval(cell.final_return)
                if cell.area_ratio is not None:
                    text += f"; area {format_interval(cell.area_ratio)}"
                if cell.cut_short:
                    text += f"; {cell.cut_short} cut short"
                cells.append(text)
            rows.append(tuple(cells))
        notes = (
            "Rows: what the source was trained on. Columns: what was learned. Cells: the final "
            "return, and the area ratio to the baseline.",
        )
        table = Table(("source", *matrix.tasks), tuple(rows), numbers=True)
        found.append(Section(f"Transfer matrix of {matrix.method}", notes=notes, table=table))
    return found


def _differences(report: ReportData) -> Section:
    labels = [group.label for group in report.groups]
    rows = tuple(
        (one.setting, *(_cut(one.values.get(label, UNKNOWN)) for label in labels))
        for one in report.differences
    )
    return Section("Settings that differ", table=Table(("setting", *labels), rows))


def _cut(value: str) -> str:
    return value if len(value) <= LONGEST_VALUE else f"{value[: LONGEST_VALUE - 3]}..."


def _runs(report: ReportData) -> Section:
    rows = tuple(
        (
            run.path,
            run.group,
            ", ".join(run.tasks),
            str(run.seed),
            run.status if run.counted else f"{run.status}; not counted: repeats a seed",
            f"{run.steps:,}",
            UNKNOWN if run.parameters is None else f"{run.parameters:,}",
        )
        for run in report.runs
    )
    head = ("run", "group", "tasks", "seed", "status", "steps", "parameters")
    return Section("Runs", table=Table(head, rows))
