"""Files and folders of other users: what may not be read is not "missing"."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from rltransfer.errors import InputError


@contextlib.contextmanager
def must_be_readable() -> Iterator[None]:
    """Turns a permission error of the block into one that names the file.

    Raises:
        InputError: This user may not read a file or a folder.
    """
    try:
        yield
    except PermissionError as error:
        raise InputError(
            f"{error.filename} cannot be read: this user has no permission for it."
        ) from error


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder at a path.

    Raises:
        InputError: This user may not look.
    """
    with must_be_readable():
        try:
            return stat.S_ISDIR(os.stat(path).st_mode)
        except PermissionError:
            raise
        except (OSError, ValueError):
            return False
