"""The terminal: consoles for results and for progress, and readers that stop early."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from rltransfer.errors import printable

PIPE_WIDTH = 120
"""Columns where the output is not a terminal."""


class PrintableConsole(Console):
    """A console that escapes the control characters of what it is given."""

    def render_str(self, text: str, **how: Any) -> Text:
        """The text that a string becomes, before its width counts."""
        return super().render_str(printable(text), **how)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The parts of what is printed; those with a `control` are rich's own."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(printable(part.text), part.style)


class ResultConsole(PrintableConsole):
    """A console that leaves closed pipes to `ignore_closed_pipe`; rich exits with code 1."""

    def on_broken_pipe(self) -> None:
        """Raises the error again that rich has caught."""
        raise


class ProgressConsole(PrintableConsole):
    """A console that goes quiet if its reader stops early: the run itself goes on."""

    def on_broken_pipe(self) -> None:
        """Sends what follows nowhere; rich would end the program."""
        discard(self.file)


PLAIN: dict[str, Any] = {"markup": False, "emoji": False}
"""Options of every console: names of users may contain square brackets and colons."""


def console() -> Console:
    """The console that results are printed on."""
    plain = ResultConsole(**PLAIN)
    return plain if plain.is_terminal else ResultConsole(width=PIPE_WIDTH, **PLAIN)


def progress_console(quiet: bool = False) -> Console:
    """The console that progress is printed on."""
    return ProgressConsole(file=sys.stderr, quiet=quiet, **PLAIN)


@contextlib.contextmanager
def ignore_closed_pipe() -> Iterator[None]:
    """Ends the block quietly if the reader of standard output stops early, as `head` does."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        output = select.poll()
        output.register(sys.stdout, select.POLLERR)
        if not output.poll(0):
            raise  # another pipe broke, e.g. to a process that steps environments
        # Python flushes once more at its end, and would complain.
        discard(sys.stdout)


def discard(file: IO[str]) -> None:
    """Sends what is written to a file from now on nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)


def print_line(line: str, quiet: bool = False) -> None:
    """Prints a line of progress, unless nothing is to be printed."""
    progress_console(quiet).print(line, highlight=False, soft_wrap=True)
