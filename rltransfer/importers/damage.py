"""Reading files that may be missing or damaged."""

from __future__ import annotations

from pathlib import Path

import torch

from rltransfer.errors import InputError
from rltransfer.files import untrusted
from rltransfer.files.lfs import check_not_pointer
from rltransfer.files.untrusted import read_regular

DAMAGE = (*untrusted.DAMAGE, torch.jit.Error)
"""What `zipfile`, `pickle`, torch and `torch.jit` raise on damaged bytes."""


def read_file(path: Path, kind: str) -> bytes:
    """The bytes of a regular file within the limit of `files/untrusted.py`.

    Args:
        path: The file.
        kind: What it should be, e.g. "a TorchScript file", for the error.

    Raises:
        InputError: The file is missing, cannot be read, is larger than the limit, or is a pointer
            of git-lfs.
    """
    try:
        content = read_regular(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "there is no such file" if missing else "it cannot be read"
        raise InputError(f"{path} is not {kind}: {reason}.") from error
    check_not_pointer(path)
    return content
