"""Learning curves: returns over environment steps, one curve per run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rltransfer.errors import InputError


@dataclass(frozen=True)
class Curve:
    """Returns over environment steps."""

    steps: NDArray[np.float64]
    """Environment steps, in increasing order.    (points,)"""
    returns: NDArray[np.float64]
    """The return at each of them.                (points,)"""

    def smoothed(self, window: float) -> Curve:
        """The moving average over the last `window` steps, from the first full window on.

        Args:
            window: Environment steps.
        """
        total = np.concatenate([[0.0], np.cumsum(self.returns)])
        last = np.arange(1, len(self.steps) + 1)
        first = np.searchsorted(self.steps, self.steps - window, side="right")
        means = (total[last] - total[first]) / (last - first)
        whole = self.steps >= window
        return Curve(self.steps[whole], means[whole])

    def in_parts(self, steps: float, count: int) -> NDArray[np.float64]:
        """The mean of the points in each of `count` equal parts of a run.    (count,)

        Parts without a point are interpolated linearly between their neighbours. Before the first
        point and after the last one the curve is constant.

        Args:
            steps: Environment steps of the run.
            count: Number of parts.
        """
        # A point covers the steps before it; a run's last rollout may exceed its steps.
        part = np.minimum(np.ceil(self.steps * count / steps).astype(int), count) - 1
        points = np.bincount(part, minlength=count)
        total = np.bincount(part, weights=self.returns, minlength=count)
        known = np.flatnonzero(points)
        return np.interp(np.arange(count), known, total[known] / points[known])

    def first_at_least(self, level: float) -> float | None:
        """The steps at which the return first reaches a level; None if it never does."""
        reached = np.flatnonzero(self.returns >= level)
        return float(self.steps[reached[0]]) if len(reached) else None

    def at(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """The return at any steps: linear between points, constant outside.    (points,)

        Args:
            steps: Environment steps.    (points,)
        """
        return np.interp(steps, self.steps, self.returns)

    def mean_between(self, first: float, last: float) -> float:
        """The area under the curve between two steps, divided by their distance.

        The curve is linear between its points, and constant before the first and after the last
        one. Where both steps are equal, it is the return there. Unit: return.

        Args:
            first: Environment steps at the beginning.
            last: Environment steps at the end.
        """
        inner = self.steps[(self.steps > first) & (self.steps < last)]
        steps = np.concatenate([[first], inner, [last]])
        returns = self.at(steps)
        if first == last:
            return float(returns[0])
        return float(np.trapezoid(returns, steps) / (last - first))


def common_span(curves: Sequence[Curve]) -> tuple[float, float]:
    """The first and the last step between which every curve has points.

    Raises:
        InputError: There is no curve, one has no point, or their steps do not overlap.
    """
    if not curves:
        raise InputError("There is no curve: a comparison needs at least one per group.")
    if not all(len(curve.steps) for curve in curves):
        raise InputError("A curve has no point: leave out runs in which nothing was measured.")
    first = max(float(curve.steps[0]) for curve in curves)
    last = min(float(curve.steps[-1]) for curve in curves)
    if first > last:
        raise InputError(
            f"The curves do not overlap: one begins at step {first:.0f}, after another has ended "
            f"at step {last:.0f}."
        )
    return first, last
