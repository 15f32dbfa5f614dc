"""Writing a report to a file, without losing another one."""

from __future__ import annotations

from pathlib import Path

from rltransfer.errors import InputError
from rltransfer.files.atomic import write_text_whole
from rltransfer.files.reading import is_folder
from rltransfer.reports import html, markdown
from rltransfer.reports.data import ReportData
from rltransfer.runs.folder import io_errors_as_input_errors

HEAD = 4_096
"""Bytes at a file's beginning in which a report's mark is."""

FORMATS = {
    ".html": (html.html, html.MARK),
    ".htm": (html.html, html.MARK),
    ".md": (markdown.markdown, markdown.MARK),
}
"""What writes a file, and by which mark an earlier report is known, by the file's ending."""


def check_target(path: Path) -> None:
    """Checks that a report can be written to a file, before anything is read.

    Raises:
        InputError: The name has no known ending, its folder does not exist, or there is a file that
            is not an earlier report.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"{path} has no ending that a report can have: use .html, or .md for Markdown."
        )
    if not is_folder(path.parent):
        raise InputError(f"{path} cannot be written: there is no folder {path.parent}.")
    _, mark = FORMATS[path.suffix.lower()]
    with io_errors_as_input_errors(path):
        if path.is_symlink() or path.exists():
            known = path.is_file() and mark.encode() in _beginning(path)
            if not known:
                raise InputError(
                    f"{path} already exists and is not an earlier report: use another name."
                )


def write_report(report: ReportData, path: Path) -> Path:
    """Writes a report as HTML or Markdown; see `Report.write`."""
    check_target(path)
    made, _ = FORMATS[path.suffix.lower()]
    text = made(report)
    with io_errors_as_input_errors(path):
        write_text_whole(path, text)
    return path


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)
