"""The figures of an HTML page, drawn by Bokeh: curves with bands, and performance profiles.

Names come from files of others. Bokeh draws legends and titles as text; tooltips show values of
columns as text, so that no name is read as HTML. Names of columns are fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rltransfer.metrics import Interval
from rltransfer.reports.comparison import TaskComparison
from rltransfer.reports.report import Report
from rltransfer.reports.scores import Scores

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


def figures(report: Report) -> dict[str, Figure]:
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
    lines = []
    for group, line in task.lines.items():
        color, dash = styles[group]
        for run in task.runs[group]:
            figure.line(
                run.curve.steps.tolist(),
                run.curve.returns.tolist(),
                line_color=color,
                line_alpha=0.3,
                line_dash="solid" if run.finished else "dotted",
                legend_label=group,
            )
            if not run.finished and len(run.curve.steps):
                figure.scatter(
                    [float(run.curve.steps[-1])],
                    [float(run.curve.returns[-1])],
                    marker="x",
                    size=9,
                    line_color=color,
                    legend_label=group,
                )
        lines.append(_band(figure, group, line.steps, line.returns, color, dash))
    _hover(figure, lines, [("steps", "@x{0,0}"), ("mean return", "@y{0.000}")])
    if task.threshold is not None:
        _level(figure, task.threshold)
    return figure


def _profiles(scores: Scores, styles: Mapping[str, tuple[str, str]]) -> Figure:
    figure = _figure("score", "fraction of runs and tasks above")
    lines = [
        _band(figure, group, scores.thresholds, one.profile, *styles[group])
        for group, one in scores.groups.items()
    ]
    _hover(figure, lines, [("score", "@x{0.00}"), ("fraction above", "@y{0.000}")])
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


def _band(
    figure: Figure,
    group: str,
    x: Sequence[float],
    y: Sequence[Interval],
    color: str,
    dash: str,
) -> Any:
    """Draws a group's line with its band, and returns the line."""
    from bokeh.models import ColumnDataSource

    texts = [f"{one.low:.4g} to {one.high:.4g}" if one.is_known else "no interval" for one in y]
    columns = {
        "x": list(x),
        "y": [one.estimate for one in y],
        "low": [one.low if one.is_known else one.estimate for one in y],
        "high": [one.high if one.is_known else one.estimate for one in y],
        "group": [group] * len(y),
        "interval": texts,
        "runs": [one.seeds for one in y],
    }
    source = ColumnDataSource(columns)
    if any(one.is_known for one in y):
        figure.varea(
            "x", "low", "high", source=source, fill_color=color, fill_alpha=0.15,
            legend_label=group,
        )  # fmt: skip
    return figure.line(
        "x", "y", source=source, line_color=color, line_width=2.5, line_dash=dash,
        legend_label=group,
    )  # fmt: skip


def _hover(figure: Figure, lines: Sequence[Any], values: Sequence[tuple[str, str]]) -> None:
    from bokeh.models import HoverTool

    tooltips = [("group", "@group"), *values, ("95 % interval", "@interval"), ("runs", "@runs")]
    figure.add_tools(HoverTool(renderers=list(lines), tooltips=tooltips, mode="vline"))
    # Next to the figure, where it hides no curve; a click hides a group.
    figure.add_layout(figure.legend[0], "right")
    figure.legend.click_policy = "hide"
    figure.legend.label_text_font_size = "9pt"


def _level(figure: Figure, level: float) -> None:
    from bokeh.models import Span

    figure.add_layout(
        Span(location=level, dimension="width", line_color="#888888", line_dash="dashed")
    )
