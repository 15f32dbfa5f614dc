"""Experiments, found through the entry points of the group `rltransfer.experiments`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Protocol

from rltransfer.errors import unknown


class Experiment(Protocol):
    """A dataclass whose fields are its options."""

    def run(self) -> None:
        """Runs the experiment and prints what came out."""


def experiments() -> dict[str, type[Experiment]]:
    """Returns every installed experiment by name."""
    found = sorted(entry_points(group="rltransfer.experiments"))
    return {entry.name: entry.load() for entry in found}


def find_experiment(name: str) -> type[Experiment]:
    """Returns the experiment of this name.

    Raises:
        InputError: There is none.
    """
    known = experiments()
    if name not in known:
        raise unknown("experiment", name, known)
    return known[name]
