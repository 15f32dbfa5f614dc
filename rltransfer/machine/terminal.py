"""The terminal: consoles for results and for progress, and readers that stop early."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from rich.console import Console

PIPE_WIDTH = 120
"""Columns where the output is no terminal and has no width of its own."""


def console() -> Console:
    """Returns the console that results are printed on."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=PIPE_WIDTH)


@contextlib.contextmanager
def ignore_closed_pipe() -> Iterator[None]:
    """Lets whoever reads what is printed stop before its end, as `head` does."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_line(line: str, quiet: bool = False) -> None:
    """Prints a line of progress, unless nothing is to be printed."""
    Console(file=sys.stderr, quiet=quiet).print(line, highlight=False, markup=False, soft_wrap=True)
