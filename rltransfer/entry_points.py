"""Entry points: what installed packages add to rltransfer."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from rltransfer.errors import InputError, unknown


def entries(group: str) -> list[EntryPoint]:
    """The entry points of a group, each name once, sorted by name."""
    return list({entry.name: entry for entry in sorted(entry_points(group=group))}.values())


def find_entry(group: str, name: str, kind: str, listing: str | None = None) -> EntryPoint:
    """The entry point of a name; see `unknown` for `kind` and `listing`.

    Raises:
        InputError: There is none.
    """
    found = {entry.name: entry for entry in entries(group)}
    if name not in found:
        raise unknown(kind, name, found, listing)
    return found[name]


def load_entry(entry: EntryPoint) -> Any:
    """Loads an entry point.

    Raises:
        InputError: The package cannot be imported, or does not define the name.
    """
    try:
        return entry.load()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise InputError(f"{describe_entry(entry)} cannot be loaded: {reason}.") from error


def describe_entry(entry: EntryPoint) -> str:
    """An entry point, as the subject of a sentence."""
    package = "" if entry.dist is None else f" of the package {entry.dist.name}"
    return f"The entry point {entry.name} = {entry.value!r} in {entry.group}{package}"
