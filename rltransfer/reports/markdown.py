"""A report as Markdown. Names come from files of others: nothing in them is read as markup."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rltransfer.reports.data import ReportData
from rltransfer.reports.sections import Section, sections

MARK = "<!-- rltransfer report -->"
"""The first line of every report, by which an earlier one is known."""

SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&@]|:(?=//)|(?<=www)\.)")
"""Characters that Markdown or HTML would read, those of addresses that become links among them."""


def markdown(report: ReportData) -> str:
    """A report as a page of Markdown."""
    folders = ", ".join(map(plain, report.folders))
    parts = [MARK, "# Transfer report", f"Runs in {folders}."]
    for section in sections(report):
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """A text on one line in which nothing is markup."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _section(section: Section) -> list[str]:
    parts = [f"{'#' * section.level} {plain(section.title)}"]
    if section.notes:
        parts.append("\n".join(f"- {plain(note)}" for note in section.notes))
    if section.table is not None:
        head = section.table.head
        rows = [head, ["---"] * len(head), *section.table.rows]
        lines = [_row(row, escaped=index != 1) for index, row in enumerate(rows)]
        parts.append("\n".join(lines))
    return parts


def _row(cells: Sequence[str], escaped: bool) -> str:
    return f"| {' | '.join(plain(cell) if escaped else cell for cell in cells)} |"
