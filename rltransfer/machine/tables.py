"""Tables that fit the terminal: what tells rows apart is kept, less important columns go first."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from rltransfer.errors import printable

UNLIMITED = 10_000
"""Columns of a terminal that every table fits."""


def split_front(names: Sequence[str]) -> tuple[str, list[str]]:
    """Splits names into the front that all share, up to a "/", "-" or ":", and the rest of each.

    The front ends before the keyword arguments, which tell tasks of one id apart. Of a single name,
    it is the namespace.
    """
    ids = [name.partition("{")[0] for name in names]
    if len(set(names)) == 1:
        front = ids[0][: ids[0].rfind("/") + 1]
    elif len(set(ids)) == 1 and all("{" in name for name in names):
        front = ids[0]
    else:
        columns = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*ids, strict=False))
        shared = (column[0] for column in columns)
        found = re.match(r".*[/:-]", "".join(shared))
        front = found[0] if found else ""
    return front, [name[len(front) :] for name in names]


class FittedTable:
    """A table that first cuts the shared front of names, then leaves out columns.

    Args:
        heads: The columns; the first contains the names of the rows.
        optional: The columns that may be left out, the least important first.
        title: The table's title; a cut front of names is appended.
        names_task: Whether the first column contains names whose front may be cut.
    """

    def __init__(
        self,
        heads: Sequence[str],
        optional: Iterable[str] = (),
        title: str = "",
        names_task: bool = True,
    ) -> None:
        self.heads = list(heads)
        self.optional = [head for head in optional if head in heads]
        self.title = title
        self.names_task = names_task
        self.rows: list[tuple[str, ...]] = []

    def add_row(self, *cells: str) -> None:
        """Adds a row."""
        self.rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The first form of the table that fits; the last one folds its names."""
        unlimited = options.update(width=UNLIMITED)
        left_out: set[str] = set()
        table = self._table(left_out, cut=False)
        for head in ["", *self.optional]:
            if console.measure(table, options=unlimited).maximum <= options.max_width:
                break
            left_out.add(head)
            table = self._table(left_out, cut=self.names_task)
        yield table

    def _table(self, left_out: set[str], cut: bool) -> Table:
        where = self.heads.index("task") if self.names_task else 0
        front, names = "", [row[where] for row in self.rows]
        if cut and names:
            front, names = split_front(names)
        title = " ".join(filter(None, (self.title, f"{front}..." if front else "")))
        table = Table(title=Text(printable(title)) if title else None, title_justify="left")
        shown = [index for index, head in enumerate(self.heads) if head not in left_out]
        for index in shown:
            is_name = index == where
            justify: Literal["left", "right"] = "left" if is_name and self.names_task else "right"
            table.add_column(
                self.heads[index], justify=justify, overflow="fold", no_wrap=not is_name
            )
        for row, name in zip(self.rows, names, strict=True):
            cells = [name if index == where else row[index] for index in shown]
            table.add_row(*(Text(printable(cell), overflow="fold") for cell in cells))
        return table
