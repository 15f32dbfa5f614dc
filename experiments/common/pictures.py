"""Pictures for result pages."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rltransfer.metrics.curves import Curve, common_span
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


def curve_panels(panels: Mapping[str, Mapping[str, Sequence[Curve]]]) -> Figure:
    """Training returns: the mean over seeds as a line, their range as a band.

    Args:
        panels: The curves by panel, then by the name of their line, which all panels share.
    """
    figure, grid = panel_figure(panels)
    for axes, groups in zip(grid.flat, panels.values(), strict=False):
        for index, (name, curves) in enumerate(groups.items()):
            steps = np.linspace(*common_span(curves), 200)
            returns = np.stack([curve.at(steps) for curve in curves])
            millions, colour = steps / 1e6, f"C{index}"
            axes.plot(millions, returns.mean(0), colour, label=name)
            axes.fill_between(
                millions, returns.min(0), returns.max(0), color=colour, alpha=0.15, linewidth=0
            )
    # In the empty panel, if there is one.
    grid.flat[-1].legend(*grid[0, 0].get_legend_handles_labels(), frameon=False, loc="center")
    figure.supxlabel("million environment steps")
    figure.supylabel("training return")
    return figure


def heat_map(values: Mapping[str, Mapping[str, float]], neutral: float, label: str) -> Figure:
    """A matrix of numbers as colours, with each number in its cell.

    Args:
        values: The numbers, by row, then by column; what is missing stays blank.
        neutral: The number at the middle of the colours.
        label: What the numbers are.
    """
    rows = list(values)
    columns = list(dict.fromkeys(name for row in values.values() for name in row))
    table = np.array([[values[r].get(c, math.nan) for c in columns] for r in rows])
    most = max(float(np.nanmax(np.abs(table - neutral))), 1e-9)
    figure, ((axes,),) = new_figure(1, 1, (1.2 * len(columns) + 2.5, 0.7 * len(rows) + 1.2))
    picture = axes.imshow(
        table, cmap="RdBu", vmin=neutral - most, vmax=neutral + most, aspect="auto"
    )
    for (row, column), value in np.ndenumerate(table):
        if not math.isnan(value):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center")
    axes.set_xticks(np.arange(len(columns)), columns)
    axes.set_yticks(np.arange(len(rows)), rows)
    figure.colorbar(picture, label=label)
    return figure


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
