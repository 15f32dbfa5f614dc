"""What the groups learned on one task, and what they gained over the baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from rltransfer.errors import InputError
from rltransfer.metrics import (
    Curve,
    Interval,
    Times,
    area_ratio,
    asymptotic_gain,
    asymptotic_performance,
    jumpstart,
    mean_interval,
    retention,
    time_ratio,
    times_to_threshold,
)
from rltransfer.reports.grouping import Group, Names
from rltransfer.reports.reading import RunRecord

CurveName = Literal["evaluation", "training"]

WINDOW = 0.05
"""Training returns are averaged over this fraction of a run's steps."""

POINTS = 100
"""Largest number of points of a drawn curve."""


@dataclass(frozen=True)
class RunCurve:
    """The curve of one run."""

    seed: int
    """The run's seed."""
    finished: bool
    """Whether the run came to its end."""
    curve: Curve
    """Its returns."""


@dataclass(frozen=True)
class Line:
    """A group's curve: at each step the mean over the runs that got there."""

    steps: tuple[float, ...]
    """Environment steps.                              (points,)"""
    returns: tuple[Interval, ...]
    """The mean return at each step, over seeds.       (points,)"""


@dataclass(frozen=True)
class Measures:
    """What a group learned on a task; None where it is not known."""

    seeds: tuple[int, ...]
    """The seeds of finished runs."""
    cut_short: tuple[int, ...]
    """The seeds of runs that did not come to their end."""
    final_return: Interval | None = None
    """Mean return of the final evaluation."""
    retention: Interval | None = None
    """The same in per cent of the teacher's; from the random policy's return if one is negative."""
    asymptote: Interval | None = None
    """Mean return over the last tenth of the curves."""
    jumpstart: Interval | None = None
    """Mean return over the first tenth of the curves, minus the baseline's."""
    asymptotic_gain: Interval | None = None
    """Asymptote minus the baseline's."""
    area_ratio: Interval | None = None
    """Area under the curves divided by the baseline's, both above the floor."""
    steps_to_threshold: Interval | None = None
    """Restricted mean of the steps to the threshold."""
    median_steps: float | None = None
    """Kaplan-Meier median of the steps to the threshold."""
    censored: int = 0
    """Number of runs that ended below the threshold."""
    timed: int = 0
    """Number of runs that have steps to the threshold, the censored ones among them."""
    steps_ratio: Interval | None = None
    """Restricted mean divided by the baseline's."""


@dataclass(frozen=True)
class TaskComparison:
    """All groups on one task."""

    task: str
    """The task."""
    baseline: str | None
    """The baseline's label; None without one."""
    kind: CurveName
    """Which returns the curves show."""
    floor: float | None
    """The return that counts as nothing."""
    threshold: float | None
    """The return to reach; None if there is none."""
    horizon: float | None
    """Environment steps that longer times to the threshold count as."""
    notes: tuple[str, ...]
    """Sentences about the choice of curves, floor and threshold."""
    runs: Mapping[str, tuple[RunCurve, ...]]
    """The curves of every run, by group."""
    lines: Mapping[str, Line]
    """The mean curves, by group."""
    measures: Mapping[str, Measures]
    """The measures, by group."""


def compare_task(
    task: str,
    groups: Sequence[Group],
    baseline: Group | None,
    names: Names,
    kind: CurveName = "evaluation",
    threshold: float = 0.9,
    reason: str = "",
) -> TaskComparison:
    """Compares groups on one task.

    Args:
        task: The task's name in the report.
        groups: All groups; those without a run of the task are left out.
        baseline: The baseline; nothing is compared with it if it has no run of the task.
        names: What tasks are called.
        kind: The wanted curves; the others are used if a group has no curve of this kind.
        threshold: The threshold as a fraction of the way from the floor to the baseline's
            asymptote.
        reason: A sentence about the baseline, if there is something to say.
    """
    runs = {
        group.label: [run for run in group.runs if task in names.tasks(run)] for group in groups
    }
    runs = {label: of for label, of in runs.items() if of}
    label = baseline.label if baseline is not None and baseline.label in runs else None
    notes = [reason] if reason else []
    kind = _kind(task, runs, names, kind, notes)
    curves = {
        group: tuple(_run_curve(run, task, names, kind) for run in of) for group, of in runs.items()
    }
    whole = {
        group: [one.curve for one in of if one.finished and len(one.curve.steps)]
        for group, of in curves.items()
    }
    floor = _floor(task, runs, names, kind, whole.get(label or "", []), notes)
    goal = _threshold(whole.get(label or "", []), floor, threshold, notes)
    times = _times(runs, curves, goal)
    horizon = _horizon(whole, times)
    measures = {
        group: _measures(of, task, names, whole[group], times.get(group), horizon)
        for group, of in runs.items()
    }
    if label is not None:
        for group in runs:
            if group != label:
                gained = _gains(whole[group], whole[label], floor, times, group, label, horizon)
                measures[group] = replace(measures[group], **gained)
    lines = {group: line for group, of in curves.items() if (line := mean_line(of)) is not None}
    return TaskComparison(
        task, label, kind, floor, goal, horizon, tuple(notes), curves, lines, measures
    )


