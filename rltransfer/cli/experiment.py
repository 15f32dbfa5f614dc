"""`rltransfer experiment`: experiments are entry points of the group `rltransfer.experiments`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Protocol

from rltransfer.cli.parsing import choose, parse
from rltransfer.entry_points import entries, find_entry, load_entry, summarize

GROUP = "rltransfer.experiments"
ACTIONS = {"list": "List the experiments.", "run": "Run an experiment."}


@dataclass(frozen=True)
class NoOptions:
    """List the experiments."""


def run(words: list[str]) -> None:
    """Lists the experiments, or runs one."""
    about = "List the experiments behind the published results, or run one."
    action, rest = choose(
        "command", ACTIONS, words, "rltransfer experiment", about, ACTIONS.__getitem__
    )
    prog = f"rltransfer experiment {action}"
    if action == "list":
        parse(NoOptions, rest, prog)
        for entry in entries(GROUP):
            print(f"{entry.name}: {summarize(entry)}")
        return
    name, options = choose(
        "experiment", experiment_names(), rest, prog, "Run an experiment.",
        lambda name: summarize(_entry(name)),
    )  # fmt: skip
    parse(find_experiment(name), options, f"{prog} {name}").run()


class Experiment(Protocol):
    """A dataclass whose fields are its options."""

    def run(self) -> None:
        """Runs the experiment and prints the results."""


def experiment_names() -> list[str]:
    """The name of every installed experiment; none is loaded."""
    return [entry.name for entry in entries(GROUP)]


def find_experiment(name: str) -> type[Experiment]:
    """Loads the experiment of this name.

    Raises:
        InputError: There is none, or it cannot be loaded.
    """
    experiment: type[Experiment] = load_entry(_entry(name))
    return experiment


def _entry(name: str) -> EntryPoint:
    return find_entry(GROUP, name, "experiment")
