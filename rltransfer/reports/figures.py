"""The figures of an HTML page, drawn by Bokeh: curves with bands, and performance profiles.

Names come from files of others. Bokeh draws legends and titles as text; tooltips show values of
columns as text, so that no name is read as HTML. Names of columns are fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rltransfer.metrics import Interval
from rltransfer.reports.comparison import RunCurve, TaskComparison
from rltransfer.reports.data import ReportData
from rltransfer.reports.scores import Scores
from rltransfer.reports.sections import format_interval

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure

COLORS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#6a3d9a", "#7f7f7f",
)  # fmt: skip
"""Colours that people with colour blindness tell apart (Okabe & Ito), and two more."""

DASHES = ("solid", "dashed", "dotdash", "dotted")
"""Dashes of further groups, once all colours are used."""

HEIGHT = 380
"""Pixels of a figure."""


def figures(report: ReportData) -> dict[str, Figure]:
    """The figures of a page by the names that sections give them."""
    styles = {
        group.label: (COLORS[place % len(COLORS)], DASHES[place // len(COLORS) % len(DASHES)])
        for place, group in enumerate(report.groups)
    }
    found = {
        f"curves-{index}": _curves(task, styles)
        for index, task in enumerate(report.tasks)
        if task.lines
    }
    if report.scores.groups:
        found["profiles"] = _profiles(report.scores, styles)
    return found


def _curves(task: TaskComparison, styles: Mapping[str, tuple[str, str]]) -> Figure:
    """The mean curve of each group with its band, and each run; dotted where it was cut short."""
    figure = _figure("environment steps", "return")
    for group, line in task.lines.items():
        color, dash = styles[group]
        for run in task.runs[group]:
            _run(figure, group, run, color)
        _band(figure, group, line.steps, line.returns, color, dash)
    shown = {group: (line.steps, line.returns) for group, line in task.lines.items()}
    _hover(figure, shown, ("steps", "@x{0,0}"))
    returns = [run.curve.returns for of in task.runs.values() for run in of]
    levels = [] if task.threshold is None else [task.threshold]
    for level in levels:
        _level(figure, level)
    _fit(figure, np.concatenate([*returns, levels]))
    return figure


def _profiles(scores: Scores, styles: Mapping[str, tuple[str, str]]) -> Figure:
    figure = _figure("score", "fraction of runs and tasks above")
    for group, one in scores.groups.items():
        _band(figure, group, scores.thresholds, one.profile, *styles[group])
    shown = {group: (scores.thresholds, one.profile) for group, one in scores.groups.items()}
    _hover(figure, shown, ("score", "@x{0.00}"))
    return figure


def _figure(x: str, y: str) -> Figure:
    from bokeh.models import NumeralTickFormatter
    from bokeh.plotting import figure

    made = figure(
        height=HEIGHT,
        sizing_mode="stretch_width",
        x_axis_label=x,
        y_axis_label=y,
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_scroll=None,
    )
    made.toolbar.logo = None
    made.xaxis.formatter = NumeralTickFormatter(format="0.[00]a")
    return made


def _run(figure: Figure, group: str, run: RunCurve, color: str) -> None:
    """Draws a run's curve, with a cross where it was cut short."""
    steps, returns = run.curve.steps.tolist(), run.curve.returns.tolist()
    if not steps:
        return
    figure.line(
        steps,
        returns,
        line_color=color,
        line_alpha=0.3,
        line_dash="solid" if run.finished else "dotted",
        legend_label=group,
    )
    if not run.finished:
        figure.scatter(
            steps[-1:], returns[-1:], marker="x", size=9, line_color=color, legend_label=group
        )


def _band(
    figure: Figure,
    group: str,
    x: Sequence[float],
    y: Sequence[Interval],
    color: str,
    dash: str,
) -> None:
    """Draws a group's line with its band."""
    from bokeh.models import ColumnDataSource

    columns = {
        "x": list(x),
        "y": [one.estimate for one in y],
        "low": [one.low if one.is_known else one.estimate for one in y],
        "high": [one.high if one.is_known else one.estimate for one in y],
        "group": [group] * len(y),
    }
    source = ColumnDataSource(columns)
    if any(one.is_known for one in y):
        figure.varea(
            "x", "low", "high", source=source, fill_color=color, fill_alpha=0.15,
            legend_label=group,
        )  # fmt: skip
    figure.line(
        "x", "y", source=source, line_color=color, line_width=2.5, line_dash=dash,
        legend_label=group,
    )  # fmt: skip


def _hover(
    figure: Figure,
    lines: Mapping[str, tuple[Sequence[float], Sequence[Interval]]],
    place: tuple[str, str],
) -> None:
    """Shows the values of all groups at the mouse's place, and a legend that hides groups.

    One unseen line has the texts: with a tooltip for each line, they would cover each other.
    """
    from bokeh.models import ColumnDataSource, HoverTool

    places = sorted({x for xs, _ in lines.values() for x in xs})
    columns: dict[str, list[Any]] = {"x": places, "y": []}
    columns |= {f"text{number}": [] for number in range(len(lines))}
    for x in places:
        heights = []
        for number, (group, (xs, values)) in enumerate(lines.items()):
            nearest = int(np.abs(np.array(xs) - x).argmin())
            heights.append(values[nearest].estimate)
            text = f"{group}: {format_interval(values[nearest])}, {_seeds(values[nearest])}"
            columns[f"text{number}"].append(
                text if xs[nearest] == x else f"{text}, at {xs[nearest]:,.4g}"
            )
        columns["y"].append(float(np.mean(heights)))
    unseen = figure.line("x", "y", source=ColumnDataSource(columns), line_alpha=0)
    texts = [("", f"@text{number}") for number in range(len(lines))]
    figure.add_tools(HoverTool(renderers=[unseen], tooltips=[place, *texts], mode="vline"))
    # Next to the figure, where it hides no curve; a click hides a group.
    figure.add_layout(figure.legend[0], "right")
    figure.legend.click_policy = "hide"
    figure.legend.label_text_font_size = "9pt"


def _seeds(interval: Interval) -> str:
    return "1 seed" if interval.seeds == 1 else f"{interval.seeds} seeds"


def _fit(figure: Figure, values: NDArray[np.float64]) -> None:
    """Shows all values. Bands may be far longer, with two seeds for example, and are cut."""
    from bokeh.models import Range1d

    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 1.0
    figure.y_range = Range1d(start=low - margin, end=high + margin)


def _level(figure: Figure, level: float) -> None:
    from bokeh.models import HSpan

    figure.add_glyph(HSpan(y=level, line_color="#888888", line_dash="dashed"))
