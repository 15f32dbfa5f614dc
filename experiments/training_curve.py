"""Training curves: what a run logged while it learned, read back from its event files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


@dataclass(frozen=True)
class Curve:
    """Returns over environment steps."""

    steps: NDArray[np.float64]
    """Environment steps, rising.    (points,)"""
    returns: NDArray[np.float64]
    """The return at each.           (points,)"""

    def smoothed(self, window: float) -> Curve:
        """Returns the mean of the points of the last `window` steps, from the first window on.

        Args:
            window: Environment steps.
        """
        total = np.concatenate([[0.0], np.cumsum(self.returns)])
        last = np.arange(1, len(self.steps) + 1)
        first = np.searchsorted(self.steps, self.steps - window, side="right")
        means = (total[last] - total[first]) / (last - first)
        whole = self.steps >= window
        return Curve(self.steps[whole], means[whole])

    def first_at_least(self, level: float) -> float | None:
        """Returns the steps at which the return is this high for the first time; None if never."""
        reached = np.flatnonzero(self.returns >= level)
        return float(self.steps[reached[0]]) if len(reached) else None


def training_curve(run_dir: Path, task: str) -> Curve:
    """Returns a run's training returns: for each rollout the mean of the episodes that ended in it.

    Args:
        run_dir: The run's folder; what a process logged that was killed later than its last
            checkpoint does not count.
        task: The task's name in results.
    """
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    name = f"rollout/return/{task}"
    points = events.Scalars(name) if name in events.Tags()["scalars"] else []
    return Curve(
        np.array([point.step for point in points], dtype=np.float64),
        np.array([point.value for point in points], dtype=np.float64),
    )
