"""`rltransfer report`: runs compared on one page."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table as RichTable
from rich.text import Text

from rltransfer.cli.parsing import parse
from rltransfer.errors import InputError
from rltransfer.machine.terminal import console
from rltransfer.reports.comparison import CurveName
from rltransfer.reports.report import Report, report
from rltransfer.reports.sections import transfer_table
from rltransfer.reports.writing import check_target

SHOWN = ("group", "seeds", "final return", "area ratio", "steps ratio")
"""The columns that the terminal shows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Compare runs: curves with intervals, transfer over a baseline, and what is unfair."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DIR ...")]
    """Run directories, or folders with runs at any depth. Runs that differ in nothing but the seed
    are one group."""
    out: Path = Path("report.html")
    """The page: HTML, or Markdown if the name ends with .md. An earlier report is replaced, any
    other file is kept."""
    baseline: str | None = None
    """The group that others are compared with: its label or a part of it, or a folder with runs of
    it. By default the group that learns without a teacher or another run."""
    curve: CurveName = "evaluation"
    """Curves to compare. `evaluation`: greedy evaluations during training. `training`: the episodes
    of training. If a group lacks the one, the other is used, and the page says so."""
    threshold: float = 0.9
    """The threshold of the steps to threshold: a fraction of the way from the random policy's
    return to the baseline's asymptote."""
    json: bool = False
    """Print all data as JSON."""


def run(words: list[str]) -> None:
    """Writes a page about runs."""
    options = parse(ReportOptions, words, "rltransfer report")
    if not options.folders:
        raise InputError("DIR is missing; see `rltransfer report --help`.")
    check_target(options.out)
    found = report(
        *options.folders,
        baseline=options.baseline,
        curve=options.curve,
        threshold=options.threshold,
    )
    found.write(options.out)
    if options.json:
        print(json.dumps(found.to_json()))
    else:
        _show(found, options.out)


def _show(found: Report, path: Path) -> None:
    out = console()
    for task in found.tasks:
        table = transfer_table(task)
        places = [table.head.index(name) for name in SHOWN]
        shown = RichTable(*SHOWN, title=Text(task.task), title_justify="left")
        for row in table.rows:
            shown.add_row(*(Text(row[place], overflow="fold") for place in places))
        out.print(shown)
    for sentence in (*found.warnings, *found.unreadable):
        out.print(f"- {sentence}", highlight=False, soft_wrap=True)
    out.print(f"written: {path}", highlight=False, soft_wrap=True)
