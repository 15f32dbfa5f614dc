"""The installed methods, found through the entry points of the group `rltransfer.agents`."""

from __future__ import annotations

from rltransfer.entry_points import describe_entry, entries, load_entry
from rltransfer.errors import InputError, unknown
from rltransfer.learning.agent import Method


def method_names() -> list[str]:
    """Returns the names of the installed methods."""
    return [entry.name for entry in entries("rltransfer.agents")]


def find_method(name: str) -> type[Method]:
    """Returns the method of this name.

    Raises:
        InputError: There is none.
    """
    for entry in entries("rltransfer.agents"):
        if entry.name == name:
            method: type[Method] = load_entry(entry)
            if not (isinstance(method, type) and hasattr(method, "build")):
                raise InputError(
                    f"{describe_entry(entry)} is no Method: it must be a class of one."
                )
            return method
    raise unknown("agent", name, method_names(), "rltransfer list")


def method_name(method: type[Method]) -> str:
    """Returns the name that a method is installed under, or its class's."""
    for entry in entries("rltransfer.agents"):
        if entry.value == f"{method.__module__}:{method.__qualname__}":
            return entry.name
    return method.__name__
