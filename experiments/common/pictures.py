"""Pictures for result pages."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rltransfer.metrics.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(
    rows: int, columns: int, size: tuple[float, float], sharey: bool = False
) -> tuple[Figure, Any]:
    """A figure and its axes.    (rows, columns)

    matplotlib is imported here, as only a page needs it.

    Args:
        rows: Rows of axes.
        columns: Columns of axes.
        size: Width and height in inches.
        sharey: Whether all axes have the same vertical range.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=sharey)


def panel_figure(titles: Collection[str]) -> tuple[Figure, Any]:
    """A figure with one panel per title, and its axes, three in a row.    (rows, columns)"""
    columns = min(len(titles), 3)
    rows = math.ceil(len(titles) / columns)
    size = (6.5, 4.5) if len(titles) == 1 else (3.0 * columns, 2.4 * rows + 0.4)
    figure, grid = new_figure(rows, columns, size)
    for axes, title in zip(grid.flat, titles, strict=False):
        axes.set_title(title)
    for axes in grid.flat[len(titles) :]:
        axes.set_axis_off()
    return figure, grid


def bar_picture(groups: Sequence[str], bars: Mapping[str, Sequence[Interval]]) -> Figure:
    """Grouped bars of return ratios, in per cent, with their intervals.

    Args:
        groups: Names below the axis.
        bars: For each colour one interval per group.
    """
    figure, ((axes,),) = new_figure(1, 1, (max(6.0, 1.3 * len(groups)), 3.5))
    width = 0.8 / len(bars)
    tops: list[float] = []
    for index, (name, intervals) in enumerate(bars.items()):
        places = np.arange(len(groups)) + (index - (len(bars) - 1) / 2) * width
        heights = [100 * one.estimate for one in intervals]
        ends = [
            (one.low, one.high) if one.is_known else (one.estimate, one.estimate)
            for one in intervals
        ]
        errors = np.abs(100 * np.array(ends).T - heights)
        axes.bar(places, heights, width, yerr=errors, capsize=2, label=name)
        tops += heights
    axes.axhline(100, color="gray", linewidth=0.8)
    # With two seeds an interval may be so long that the bars would vanish next to it.
    axes.set_ylim(0, min(axes.get_ylim()[1], 2 * max(100, *tops)))
    axes.set_xticks(np.arange(len(groups)), groups)
    axes.set_ylabel("student / teacher return, %")
    # Above the axes, as bars may fill them.
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(bars))
    return figure
