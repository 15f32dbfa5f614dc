"""The installed methods, found through the entry points of the group `rltransfer.agents`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rltransfer.entry_points import describe_entry, entries, find_entry, load_entry, summarize
from rltransfer.errors import InputError

if TYPE_CHECKING:
    from rltransfer.learning.agent import Method


GROUP = "rltransfer.agents"


def method_names() -> list[str]:
    """The names of the installed methods; none is loaded."""
    return [entry.name for entry in entries(GROUP)]


def summarize_method(name: str) -> str:
    """The description of the method of this name, in a line; it is not loaded."""
    return summarize(find_entry(GROUP, name, "agent"))


def find_method(name: str) -> type[Method]:
    """Loads the method of this name.

    Raises:
        InputError: There is none, or it cannot be loaded.
    """
    entry = find_entry(GROUP, name, "agent", "rltransfer list")
    method: type[Method] = load_entry(entry)
    if not (isinstance(method, type) and hasattr(method, "build")):
        raise InputError(f"{describe_entry(entry)} is not a Method: it must be a class.")
    return method


def method_name(method: type[Method]) -> str:
    """The name that a method is installed under, or that of its class."""
    for entry in entries(GROUP):
        if entry.value == f"{method.__module__}:{method.__qualname__}":
            return entry.name
    return method.__name__
