"""Steps until a return is reached, with runs that never reach it.

A run that ends below the threshold is censored: its time is at least its steps. Left out, such runs
would make slow methods look fast. So times are summarised by the restricted mean and the median of
the Kaplan-Meier estimate, next to the number of censored runs.

Source: Taylor & Stone 2009, JMLR 10, section 2 (time to threshold); Kaplan & Meier 1958, JASA 53.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rltransfer.errors import InputError
from rltransfer.metrics.curves import Curve
from rltransfer.metrics.intervals import Interval, mean_interval, ratio_interval


@dataclass(frozen=True)
class Times:
    """The steps until each run of a group reached a threshold, or ended."""

    steps: tuple[float, ...]
    """Environment steps until the threshold, or until the run's end.    (runs,)"""
    reached: tuple[bool, ...]
    """Whether the run reached it; False for censored ones.              (runs,)"""

    def __post_init__(self) -> None:
        if not self.steps or len(self.steps) != len(self.reached):
            raise InputError(
                f"There are {len(self.steps)} times and {len(self.reached)} marks of whether the "
                "threshold was reached: give one of each per run, and at least one."
            )

    @property
    def censored(self) -> int:
        """Number of runs that ended below the threshold."""
        return len(self.reached) - sum(self.reached)

    @property
    def horizon(self) -> float:
        """The steps up to which the fraction of runs below the threshold is known.

        It is infinite if the longest time is one at which a run reached the threshold, as no run is
        left; else the longest time, at which a run ended below it.
        """
        longest = max(self.steps)
        ends = [ok for time, ok in zip(self.steps, self.reached, strict=True) if time == longest]
        return math.inf if all(ends) else longest

    def survival(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The Kaplan-Meier estimate: the fraction of runs below the threshold after each time.

        Formula: S(t) = product over times t_i <= t of (1 - d_i / n_i), where d_i runs reach the
        threshold at t_i, and n_i runs have neither reached it nor ended before.

        Returns:
            The times at which runs reached the threshold, and S after each of them.    (times,)
        """
        steps, reached = np.array(self.steps), np.array(self.reached)
        times = np.unique(steps[reached])
        at_risk = (steps[None] >= times[:, None]).sum(1)
        events = ((steps[None] == times[:, None]) & reached[None]).sum(1)
        return times, np.cumprod(1 - events / at_risk)

    def median(self) -> float | None:
        """The steps after which half of the runs have reached the threshold.

        It is the first time at which the Kaplan-Meier estimate is at most one half; None if it
        stays above, as too many runs are censored. Unit: environment steps.
        """
        times, below = self.survival()
        # A product of fractions may miss 1/2 by a rounding error.
        half = np.flatnonzero(below <= 0.5 + 1e-12)
        return float(times[half[0]]) if len(half) else None

    def restricted_mean(self, horizon: float | None = None) -> Interval:
        """The mean of the steps until the threshold, where longer times count as the horizon.

        Formula: the area under the Kaplan-Meier estimate from 0 to the horizon, which is the mean
        of min(steps, horizon) if no run is censored before the horizon. The interval is Student's
        over the jackknife's pseudo-values n A - (n - 1) A_without_i, which are then the runs'
        min(steps, horizon). If every run is censored, the horizon is a lower bound, without an
        interval. Unit: environment steps.

        Source: Andersen, Hansen & Klein 2004, Lifetime Data Analysis 10.

        Args:
            horizon: Environment steps, at most `self.horizon`: those of the shortest group where
                groups are compared. None for the longest time.

        Raises:
            InputError: The horizon is not above 0, or larger than `self.horizon`.
        """
        found = mean_interval(self.pseudo_values(horizon))
        return found if any(self.reached) else Interval.unknown(found.estimate, found.seeds)

    def pseudo_values(self, horizon: float | None = None) -> list[float]:
        """The jackknife's value of each run; see `restricted_mean`.    (runs,)

        Raises:
            InputError: See `restricted_mean`.
        """
        end = max(self.steps) if horizon is None else horizon
        if not (0 < end < math.inf and end <= self.horizon):
            raise InputError(
                f"The horizon is {end:.0f} steps: it must be above 0, finite, and at most the "
                f"{max(self.steps):.0f} steps of the longest run."
            )
        whole, count = self._area(end), len(self.steps)
        if count == 1:
            return [whole]
        return [count * whole - (count - 1) * self._without(run)._area(end) for run in range(count)]

    def _without(self, run: int) -> Times:
        return Times(
            self.steps[:run] + self.steps[run + 1 :], self.reached[:run] + self.reached[run + 1 :]
        )

    def _area(self, horizon: float) -> float:
        """The area under the Kaplan-Meier estimate, which stays constant after the last time."""
        times, below = self.survival()
        inside = times < horizon
        edges = np.concatenate([[0.0], times[inside], [horizon]])
        heights = np.concatenate([[1.0], below[inside]])
        return float(np.sum(np.diff(edges) * heights))


def times_to_threshold(curves: Sequence[Curve], threshold: float) -> Times:
    """The steps at which each curve first reaches a threshold, or ends.

    The time is that of the first point at or above the threshold, so it is known to the distance of
    the curve's points. A noisy curve reaches a threshold too early: smooth it first
    (`Curve.smoothed`). Unit: environment steps.

    Args:
        curves: The curves, one per seed.
        threshold: The return to reach. A fixed threshold is arbitrary: compare several.

    Raises:
        InputError: There is no curve, or one has no point.
    """
    if not all(len(curve.steps) for curve in curves):
        raise InputError("A curve has no point: leave out runs in which nothing was measured.")
    found = [curve.first_at_least(threshold) for curve in curves]
    steps = [
        float(curve.steps[-1]) if time is None else time
        for curve, time in zip(curves, found, strict=True)
    ]
    return Times(tuple(steps), tuple(time is not None for time in found))


def time_ratio(times: Times, baseline: Times, horizon: float | None = None) -> Interval:
    """The restricted mean of the steps to a threshold, relative to the baseline's.

    Formula: `restricted_mean` of a group divided by that of the baseline, to one horizon. Below 1
    the group is faster. If runs are censored, the ratio is pulled towards 1; if all runs of a group
    are, there is no interval. Without unit.

    Args:
        times: The group's times.
        baseline: The baseline's times.
        horizon: Environment steps; None for the smaller one of the groups' horizons, or the longest
            time if both are infinite.

    Raises:
        InputError: See `Times.restricted_mean`.
    """
    end = horizon
    if end is None:
        end = min(times.horizon, baseline.horizon, max(*times.steps, *baseline.steps))
    found = ratio_interval(times.pseudo_values(end), baseline.pseudo_values(end))
    known = any(times.reached) and any(baseline.reached)
    return found if known else Interval.unknown(found.estimate, found.seeds)
