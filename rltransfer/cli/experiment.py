"""Experiments, found through the entry points of the group `rltransfer.experiments`."""

from __future__ import annotations

from typing import Protocol

from rltransfer.cli.parsing import check_no_more, parse
from rltransfer.entry_points import entries, load_entry
from rltransfer.errors import InputError, unknown
from rltransfer.machine.terminal import ignore_closed_pipe


def experiment_command(words: list[str]) -> None:
    """Lists the experiments, or runs one."""
    if words[:1] == ["list"]:
        check_no_more(words[1:], "experiment list")
        with ignore_closed_pipe():
            for name, entry in experiments().items():
                print(f"{name}: {(entry.__doc__ or '').splitlines()[0]}")
    elif words[:1] == ["run"] and len(words) > 1:
        kind = find_experiment(words[1])
        parse(kind, words[2:], f"rltransfer experiment run {words[1]}").run()
    else:
        raise InputError("Say `rltransfer experiment list` or `rltransfer experiment run NAME`.")


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