def mean_line(runs: Sequence[RunCurve]) -> Line | None:
    """The mean of some runs' curves; None if none has a point.

    A run counts at the steps between its first and its last point.
    """
    curves = [run.curve for run in runs if len(run.curve.steps)]
    if not curves:
        return None
    steps = np.unique(np.concatenate([curve.steps for curve in curves]))
    if len(steps) > POINTS:
        steps = np.linspace(steps[0], steps[-1], POINTS)
    returns, known = [], []
    for step in steps:
        there = [curve for curve in curves if curve.steps[0] <= step <= curve.steps[-1]]
        if there:
            known.append(float(step))
            returns.append(mean_interval([float(one.at(step[None])[0]) for one in there]))
    return Line(tuple(known), tuple(returns))


def _kind(
    task: str,
    runs: Mapping[str, Sequence[RunRecord]],
    names: Names,
    wanted: CurveName,
    notes: list[str],
) -> CurveName:
    """The wanted kind of curves, if every group has one with two points; else the other kind."""

    def points(kind: CurveName) -> bool:
        return all(
            any(len(_points(run, task, names, kind).steps) > 1 for run in of)
            for of in runs.values()
        )

    other: CurveName = "training" if wanted == "evaluation" else "evaluation"
    if points(wanted) or not points(other):
        found = wanted
    else:
        found = other
        notes.append(
            f"Some group has no {wanted} curve with two points: the curves are of {other}."
        )
    if found == "training":
        notes.append(
            "Training returns are of whoever acted, a teacher perhaps, and of rewards as training "
            f"sees them, averaged over {100 * WINDOW:.0f} % of a run's steps."
        )
    return found


def _points(run: RunRecord, task: str, names: Names, kind: CurveName) -> Curve:
    empty = Curve(np.zeros(0), np.zeros(0))
    return run.curves[kind].get(names.tasks(run)[task], empty)


def _run_curve(run: RunRecord, task: str, names: Names, kind: CurveName) -> RunCurve:
    curve = _points(run, task, names, kind)
    if kind == "training" and len(curve.steps):
        curve = curve.smoothed(WINDOW * run.total_steps)
    return RunCurve(run.seed, run.is_finished, curve)


def final_numbers(
    runs: Sequence[RunRecord], task: str, names: Names, *wanted: str
) -> list[list[float]]:
    """Numbers of the final evaluation, one list per run that has all of them."""
    rows = [run.returns.get(names.tasks(run)[task], {}) for run in runs if run.is_finished]
    return [[row[name] for name in wanted] for row in rows if all(name in row for name in wanted)]


def random_return(task: str, runs: Mapping[str, Sequence[RunRecord]], names: Names) -> float | None:
    """The mean return of the random policy in all runs' final evaluations."""
    found = [
        row[0]
        for of in runs.values()
        for row in final_numbers(of, task, names, "random_return_mean")
    ]
    return float(np.mean(found)) if found else None


def _floor(
    task: str,
    runs: Mapping[str, Sequence[RunRecord]],
    names: Names,
    kind: CurveName,
    baseline: Sequence[Curve],
    notes: list[str],
) -> float | None:
    """The return that counts as nothing: a random policy's, or where the baseline begins."""
    random = random_return(task, runs, names)
    # Training sees other rewards than the final evaluation, clipped ones for example.
    if kind == "evaluation" and random is not None:
        notes.append(f"Returns count from the random policy's {random:.4g}.")
        return random
    if not baseline:
        return None
    begins = float(np.mean([curve.returns[0] for curve in baseline]))
    notes.append(f"Returns count from {begins:.4g}, with which the baseline begins.")
    return begins


