"""The base of the experiments that train with several seeds and write a page."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltransfer.experiments.common.checks import check_options, page_folder
from rltransfer.experiments.common.page import Page, format_command, format_cost
from rltransfer.experiments.common.trials import Trial, run_trials
from rltransfer.machine.terminal import console


@dataclass(frozen=True, kw_only=True)
class PaperExperiment(abc.ABC):
    """Options that the experiments share, and their `run`.

    A subclass sets `steps` and `out` (runs/NAME), adds options and implements `make_page`.
    """

    seeds: int = 5
    """Number of seeds per configuration, counted from 0."""
    steps: int
    """Environment steps of each run."""
    jobs: int = 0
    """Number of trials to run at once; 0 means one per core."""
    out: Path = Path("runs")
    """Folder for the runs."""
    results: Path | None = None
    """Folder for the page, its pictures and its data; defaults to the folder of the runs."""

    def __post_init__(self) -> None:
        check_options(self)

    def run(self) -> None:
        """Runs what is not finished yet, and writes the page."""
        folder = page_folder(self.results, self.out)
        page = self.make_page()
        if page is not None:
            page.write(folder)
            console().print(f"written: {folder / 'RESULTS.md'}", highlight=False)

    @abc.abstractmethod
    def make_page(self) -> Page | None:
        """Runs what is not finished yet, and builds the page from all results, if there are any."""

    def run_trials(self, trials: Sequence[Trial]) -> dict[str, dict[str, Any]]:
        """Runs the trials that are not finished yet, and returns all results by name."""
        return run_trials(trials, self.out, self.jobs)

    @property
    def seed_count(self) -> str:
        """The number of seeds in words: "1 seed" or "5 seeds"."""
        return f"{self.seeds} seed" if self.seeds == 1 else f"{self.seeds} seeds"

    def option_values(self, *names: str) -> dict[str, Any]:
        """The values of some options, for `results.json`."""
        return {name: getattr(self, name) for name in names}

    def command(self) -> str:
        """The command that repeats the experiment."""
        return format_command(type(self).out.name, self)

    def footer(self, results: Collection[Mapping[str, Any]]) -> str:
        """The end of the page: what the runs cost, and the command that repeats them."""
        return f"{format_cost(results)}\n\n    {self.command()}"
