"""Training curves: the returns that a run logged during training, read from its event files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


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


def training_curve(run_dir: Path, task: str) -> Curve:
    """A run's training returns in one task; see `training_curves`."""
    return training_curves(run_dir, [task])[0]


def training_curves(run_dir: Path, tasks: Sequence[str]) -> list[Curve]:
    """A run's training returns: for each rollout the mean over the episodes that ended in it.

    Args:
        run_dir: The run's folder. Points that a killed process logged after its last checkpoint
            are dropped.
        tasks: The tasks' names in `result.json`.
    """
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    curves = []
    for task in tasks:
        name = f"rollout/return/{task}"
        points = events.Scalars(name) if name in events.Tags()["scalars"] else []
        steps = np.array([point.step for point in points], dtype=np.float64)
        curves.append(Curve(steps, np.array([point.value for point in points], dtype=np.float64)))
    return curves
