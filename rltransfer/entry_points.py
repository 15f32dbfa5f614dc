"""Entry points: what installed packages add."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from rltransfer.errors import InputError


def entries(group: str) -> list[EntryPoint]:
    """Returns the entry points of a group, each name once, in the order of their names."""
    return list({entry.name: entry for entry in sorted(entry_points(group=group))}.values())


def load_entry(entry: EntryPoint) -> Any:
    """Returns what an entry point names.

    Raises:
        InputError: The package that has it cannot be imported, or has no such thing.
    """
    try:
        return entry.load()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{describe_entry(entry)} cannot be loaded: {reason.rstrip('.')}."
        ) from error


def describe_entry(entry: EntryPoint) -> str:
    """Returns what an entry point is, at the beginning of a sentence."""
    package = "" if entry.dist is None else f" of the package {entry.dist.name}"
    return f"The entry point {entry.name} = {entry.value!r} in {entry.group}{package}"
