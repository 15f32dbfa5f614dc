"""Progress of a run in the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Group
from rich.live import Live
from rich.text import Text

from rltransfer.machine.tables import FittedTable, split_front
from rltransfer.machine.terminal import progress_console

TRAINING_RETURN = "training return"
"""The live table's name of the mean return of a rollout's episodes."""
PLAIN_SECONDS = 10.0
"""Seconds between two lines of progress if the output is not a terminal."""


class Progress:
    """A live table in a terminal, plain lines in a pipe, nothing if quiet.

    Args:
        title: Title of the run.
        total: Environment steps of the whole run.
        quiet: Whether to print nothing.
    """

    def __init__(self, title: str, total: int, quiet: bool = False) -> None:
        self.title = title
        self.total = total
        self.console = progress_console(quiet)
        self.shows_table = self.console.is_terminal and not self.console.is_dumb_terminal
        self.live = Live(console=self.console, refresh_per_second=4, transient=True)
        self._table: Group | str = ""
        self._began = time.monotonic()
        self._last_line = 0.0

    def __enter__(self) -> Progress:
        if self.shows_table:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.shows_table:
            self.live.stop()

    def show(
        self, step: int, steps_per_second: float, figures: Mapping[str, str | Mapping[str, str]]
    ) -> None:
        """Shows the progress.

        Args:
            step: Completed environment steps.
            steps_per_second: Speed of this process.
            figures: Other figures by name, e.g. returns; those of tasks by the task's name.
        """
        # The last rollout may exceed the total.
        left = max(self.total - step, 0) / steps_per_second if steps_per_second else float("inf")
        cells = {
            "done": f"{min(100 * step / self.total, 100):.0f} %",
            "steps": f"{step:,}",
            "steps/s": f"{steps_per_second:,.0f}",
            "left": duration(left),
            **{name: value for name, value in figures.items() if isinstance(value, str)},
        }
        by_task = {name: value for name, value in figures.items() if not isinstance(value, str)}
        if self.shows_table:
            self._table = Group(*live_tables(self.title, cells, by_task))
            self.live.update(self._table)
        elif time.monotonic() - self._last_line > PLAIN_SECONDS or step >= self.total:
            self._last_line = time.monotonic()
            cells |= {name: _in_line(values) for name, values in by_task.items()}
            line = "  ".join(f"{name} {value}" for name, value in cells.items())
            self.console.print(f"{self.title}  {line}", highlight=False, soft_wrap=True)

    def note(self, line: str) -> None:
        """Shows a line below the table; in a pipe, every `PLAIN_SECONDS`."""
        if self.shows_table:
            self.live.update(Group(self._table, Text(line)) if self._table else Text(line))
        elif time.monotonic() - max(self._last_line, self._began) > PLAIN_SECONDS:
            self._last_line = time.monotonic()
            self.console.print(
                f"{self.title}  {line}", highlight=False, markup=False, soft_wrap=True
            )


def live_tables(
    title: str, cells: Mapping[str, str], by_task: Mapping[str, Mapping[str, str]]
) -> list[FittedTable]:
    """The tables of a run's progress: a row in all, and with several tasks one row for each.

    Args:
        title: The run's title.
        cells: The figures of the run, by name.
        by_task: The figures of tasks, by name and task.
    """
    tasks = list(dict.fromkeys(task for values in by_task.values() for task in values))
    row = dict(cells)
    if len(tasks) == 1:
        row |= {name: value for name, values in by_task.items() for value in values.values()}
    optional = [name for name in row if name not in ("done", "left", "return")]
    whole = FittedTable(list(row), sorted(optional, key=_importance), title, names_task=False)
    whole.add_row(*row.values())
    if len(tasks) < 2:
        return [whole]
    heads = ["task", *by_task]
    each = FittedTable(heads, sorted(by_task, key=_importance))
    for task in tasks:
        each.add_row(task, *(values.get(task, "") for values in by_task.values()))
    return [whole, each]


def _importance(name: str) -> int:
    """The rank of a column: narrow terminals leave out the lowest."""
    order = ("steps/s", "steps", "teacher", "agreement", "training return", "return")
    return order.index(name) if name in order else 0


def _in_line(values: Mapping[str, str]) -> str:
    """Figures of tasks in one line; a single task is not named."""
    _, names = split_front(list(values)) if values else ("", [])
    if len(names) == 1:
        return next(iter(values.values()))
    return " ".join(f"{name} {value}" for name, value in zip(names, values.values(), strict=True))


def duration(seconds: float) -> str:
    """A time span in words, e.g. "3 min 20 s"."""
    if seconds == float("inf"):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def live_figures(metrics: Mapping[str, float]) -> dict[str, str | Mapping[str, str]]:
    """What the live table shows of a rollout's metrics."""
    shown: dict[str, str | Mapping[str, str]] = {}
    if "train/agreement" in metrics:
        shown["agreement"] = f"{metrics['train/agreement']:.3f}"
    for curve, name in (("evaluate/return/", "return"), ("rollout/return/", TRAINING_RETURN)):
        returns = {n.removeprefix(curve): v for n, v in metrics.items() if n.startswith(curve)}
        if returns:
            shown[name] = _as_text(returns)
    return shown


def _as_text(values: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.1f}" for name, value in values.items()}
