"""Training curves: the returns that a run logged during training, read from its event files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rltransfer.errors import InputError
from rltransfer.metrics.curves import Curve
from rltransfer.runs.curves import curves


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
    points = curves(run_dir)
    found = []
    for task in tasks:
        of = [point for point in points if point.tag == f"rollout/return/{task}"]
        steps = np.array([point.step for point in of], dtype=np.float64)
        found.append(Curve(steps, np.array([point.value for point in of], dtype=np.float64)))
    return found


def smooth_curves(run_dirs: Sequence[Path], task: str, width: float) -> list[Curve]:
    """The smoothed training returns of some runs in one task.

    Args:
        run_dirs: The runs' folders.
        task: The task's name in `result.json`.
        width: Environment steps that the moving average covers.

    Raises:
        InputError: A run has too few points.
    """
    found = [training_curve(run_dir, task).smoothed(width) for run_dir in run_dirs]
    for run_dir, curve in zip(run_dirs, found, strict=True):
        if not len(curve.steps):
            raise InputError(f"Too few episodes ended in {run_dir}: use more --steps.")
    return found
