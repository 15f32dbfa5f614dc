"""Zip archives of strangers: sizes are added up before anything is unpacked."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

from rltransfer.errors import InputError
from rltransfer.files.untrusted import (
    LimitError,
    check_size,
    damage_refused,
    is_regular,
    read_regular,
)

MOST_FILES = 20_000
"""Files of an archive, each of which takes some 500 bytes of memory. A large network has a few
thousand."""

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The compressions that torch and Stable-Baselines3 write; others unpack without a bound."""


def unpacked(content: bytes, path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The files of an archive by name.

    Args:
        content: The bytes of the archive.
        path: The file, for errors.
        wanted: Which names are read.

    Raises:
        InputError: The files are larger than the limit of `files/untrusted.py`, or two have one
            name.
        Exception: One of `DAMAGE`.
    """
    with opened(content, path) as archive:
        # Of two files of one name, readers disagree which counts. TorchScript's ignores case.
        names = [name.lower() for name in archive.namelist()]
        if len(set(names)) < len(names):
            raise InputError(f"{path} was not opened: it contains two files of one name.")
        entries = [entry for entry in archive.infolist() if wanted(entry.filename)]
        check_size(sum(entry.file_size for entry in entries), path)
        files = {}
        for entry in entries:
            with damage_refused(f"{path} cannot be read: its {entry.filename!r} is damaged."):
                files[entry.filename] = _read(archive, entry)
        return files


def opened(content: bytes, path: Path) -> zipfile.ZipFile:
    """An archive whose table of contents is not too long.

    Raises:
        LimitError: It is.
        Exception: One of `DAMAGE`.
    """
    # The marks of all tables, also of archives in the archive: Python reads a table as a whole.
    if content.count(b"PK\x01\x02") > MOST_FILES:
        raise LimitError(f"{path} was not opened: it contains more than {MOST_FILES:,} files.")
    return zipfile.ZipFile(io.BytesIO(content))


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The bytes of a file, as many as it declares."""
    if entry.compress_type not in METHODS:
        raise zipfile.BadZipFile("unknown compression")
    with archive.open(entry) as file:
        # `read()` without a size unpacks everything before it cuts at the declared size.
        content = file.read(entry.file_size)
    if len(content) != entry.file_size:
        raise zipfile.BadZipFile("cut short")
    return content


def names_of(path: Path) -> list[str]:
    """The names in an archive; none if the file is missing or not one.

    Raises:
        LimitError: The file is too large, or contains too many files.
    """
    if not is_regular(path):
        return []
    try:
        with opened(read_regular(path), path) as archive:
            return archive.namelist()
    except LimitError:
        raise
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return []
