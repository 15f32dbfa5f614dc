"""What an experiment is asked for: options that make sense, and a folder that can be written.

Both are looked at before anything starts: a run of hours is not to end with a refusal.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from rltransfer.errors import InputError, unknown


def check_options(experiment: Any) -> None:
    """Refuses options that no run can be made of.

    Whole numbers are at least 1, or 0 where that is the default; other numbers are above 0; where
    there may be several values, there is at least one, and none twice.

    Args:
        experiment: A dataclass of options.

    Raises:
        InputError: An option is none of these.
    """
    for field in dataclasses.fields(experiment):
        name, value = field.name, getattr(experiment, field.name)
        values = value if isinstance(value, tuple) else (value,)
        if not values:
            raise InputError(f"{name} is empty: there must be at least one.")
        if len(set(values)) < len(values):
            raise InputError(f"{name} holds a value twice: each may be there once.")
        least = 0 if field.default == 0 else 1
        for one in values:
            if isinstance(one, int) and one < least:
                raise InputError(f"{name} is {one}: it must be at least {least}.")
            if isinstance(one, float) and not 0 < one < math.inf:
                raise InputError(f"{name} is {one:g}: it must be a number above 0.")


def check_names(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    """Refuses names that nothing goes by.

    Args:
        kind: What is named, e.g. "game".
        names: The names that were given.
        known: Every name that is right.

    Raises:
        InputError: A name is not known.
    """
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)


def page_folder(results: Path | None, out: Path) -> Path:
    """Returns the folder for an experiment's page, which is made when the page is written.

    Args:
        results: The folder that was asked for, if any.
        out: The folder of the runs.

    Raises:
        InputError: Nothing can be written there.
    """
    folder = results or out
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return folder
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
