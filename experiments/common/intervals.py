"""Means over seeds with their 95 % confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special

from rltransfer.runs.report import return_ratio

MIN_RATIO = 1e-3
"""Lower bound of a ratio in a geometric mean, so that a failed student has a logarithm."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval (Student's t)."""

    mean: float
    low: float
    high: float
    seeds: int

    def format_percent(self) -> str:
        """The interval in per cent, e.g. "97 (94 to 101)"."""
        return Interval(100 * self.mean, 100 * self.low, 100 * self.high, self.seeds).format(0)

    def format(self, digits: int) -> str:
        """The interval with this many digits after the decimal point."""
        mean, low, high = (f"{one:.{digits}f}" for one in (self.mean, self.low, self.high))
        return f"{mean} ({low} to {high})" if self.seeds > 1 else f"{mean} (one seed)"

    def against(self, bound: float, above: str, below: str) -> str:
        """One of two words if the whole interval is on one side of a bound, else the reason.

        Args:
            bound: The number that the interval is compared with.
            above: The word for an interval above the bound.
            below: The word for an interval below the bound.
        """
        if self.seeds < 2:
            return "undecided: one seed has no interval"
        if self.low > bound:
            return above
        return below if self.high < bound else f"undecided: the interval contains {bound:g}"


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of one value per seed; with a single seed the interval is infinite."""
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Interval(mean, -math.inf, math.inf, count)
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    half = float(special.stdtrit(count - 1, 0.975)) * error
    return Interval(mean, mean - half, mean + half, count)


def geometric_mean_interval(ratios: Mapping[str, Sequence[float]]) -> Interval:
    """The geometric mean over tasks, with an interval over seeds.

    Logarithms are averaged over tasks within each seed, then over seeds. The interval covers the
    choice of seeds, not the choice of tasks.

    Args:
        ratios: For each task one ratio per seed, in the same order.
    """
    logs = np.log(np.maximum(np.array(list(ratios.values()), dtype=float), MIN_RATIO))
    interval = mean_interval(logs.mean(0).tolist())
    low, mean, high = (math.exp(v) for v in (interval.low, interval.mean, interval.high))
    return Interval(mean, low, high, interval.seeds)


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
    """An interval as JSON; the ends are null for a single seed, as JSON has no infinity."""
    ends = {} if interval.seeds > 1 else {"low": None, "high": None}
    return {**asdict(interval), **ends}


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