def _threshold(
    baseline: Sequence[Curve], floor: float | None, fraction: float, notes: list[str]
) -> float | None:
    if not baseline or floor is None:
        notes.append("There is no threshold: no finished run of a baseline has this task.")
        return None
    end = asymptotic_performance(baseline).estimate
    if not end > floor:
        notes.append(
            f"There is no threshold: the baseline ends at {end:.4g}, not above {floor:.4g}."
        )
        return None
    goal = floor + fraction * (end - floor)
    notes.append(
        f"The threshold is {goal:.4g}: {100 * fraction:g} % of the way from {floor:.4g} to the "
        f"baseline's asymptote of {end:.4g}."
    )
    return goal


def _times(
    runs: Mapping[str, Sequence[RunRecord]],
    curves: Mapping[str, Sequence[RunCurve]],
    goal: float | None,
) -> dict[str, Times]:
    """The steps of each group's runs to the threshold; all runs count, those cut short as well."""
    if goal is None:
        return {}
    found = {}
    for group, of in runs.items():
        known = [one.curve for one in curves[group] if len(one.curve.steps)]
        # A run in which nothing was measured has at least not been seen above the threshold.
        unseen = [
            run.steps
            for run, one in zip(of, curves[group], strict=True)
            if run.steps and not len(one.curve.steps)
        ]
        if known or unseen:
            times = times_to_threshold(known, goal) if known else None
            steps, reached = (times.steps, times.reached) if times else ((), ())
            found[group] = Times(
                (*steps, *map(float, unseen)), (*reached, *(False for _ in unseen))
            )
    return found


def _horizon(whole: Mapping[str, Sequence[Curve]], times: Mapping[str, Times]) -> float | None:
    """The steps up to which all groups with finished runs were followed."""
    if not times:
        return None
    lengths = [max(float(curve.steps[-1]) for curve in of) for of in whole.values() if of]
    return min(lengths, default=None)


def _measures(
    runs: Sequence[RunRecord],
    task: str,
    names: Names,
    curves: Sequence[Curve],
    times: Times | None,
    horizon: float | None,
) -> Measures:
    finals = final_numbers(runs, task, names, "return_mean")
    kept = final_numbers(
        runs, task, names, "return_mean", "teacher_return_mean", "random_return_mean"
    )
    return Measures(
        seeds=tuple(run.seed for run in runs if run.is_finished),
        cut_short=tuple(run.seed for run in runs if not run.is_finished),
        final_return=_known(lambda: mean_interval([row[0] for row in finals])),
        retention=_known(lambda: _retention(kept)) if kept else None,
        asymptote=_known(lambda: asymptotic_performance(curves)),
        steps_to_threshold=_known(lambda: times.restricted_mean(horizon)) if times else None,
        median_steps=times.median() if times else None,
        censored=times.censored if times else 0,
        timed=len(times.steps) if times else 0,
    )


def _retention(rows: Sequence[Sequence[float]]) -> Interval:
    students, teachers, random = (list(column) for column in zip(*rows, strict=True))
    negative = min(*students, *teachers, *random) < 0
    return retention(students, teachers, random if negative else None)


def _gains(
    curves: Sequence[Curve],
    baseline: Sequence[Curve],
    floor: float | None,
    times: Mapping[str, Times],
    group: str,
    label: str,
    horizon: float | None,
) -> dict[str, Any]:
    timed = group in times and label in times
    return {
        "jumpstart": _known(lambda: jumpstart(curves, baseline)),
        "asymptotic_gain": _known(lambda: asymptotic_gain(curves, baseline)),
        "area_ratio": _known(lambda: area_ratio(curves, baseline, floor or 0.0)),
        "steps_ratio": _known(lambda: time_ratio(times[group], times[label], horizon))
        if timed
        else None,
    }


def _known(measure: Callable[[], Interval]) -> Interval | None:
    """A measure, or None where the runs do not allow it."""
    try:
        return measure()
    except InputError:
        return None
