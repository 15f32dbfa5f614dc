"""Curves in TensorBoard and a live table in the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

PLAIN_SECONDS = 10.0
"""Seconds between two lines of progress where the output is no terminal."""


class Tracker:
    """Writes scalars to the run's TensorBoard event file.

    Args:
        run_dir: The run's folder; None writes nothing, as all processes but the first.
        purge_step: After a resume: the first step after the checkpoint's. What curves hold from
            there on is of a killed process and is hidden; None hides nothing.
    """

    def __init__(self, run_dir: Path | None, purge_step: int | None = None) -> None:
        self.writer: SummaryWriter | None = None
        if run_dir is not None:
            self.writer = SummaryWriter(str(run_dir), purge_step=purge_step, flush_secs=30)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes scalars at an environment step."""
        if self.writer is None:
            return
        # All in one event, which takes a sixth of the time of one for each.
        summary = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self.writer._get_file_writer().add_summary(Summary(value=summary), step)

    def text(self, name: str, value: str) -> None:
        """Writes a text, e.g. the hyperparameters."""
        if self.writer is not None:
            self.writer.add_text(name, value)

    def close(self) -> None:
        """Writes what is still in memory."""
        if self.writer is not None:
            self.writer.close()


class Progress:
    """One live table in a terminal, plain lines in a pipe, nothing when quiet.

    Args:
        title: What runs.
        total: Environment steps in all.
        quiet: Whether to print nothing.
    """

    def __init__(self, title: str, total: int, quiet: bool = False) -> None:
        self.title = title
        self.total = total
        self.console = Console(file=sys.stderr, quiet=quiet)
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
        """Shows how far the run is.

        Args:
            step: Environment steps done.
            steps_per_second: Speed of this process.
            figures: What else is worth a look, e.g. returns.
        """
        # A run ends with a whole rollout, beyond the steps that were asked for.
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


def tell(line: str, quiet: bool = False) -> None:
    """Prints a line of progress, unless nothing is to be printed."""
    Console(file=sys.stderr, quiet=quiet).print(line, highlight=False, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Returns seconds as people say them, e.g. "3 min 20 s"."""
    if seconds == float("inf"):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
