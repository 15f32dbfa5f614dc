"""Intervals on pages: rows of tables, and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rltransfer.metrics.intervals import Interval, geometric_mean_interval, mean_interval
from rltransfer.runs.report import return_ratio


def ratio_row(ratios: Mapping[str, Sequence[float]]) -> dict[str, Interval]:
    """The geometric mean over tasks as "all games", then the mean of each task.

    Args:
        ratios: For each task one ratio per seed, in the same order.
    """
    each = {task: mean_interval(by_seed) for task, by_seed in ratios.items()}
    return {"all games": geometric_mean_interval(ratios), **each}


def run_return_ratio(
    result: Mapping[str, Any],
    task: str | None = None,
    teacher_result: Mapping[str, Any] | None = None,
) -> float:
    """A student's return relative to its teacher's; see `report.return_ratio`.

    Args:
        result: A run's result.
        task: One of its tasks; its only one if None.
        teacher_result: The result that contains the teacher's return, if `result` is of a run
            without a teacher; it must have the same tasks, seed and number of episodes.
    """
    name = task if task is not None else next(iter(result["tasks"]))
    teacher = (teacher_result or result)["tasks"][name]["teacher_return_mean"]
    return return_ratio({**result["tasks"][name], "teacher_return_mean": teacher})


def interval_json(interval: Interval) -> dict[str, float | None]:
    """An interval as JSON; the ends are null without an interval, as JSON has no infinity."""
    low, high = (interval.low, interval.high) if interval.is_known else (None, None)
    return {"mean": interval.estimate, "low": low, "high": high, "seeds": interval.seeds}


def percent_rows(table: Mapping[str, Mapping[str, Interval]]) -> list[list[str]]:
    """Rows of intervals as cells, in per cent, each after its name."""
    return [[name, *(one.format_percent() for one in row.values())] for name, row in table.items()]


def mean_percent(ratios: Sequence[float]) -> str:
    """The mean of the seeds' ratios, in per cent."""
    return f"{100 * np.mean(ratios):.0f}"


def table_json(table: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, Any]]:
    """Rows of intervals as JSON."""
    return {
        row: {column: interval_json(interval) for column, interval in cells.items()}
        for row, cells in table.items()
    }
