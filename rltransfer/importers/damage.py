"""Reading files that may be missing or damaged."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import torch

from rltransfer.errors import InputError
from rltransfer.files.lfs import check_not_pointer

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
    torch.jit.Error,
    TypeError,
    ValueError,
)
"""What `zipfile`, `pickle`, `torch.load` and `torch.jit` raise on damaged bytes."""


def read_file(path: Path, kind: str) -> bytes:
    """The bytes of a file.

    Args:
        path: The file.
        kind: What it should be, e.g. "a TorchScript file", for the error.

    Raises:
        InputError: The file is missing, cannot be read, or is a pointer of git-lfs.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "there is no such file" if missing else "it cannot be read"
        raise InputError(f"{path} is not {kind}: {reason}.") from error
    check_not_pointer(path)
    return content
