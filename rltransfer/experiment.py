"""Experiments, found through the entry points of the group `rltransfer.experiments`."""

from __future__ import annotations

from typing import Protocol

from rltransfer.errors import unknown
from rltransfer.registry import entries, load_entry


class Experiment(Protocol):
    """A dataclass whose fields are its options."""

    def run(self) -> None:
        """Runs the experiment and prints what came out."""


def experiments() -> dict[str, type[Experiment]]:
    """Returns every installed experiment by name."""
    return {entry.name: load_entry(entry) for entry in entries("rltransfer.experiments")}


def experiment_names() -> list[str]:
    """Returns the name of every installed experiment, of which none is loaded."""
    return [entry.name for entry in entries("rltransfer.experiments")]


def find_experiment(name: str) -> type[Experiment]:
    """Returns the experiment of this name.

    Raises:
        InputError: There is none, or it cannot be loaded.
    """
    for entry in entries("rltransfer.experiments"):
        if entry.name == name:
            experiment: type[Experiment] = load_entry(entry)
            return experiment
    raise unknown("experiment", name, experiment_names())
