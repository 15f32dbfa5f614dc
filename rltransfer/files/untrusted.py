"""Reading files that others wrote: regular files only, within a limit, errors as one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rltransfer.errors import InputError

LIMIT = "RLTRANSFER_MAX_FILE_MIB"
"""The environment variable that raises the limit."""

DEFAULT_LIMIT = 512
"""MiB that a file may have, declare or expand to; about 130 million float32 weights."""

MIB = 2**20

JSON_GROWTH = 16
"""How many times more memory JSON may take than its text: "[]," becomes a list of 56 bytes."""

DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What reading damaged bytes raises: `zipfile`, `json`, torch and code that expects other types."""


class LimitError(InputError):
    """A file is, or declares to be, larger than the limit."""


@contextlib.contextmanager
def damage_refused(sentence: str) -> Iterator[None]:
    """Turns any error that damaged content causes into one sentence; an `InputError` passes.

    Raises:
        InputError: The block raised an error of `DAMAGE`.
    """
    try:
        yield
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(sentence) from error


def most_bytes() -> int:
    """The limit in bytes.

    Raises:
        InputError: The environment variable is not a positive whole number.
    """
    text = os.environ.get(LIMIT, str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and int(text[:18]) > 0):
        raise InputError(f"{LIMIT} is {text!r}: it must be a whole number of MiB, at least 1.")
    return int(text[:18]) * MIB


def check_size(size: int, path: Path, growth: int = 1) -> None:
    """Checks a declared size against the limit, before the bytes are read or allocated.

    Args:
        size: The bytes that the content of a file declares.
        path: The file.
        growth: How many times more memory the content may take.

    Raises:
        LimitError: It is more than the limit.
    """
    limit = most_bytes() // growth
    if size > limit:
        raise LimitError(
            f"{path} was not opened: its content takes {size / MIB:,.0f} MiB, more than the limit "
            f"of {limit / MIB:,.0f}: if you trust it, set {LIMIT} above {most_bytes() // MIB}."
        )


def is_regular(path: Path) -> bool:
    """Whether a path is a file that can be read to its end: not a pipe, a device or a folder."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):  # e.g. a null character in the name
        return False


def read_regular(path: Path, growth: int = 1) -> bytes:
    """The bytes of a regular file within the limit.

    Args:
        path: The file.
        growth: See `check_size`.

    Raises:
        OSError: The file is missing, cannot be read, or is a pipe, a device or a folder.
        LimitError: It is larger than the limit.
    """
    # Without waiting for the other end, should the path be a pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        check_size(status.st_size, path, growth)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError, LimitError: See `read_regular`.
        ValueError: The file is not JSON, or is nested too deeply.
    """
    return parse_json(read_regular(path, JSON_GROWTH))


def parse_json(text: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: The text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
