"""Distral's variants and measures of their training curves, for the experiments on Distral.

Training returns are means over the episodes that ended in a rollout, of the stochastic policies
that act. A run's curve is the mean return in each of `PARTS` equal parts of its steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rltransfer.errors import InputError
from rltransfer.experiments.common.pictures import panel_figure
from rltransfer.experiments.common.training_curve import training_curves
from rltransfer.metrics.intervals import mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

VARIANTS: dict[str, dict[str, Any]] = {
    "A2C": {"architecture": "one-column", "alpha": 0.0},
    "A2C multitask": {"architecture": "shared", "alpha": 0.0},
    "A2C 2col": {"architecture": "two-column", "alpha": 0.0, "shared_weight": 1.0},
    "KL 1col": {"architecture": "one-column", "alpha": 1.0},
    "KL 2col": {"architecture": "two-column", "alpha": 1.0},
    "KL+ent 1col": {"architecture": "one-column", "alpha": 0.5},
    "KL+ent 2col": {"architecture": "two-column", "alpha": 0.5},
}
"""The paper's seven, as fields of `Distral`; with alpha = 0, entropy has the weight 1 / beta."""

PARTS = 100
"""Points of a curve."""


def run_curves(run_dir: Path, tasks: Sequence[str], steps: int) -> Array:
    """The training returns of a run.    (tasks, PARTS)

    Args:
        run_dir: The run's folder.
        tasks: The tasks' names in `result.json`.
        steps: The run's environment steps.

    Raises:
        InputError: In some task no episode ended.
    """
    curves = training_curves(run_dir, tasks)
    for task, curve in zip(tasks, curves, strict=True):
        if not len(curve.steps):
            raise InputError(f"No episode of {task} ended within {steps} steps: use more --steps.")
    return np.stack([curve.in_parts(steps, PARTS) for curve in curves])


def area(curves: Array) -> Array:
    """The mean return over a run, the area under its curve.    (..., PARTS) -> (...)"""
    mean: Array = curves.mean(-1)
    return mean


def early(curves: Array) -> Array:
    """The mean return over a run's first quarter.    (..., PARTS) -> (...)"""
    return area(curves[..., : PARTS // 4])


def final(curves: Array) -> Array:
    """The mean return over a run's last tenth.    (..., PARTS) -> (...)"""
    return area(curves[..., -PARTS // 10 :])


def curve_picture(panels: Mapping[str, Mapping[str, Array]], steps: int) -> Figure:
    """Learning curves: means over seeds with their 95 % intervals.

    Args:
        panels: For each panel's title the runs of each line, each (seeds, PARTS).
        steps: Environment steps of a run, over all tasks.
    """
    figure, grid = panel_figure(panels)
    million = (np.arange(PARTS) + 0.5) / PARTS * steps / 1e6
    for axes, lines in zip(grid.flat, panels.values(), strict=False):
        for name, runs in lines.items():
            (line,) = axes.plot(million, runs.mean(0), label=name)
            if len(runs) > 1:
                bands = [mean_interval(returns) for returns in runs.T.tolist()]
                low, high = [band.low for band in bands], [band.high for band in bands]
                color = line.get_color()
                axes.fill_between(million, low, high, color=color, alpha=0.15, linewidth=0)
    lines_drawn, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(lines_drawn, names, frameon=False, loc="outside upper center", ncols=4)
    figure.supxlabel("million environment steps, over all tasks")
    figure.supylabel("training return")
    return figure
