"""`rltransfer curves`: the curves of runs, as a table or as CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TextIO

import numpy as np
import tyro
from rich.table import Table

from rltransfer.cli.parsing import parse
from rltransfer.errors import InputError
from rltransfer.files.atomic import write_text_whole
from rltransfer.machine.terminal import console, print_line
from rltransfer.runs.curves import CurvePoint, curves
from rltransfer.runs.folder import io_errors_as_input_errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurvesOptions:
    """List the curves of runs, or print them as CSV."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """One or more run directories."""
    tag: str = "*"
    """Only the curves of this name; * stands for any text, as in 'evaluate/*'."""
    csv: bool = False
    """Print every point as CSV, with the columns run, tag, step, wall_time and value."""
    out: Path | None = None
    """Write the CSV into this file. An existing file is never overwritten."""


def run(words: list[str]) -> None:
    """Prints the curves of runs."""
    options = parse(CurvesOptions, words, "rltransfer curves")
    if not options.runs:
        raise InputError("RUN is missing; see `rltransfer curves --help`.")
    _check_free(options.out)
    points = curves(options.runs, options.tag)
    if options.out is not None:
        text = io.StringIO()
        _write_csv(points, text)
        with io_errors_as_input_errors(options.out):
            write_text_whole(options.out, text.getvalue())
        print_line(f"{options.out}: {len(points):,} points")
    elif options.csv:
        _write_csv(points, sys.stdout)
    elif not points:
        print_line("There are no points yet.")
    else:
        for name, rows in itertools.groupby(points, lambda point: point.run):
            console().print(_table(name, rows))


def _check_free(out: Path | None) -> None:
    """Checks that a file can be written, before anything is read.

    Raises:
        InputError: It exists, or its folder does not.
    """
    if out is not None and out.exists():
        raise InputError(f"{out} already exists: use another --out.")
    if out is not None and not out.parent.is_dir():
        raise InputError(f"{out} cannot be written: there is no folder {out.parent}.")


def _write_csv(points: Iterable[CurvePoint], file: TextIO) -> None:
    """Writes points with as few digits as float32 needs."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CurvePoint._fields)
    writer.writerows((*point[:-1], str(np.float32(point.value))) for point in points)


def _table(run: str, points: Iterable[CurvePoint]) -> Table:
    """A run's curves with the number of their points and the last one."""
    table = Table(title=run, title_justify="left")
    table.add_column("curve", overflow="fold")
    for head in ("points", "last step", "last value"):
        table.add_column(head, justify="right", no_wrap=True)
    for tag, group in itertools.groupby(points, lambda point: point.tag):
        curve = list(group)
        last = curve[-1]
        table.add_row(tag, f"{len(curve):,}", f"{last.step:,}", f"{last.value:.5g}")
    return table
