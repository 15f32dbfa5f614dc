"""Formats that a run's policy is exported to: ONNX, and those that installed packages add.

A package lists a function under the entry-point group `rltransfer.exporters`:

    def export(run_dir: Path, out: Path, *, checkpoint: str, samples: int) -> ExportedFiles

It writes the files after comparing them with the policy, and never overwrites one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rltransfer.entry_points import entries, find_entry, load_entry
from rltransfer.errors import InputError, unknown
from rltransfer.files.checkpoint_names import FINAL
from rltransfer.runs.folder import io_errors_as_input_errors

EXPORTERS = "rltransfer.exporters"
"""The group of entry points."""

ONNX = "onnx"
"""The format of `onnx_export.py`."""


@dataclass(frozen=True)
class ExportedFiles:
    """Exported files, and their differences from the policy."""

    path: Path
    """The file with the policy."""
    others: tuple[Path, ...]
    """Files that it needs next to it."""
    num_bytes: int
    """Bytes of all files."""
    samples: int
    """Number of random observations in the comparison."""
    largest_difference: float
    """Largest difference of a score or an action dimension over all samples."""
    notes: tuple[str, ...]
    """Sentences on how to load the files, and on what they do not contain."""


class Exporter(Protocol):
    """What an entry point of the group names."""

    def __call__(self, run_dir: Path, out: Path, *, checkpoint: str, samples: int) -> ExportedFiles:
        """Writes the files."""


def formats() -> list[str]:
    """The names of all formats."""
    return [ONNX, *(entry.name for entry in entries(EXPORTERS))]


def export_as(
    name: str, run_dir: Path, out: Path, *, checkpoint: str = FINAL, samples: int = 256
) -> ExportedFiles:
    """Writes a run's policy in a format of an installed package.

    Args:
        name: The format.
        run_dir: The run directory.
        out: The file; must not exist.
        checkpoint: The checkpoint with the policy, see `find_checkpoint`.
        samples: Number of random observations on which policy and file are compared.

    Raises:
        InputError: The format is unknown, cannot contain this policy, or the file cannot be
            written.
        RuntimeError: The file does not act like the policy; it is not written.
    """
    if name not in formats():
        raise unknown("export format", name, formats())
    exporter: Exporter = load_entry(find_entry(EXPORTERS, name, "export format"))
    return exporter(run_dir, out, checkpoint=checkpoint, samples=samples)


def check_target(out: Path) -> None:
    """Checks that a file can be written where there is none.

    Raises:
        InputError: It exists, or its folder does not.
    """
    with io_errors_as_input_errors(out):
        exists = os.path.lexists(out)  # also a link that leads nowhere
    if exists:
        raise InputError(f"{out} already exists: use another --out.")
    if not out.parent.is_dir():
        raise InputError(f"{out} cannot be written: there is no folder {out.parent}.")
