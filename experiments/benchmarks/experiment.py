"""Benchmarks: rltransfer compared with its peers, on the same cores, at the same time.

    rltransfer experiment run benchmarks --pairs ppo-minatar-8 teachers-five
    rltransfer experiment run benchmarks --curves

The sides of a pair run in turn (A B A B ..., A is rltransfer, B the peer), each time in a fresh
process that prints its speed as a line of JSON. Machines are noisy, so only ratios of numbers that
were measured in turn are meaningful. `results/` contains one file per pair. RESULTS.md is written
from these files each time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rltransfer.errors import InputError
from rltransfer.files.atomic import write_text_whole
from rltransfer.machine.terminal import console

from .compare import compare
from .curves import Curves
from .pairs import find_pairs
from .results import CURVES, terminal_table, write_report

FOLDER = Path(__file__).parent
"""Folder of RESULTS.md."""


@dataclass(frozen=True, kw_only=True)
class Benchmarks:
    """Measures rltransfer and its peers in turn, and writes the results."""

    pairs: tuple[str, ...] = ()
    """Names of the pairs to measure; all pairs by default."""
    repeats: int = 5
    """Number of runs of each side."""
    curves: bool = False
    """Measure speed over the number of environments and tasks; pairs are then measured only if they
    are named."""
    out: Path | None = None
    """Folder for the numbers, next to RESULTS.md; defaults to `results/` in the repository."""

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise InputError(f"repeats is {self.repeats}: it must be at least 1.")

    def run(self) -> None:
        """Runs the measurements, prints a table, and writes the numbers and RESULTS.md."""
        pairs = find_pairs(self.pairs) if self.pairs or not self.curves else []
        folder = self.out or FOLDER / "results"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
        results = []
        for pair in pairs:
            results.append(compare(pair, self.repeats, _print_line))
            self._write(folder, f"{pair.name}.json", results[-1])
        if self.curves:
            self._write(folder, CURVES, Curves().run(_print_line))
        if results:
            console().print(terminal_table(results))
        _print_line(f"written: {folder} and {_report(folder)}")

    def _write(self, folder: Path, name: str, found: object) -> None:
        """Writes one file and RESULTS.md, so that a later failure loses nothing."""
        write_text_whole(folder / name, json.dumps(found, indent=1) + "\n")
        write_report(folder, _report(folder))


def _report(folder: Path) -> Path:
    return folder.parent / "RESULTS.md"


def _print_line(line: str) -> None:
    console().print(line, highlight=False, soft_wrap=True)
