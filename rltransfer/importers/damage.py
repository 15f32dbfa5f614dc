"""Reading files that may be missing or damaged."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from pathlib import Path

from rltransfer.errors import InputError

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
"""What `zipfile`, `pickle` and `torch.load` raise on damaged bytes."""


def read_file(path: Path, kind: str) -> bytes:
    """The bytes of a file.

    Args:
        path: The file.
        kind: What it should be, e.g. "a TorchScript file", for the error.

    Raises:
        InputError: The file is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "there is no such file" if missing else "it cannot be read"
        raise InputError(f"{path} is not {kind}: {reason}.") from error
