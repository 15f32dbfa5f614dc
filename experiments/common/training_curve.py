"""Training curves: the returns that a run logged during training, read from its event files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rltransfer.metrics.curves import Curve


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
