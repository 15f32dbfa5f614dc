"""Training curves: the returns that a run logged during training, read from its event files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rltransfer.metrics.curves import Curve
from rltransfer.runs.event_files import NO_POINTS, read_scalars


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
    found, curves = read_scalars(run_dir), []
    for task in tasks:
        points = found.get(f"rollout/return/{task}", NO_POINTS)
        curves.append(Curve(points.steps.astype(np.float64), points.values))
    return curves
