"""Reading files that may be missing or damaged."""

from __future__ import annotations

from pathlib import Path

from rltransfer.errors import InputError
from rltransfer.files.untrusted import DAMAGE, read_regular

__all__ = ["DAMAGE", "read_file"]


def read_file(path: Path, kind: str) -> bytes:
    """The bytes of a regular file within the limit of `files/untrusted.py`.

    Args:
        path: The file.
        kind: What it should be, e.g. "a TorchScript file", for the error.

    Raises:
        InputError: The file is missing, cannot be read or is larger than the limit.
    """
    try:
        return read_regular(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "there is no such file" if missing else "it cannot be read"
        raise InputError(f"{path} is not {kind}: {reason}.") from error
