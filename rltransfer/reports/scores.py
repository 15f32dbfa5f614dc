"""Aggregates over tasks: final returns as scores, and the groups' performance profiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rltransfer.metrics import (
    Interval,
    aggregate_intervals,
    improvement_interval,
    profile_intervals,
)
from rltransfer.reports.comparison import final_numbers, random_return
from rltransfer.reports.grouping import Group, Names

THRESHOLDS = 51
"""Points of a performance profile."""

HIGHEST = 10.0
"""The largest score that a performance profile shows."""


@dataclass(frozen=True)
class GroupScores:
    """A group's scores and their aggregates."""

    seeds: tuple[int, ...]
    """The seeds that are finished on every task."""
    scores: tuple[tuple[float, ...], ...]
    """The score of each seed on each task.                      (seeds, tasks)"""
    aggregates: Mapping[str, Interval]
    """IQM, median, mean and optimality gap."""
    profile: tuple[Interval, ...]
    """The fraction of scores above each threshold.              (thresholds,)"""
    improvement: Interval | None
    """Probability of improvement over the baseline; None for itself, or without one."""


@dataclass(frozen=True)
class Scores:
    """The scores of all groups on the same tasks."""

    tasks: tuple[str, ...]
    """The tasks."""
    references: Mapping[str, tuple[float, float]]
    """For each task the returns that count as 0 and as 1."""
    thresholds: tuple[float, ...]
    """Scores at which the profiles are given.    (thresholds,)"""
    groups: Mapping[str, GroupScores]
    """The groups' scores; empty if there are none."""
    notes: tuple[str, ...]
    """Sentences about what counts as 1, and about what is left out."""


def compare_scores(groups: Sequence[Group], baseline: Group | None, names: Names) -> Scores:
    """The scores of final returns, 0 for a random policy and 1 for the baseline or the teacher.

    Args:
        groups: All groups.
        baseline: The baseline.
        names: What tasks are called.
    """
    notes: list[str] = []
    references: dict[str, tuple[float, float]] = {}
    for task in _tasks(groups, baseline, names):
        found = _reference(task, groups, baseline, names)
        if found is None:
            notes.append(f"{task} is left out: what counts as 0 and as 1 is not known.")
        else:
            references[task] = found
    one = "the baseline's mean final return" if baseline else "the teachers' mean return"
    notes.insert(0, f"A score of 0 is the random policy's return, 1 is {one}.")
    tables = {}
    for group in groups:
        seeds, table = _table(group, references, names)
        if table:
            tables[group.label] = seeds, table
            missing = [seed for seed in group.seeds if seed not in seeds]
            if missing:
                listed = ", ".join(map(str, missing))
                notes.append(
                    f"Of {group.label}, the seeds {listed} are left out: they are not finished on "
                    "every task."
                )
        else:
            notes.append(f"{group.label} is left out: no seed is finished on every task.")
    if not references or not tables:
        return Scores((), {}, (), {}, tuple(notes))
    top = max(max(map(max, table)) for _, table in tables.values())
    end = math.ceil(4 * min(max(top, 1.25), HIGHEST)) / 4
    thresholds = np.linspace(0, end, THRESHOLDS).tolist()
    base = tables.get(baseline.label) if baseline else None
    return Scores(
        tasks=tuple(references),
        references=references,
        thresholds=tuple(thresholds),
        groups={
            label: GroupScores(
                seeds=tuple(seeds),
                scores=tuple(map(tuple, table)),
                aggregates=aggregate_intervals(table),
                profile=tuple(profile_intervals(table, thresholds)),
                improvement=improvement_interval(table, base[1])
                if base and baseline and label != baseline.label
                else None,
            )
            for label, (seeds, table) in tables.items()
        },
        notes=tuple(notes),
    )


def _tasks(groups: Sequence[Group], baseline: Group | None, names: Names) -> list[str]:
    """The baseline's tasks; without one, those that all groups have."""
    having = [{task for run in group.runs for task in names.tasks(run)} for group in groups]
    if baseline is not None:
        having = [having[groups.index(baseline)]]
    return [task for task in names.all() if all(task in tasks for tasks in having)]


def _reference(
    task: str, groups: Sequence[Group], baseline: Group | None, names: Names
) -> tuple[float, float] | None:
    """The returns that count as 0 and 1; None if they are not known, or in the wrong order."""
    runs = {
        group.label: [run for run in group.runs if task in names.tasks(run)] for group in groups
    }
    zero = random_return(task, runs, names)
    if baseline is not None:
        ones = final_numbers(runs[baseline.label], task, names, "return_mean")
    else:
        every = [run for of in runs.values() for run in of]
        ones = final_numbers(every, task, names, "teacher_return_mean")
    if zero is None or not ones:
        return None
    one = float(np.mean(ones))
    return (zero, one) if one > zero else None


def _table(
    group: Group, references: Mapping[str, tuple[float, float]], names: Names
) -> tuple[list[int], list[list[float]]]:
    """The seeds that are finished on every task, and their scores."""
    by_seed: dict[int, dict[str, float]] = {}
    for task, (zero, one) in references.items():
        for run in group.runs:
            if task in names.tasks(run):
                for (final,) in final_numbers([run], task, names, "return_mean"):
                    by_seed.setdefault(run.seed, {})[task] = (final - zero) / (one - zero)
    seeds = [seed for seed in sorted(by_seed) if by_seed[seed].keys() == references.keys()]
    return seeds, [[by_seed[seed][task] for task in references] for seed in seeds]
