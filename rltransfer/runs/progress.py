"""Progress of a run in the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.live import Live
from rich.table import Table

from rltransfer.machine.terminal import progress_console

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

    def show(self, step: int, steps_per_second: float, figures: Mapping[str, str]) -> None:
        """Shows the progress.

        Args:
            step: Completed environment steps.
            steps_per_second: Speed of this process.
            figures: Other figures by name, e.g. returns.
        """
        # The last rollout may exceed the total.
        left = max(self.total - step, 0) / steps_per_second if steps_per_second else float("inf")
        cells = {
            "done": f"{min(100 * step / self.total, 100):.0f} %",
            "steps": f"{step:,}",
            "steps/s": f"{steps_per_second:,.0f}",
            "left": duration(left),
            **figures,
        }
        if self.shows_table:
            table = Table(title=self.title, title_justify="left")
            for name in cells:
                table.add_column(name, justify="right")
            table.add_row(*cells.values())
            self.live.update(table)
        elif time.monotonic() - self._last_line > PLAIN_SECONDS or step >= self.total:
            self._last_line = time.monotonic()
            line = "  ".join(f"{name} {value}" for name, value in cells.items())
            self.console.print(f"{self.title}  {line}", highlight=False, soft_wrap=True)


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
