"""Benchmarks: rltransfer beside its peers, on the same cores, in the same minutes.

    rltransfer experiment run benchmarks --pairs ppo-minatar-8 teachers-five
    rltransfer experiment run benchmarks --curves

Each pair is measured A B A B ..., A ours and B the peer's, every side in a fresh process that says
its speed in a line of JSON. Machines are noisy: only ratios of numbers that were taken side by side
mean anything. What came out is in `results/`, one file a pair, and in RESULTS.md, which is written
anew from those files each time.
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
"""Where RESULTS.md lies."""


@dataclass(frozen=True, kw_only=True)
class Benchmarks:
    """Measures rltransfer beside its peers, side by side, and writes what came out."""

    pairs: tuple[str, ...] = ()
    """The pairs; all of them if none is named."""
    repeats: int = 5
    """How often each side is run."""
    curves: bool = False
    """Whether to measure over the numbers of environments and tasks; then only named pairs are."""
    out: Path | None = None
    """Folder for the numbers, RESULTS.md goes beside it; those of the repository if not given."""

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise InputError(f"repeats is {self.repeats}: it must be at least 1.")

    def run(self) -> None:
        """Measures, prints a table, and writes the numbers and RESULTS.md."""
        pairs = find_pairs(self.pairs) if self.pairs or not self.curves else []
        folder = self.out or FOLDER / "results"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
        results = []
        for pair in pairs:
            results.append(compare(pair, self.repeats, _tell))
            self._write(folder, f"{pair.name}.json", results[-1])
        if self.curves:
            self._write(folder, CURVES, Curves().run(_tell))
        if results:
            console().print(terminal_table(results))
        _tell(f"written to {folder} and {_report(folder)}")

    def _write(self, folder: Path, name: str, found: object) -> None:
        """Writes one file and RESULTS.md, so that what is measured stays, whatever comes next."""
        write_text_whole(folder / name, json.dumps(found, indent=1) + "\n")
        write_report(folder, _report(folder))


def _report(folder: Path) -> Path:
    """Returns where RESULTS.md goes."""
    return folder.parent / "RESULTS.md"


def _tell(line: str) -> None:
    """Prints a line of progress."""
    console().print(line, highlight=False, soft_wrap=True)
