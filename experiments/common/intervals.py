"""Means over seeds, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special

from rltransfer.runs.report import kept

SMALLEST = 1e-3
"""What a share counts as at least, so that a student that failed has a logarithm."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval (Student's t)."""

    mean: float
    low: float
    high: float
    seeds: int

    def percent(self) -> str:
        """Returns the interval in per cent."""
        return Interval(100 * self.mean, 100 * self.low, 100 * self.high, self.seeds).told(0)

    def told(self, digits: int) -> str:
        """Returns the interval with so many digits after the point."""
        mean, low, high = (f"{one:.{digits}f}" for one in (self.mean, self.low, self.high))
        return f"{mean} ({low} to {high})" if self.seeds > 1 else f"{mean} (one seed)"

    def against(self, bound: float, above: str, below: str) -> str:
        """Returns one of two words if the whole interval lies on one side, else why neither.

        Args:
            bound: What the interval is compared with.
            above: The word if all of it is above.
            below: The word if all of it is below.
        """
        if self.seeds < 2:
            return "undecided: one seed has no interval"
        if self.low > bound:
            return above
        return below if self.high < bound else f"undecided: the interval contains {bound:g}"


def mean_interval(values: Sequence[float]) -> Interval:
    """Returns the mean of the seeds' values with its interval; one seed has none."""
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Interval(mean, -math.inf, math.inf, count)
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    half = float(special.stdtrit(count - 1, 0.975)) * error
    return Interval(mean, mean - half, mean + half, count)


def geometric_mean_interval(ratios: Mapping[str, Sequence[float]]) -> Interval:
    """Returns the geometric mean over tasks, with its interval over seeds.

    The mean over tasks is taken within each seed, on logarithms; the interval is that of the seeds'
    means, so it says how far another set of seeds would lie off and not how far other tasks would.

    Args:
        ratios: For each task the seeds' ratios, in the same order.
    """
    logs = np.log(np.maximum(np.array(list(ratios.values()), dtype=float), SMALLEST))
    interval = mean_interval(logs.mean(0).tolist())
    low, mean, high = (math.exp(v) for v in (interval.low, interval.mean, interval.high))
    return Interval(mean, low, high, interval.seeds)


def share_row(ratios: Mapping[str, Sequence[float]]) -> dict[str, Interval]:
    """Returns the geometric mean over tasks as "all games", and each task's own mean.

    Args:
        ratios: For each task the seeds' ratios, in the same order.
    """
    each = {task: mean_interval(by_seed) for task, by_seed in ratios.items()}
    return {"all games": geometric_mean_interval(ratios), **each}


def kept_share(
    result: Mapping[str, Any],
    task: str | None = None,
    taught: Mapping[str, Any] | None = None,
) -> float:
    """Returns which share of its teacher's return a student keeps; see `report.kept`.

    Args:
        result: A run's result.
        task: Which of its tasks; its only one if None.
        taught: The result that holds the teacher's return, where `result` was learned without one:
            of the same tasks, seed and number of episodes.
    """
    name = task if task is not None else next(iter(result["tasks"]))
    teacher = (taught or result)["tasks"][name]["teacher_return_mean"]
    return kept({**result["tasks"][name], "teacher_return_mean": teacher})


def interval_json(interval: Interval) -> dict[str, float | None]:
    """Returns an interval as JSON, which has no infinity: one seed has nulls for its ends."""
    ends = {} if interval.seeds > 1 else {"low": None, "high": None}
    return {**asdict(interval), **ends}
