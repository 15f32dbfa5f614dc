"""Checks of an experiment's options and of the folder for its page.

They run before anything starts, so that hours of training do not end with a refusal.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rltransfer.errors import InputError, unknown
from rltransfer.options import normalize, to_builtin

COUNTS = ("seeds", "generations")
"""How options end that multiply the number of runs."""
MOST_RUNS = 10_000
"""Their largest value: each run is planned before the first one starts."""


def choice(kind: str, names: Iterable[str], default: Iterable[str] | None = None) -> Any:
    """An option of an experiment whose values are some of these names; see `check_options`.

    Args:
        kind: What a name stands for in an error, e.g. "game".
        names: The allowed names.
        default: The default value; all names if None.
    """
    values = tuple(names)
    chosen = values if default is None else tuple(default)
    return dataclasses.field(default=chosen, metadata={"kind": kind, "names": values})


def check_options(experiment: Any) -> None:
    """Refuses options that no run can use; numbers of NumPy and torch become Python's.

    Integers must be at least 1, or at least 0 if that is the default; numbers of runs are at most
    `MOST_RUNS`. Floats must be above 0.
    Options with several values need at least one value, and no value twice. The values of a
    `choice` must be among its names.

    Args:
        experiment: A dataclass of options.

    Raises:
        InputError: An option breaks one of these rules.
    """
    for field in dataclasses.fields(experiment):
        name, value = field.name, to_builtin(getattr(experiment, field.name))
        values = value if isinstance(value, tuple) else (value,)
        if not values:
            raise InputError(f"{name} is empty: give at least one value.")
        if len(set(values)) < len(values):
            raise InputError(f"{name} contains a value twice: give each value once.")
        minimum = 0 if field.default == 0 else 1
        for one in values:
            if isinstance(one, int) and one < minimum:
                raise InputError(f"{name} is {one}: it must be at least {minimum}.")
            if name.endswith(COUNTS) and one > MOST_RUNS:
                raise InputError(f"{name} is {one}: it must be at most {MOST_RUNS:,}.")
            if isinstance(one, float) and not 0 < one < math.inf:
                raise InputError(f"{name} is {one:g}: it must be a number above 0.")
            if field.metadata and one not in field.metadata["names"]:
                raise unknown(field.metadata["kind"], str(one), field.metadata["names"])
    normalize(experiment)


def page_folder(results: Path | None, out: Path) -> Path:
    """The folder for an experiment's page; it is created when the page is written.

    Args:
        results: The requested folder, if any.
        out: The folder of the runs, the default.

    Raises:
        InputError: The folder is not writable.
    """
    folder = results or out
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return folder
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
