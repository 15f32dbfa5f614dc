"""Result pages: the text with its tables, the data behind it, and pictures."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rltransfer.experiments.common.trials import THREADS
from rltransfer.machine.devices import find_device
from rltransfer.machine.hardware import hardware

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOCATIONS = ("jobs", "out", "results")
"""Options that set where something is computed or written, not what."""

DPI = 120
"""Resolution of pictures."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """The contents of an experiment's page."""

    text: str
    """`RESULTS.md`."""
    data: Mapping[str, Any]
    """`results.json`: everything that the text is built from."""
    pictures: Mapping[str, Figure] = field(default_factory=dict)
    """Pictures by file name."""

    def write(self, folder: Path) -> None:
        """Writes all files of the page."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "RESULTS.md").write_text(self.text.rstrip() + "\n")
        data = json.dumps(self.data, indent=1, allow_nan=False)
        (folder / "results.json").write_text(data + "\n")
        for name, figure in self.pictures.items():
            figure.savefig(folder / name, dpi=DPI)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def format_parameters(results: Iterable[Mapping[str, Any]]) -> str:
    """The distinct parameter counts of some runs' policies."""
    counts = sorted({result["student_parameters"] for result in results})
    return " or ".join(f"{count:,}" for count in counts)


def format_hardware(results: Iterable[Mapping[str, Any]]) -> str:
    """The distinct machines of some runs.

    Args:
        results: The runs' results. Earlier versions did not store the machine: then this one is
            assumed.
    """
    here = hardware(find_device("auto"))
    machines = [result.get("hardware", here) for result in results]
    texts = [
        f"{one['device']}, {one['cores']} cores, Python {one['python']}, "
        f"torch {one['torch'].split('+')[0]}"
        for one in machines
    ]
    return "; ".join(dict.fromkeys(texts))


def format_cost(results: Collection[Mapping[str, Any]]) -> str:
    """The number of runs, their training time and their hardware."""
    minutes = sum(result["wall_seconds"] for result in results) / 60
    threads = "one thread per run; " if THREADS == 1 else ""
    return f"{len(results)} runs, {minutes:.0f} minutes of training; {threads}" + (
        f"{format_hardware(results)}."
    )


def format_command(name: str, experiment: Any) -> str:
    """The command that repeats an experiment, with every option that is not its default.

    Args:
        name: The experiment's name on the command line.
        experiment: Its options, a dataclass.
    """
    words = ["rltransfer", "experiment", "run", name]
    for option in fields(experiment):
        value = getattr(experiment, option.name)
        if option.name in LOCATIONS or value == option.default:
            continue
        values = value if isinstance(value, tuple) else (value,)
        flag = f"--{option.name.replace('_', '-')}"
        words += [flag, *(f"{one:g}" if isinstance(one, float) else str(one) for one in values)]
    return shlex.join(words)


def sizes_and_times(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Parameter counts and training time of each run, for `results.json`."""
    keys = ("student_parameters", "teacher_parameters", "wall_seconds")
    return {name: {key: result[key] for key in keys} for name, result in results.items()}
