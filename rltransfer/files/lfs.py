"""Pointers of git-lfs: the small texts that it keeps in the place of large files."""

from __future__ import annotations

from pathlib import Path

from rltransfer.errors import InputError
from rltransfer.files.untrusted import is_regular

BEGINNING = b"version https://git-lfs.github.com/spec/"
"""How a pointer begins."""


def check_not_pointer(path: Path) -> None:
    """Checks that a regular file, which can be read, is the file itself and not a pointer to it.

    Raises:
        InputError: It is a pointer, or cannot be read after all.
    """
    if not is_regular(path):
        return
    try:
        with path.open("rb") as file:
            is_pointer = file.read(len(BEGINNING)) == BEGINNING
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if is_pointer:
        raise InputError(
            f"{path} is a pointer of git-lfs and not the file itself: run `git lfs pull` in its "
            "repository."
        )
