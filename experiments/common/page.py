"""Summaries of trials: ratios to a teacher with intervals over seeds, tables, pictures."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rltransfer.experiments.common.trials import THREADS
from rltransfer.machine.devices import find_device
from rltransfer.machine.hardware import hardware

WHERE = ("jobs", "out", "results")
"""Options of experiments that say where something is computed or written, and not what."""


def format_parameters(results: Iterable[Mapping[str, Any]]) -> str:
    """Returns the numbers of parameters of some runs' policies, each once."""
    counts = sorted({result["student_parameters"] for result in results})
    return " or ".join(f"{count:,}" for count in counts)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def format_hardware(results: Iterable[Mapping[str, Any]]) -> str:
    """Returns the machines of some runs in words, each once.

    Args:
        results: The runs' results. One that names no machine is of an earlier version, and counts
            as this machine's.
    """
    here = hardware(find_device("auto"))
    machines = [result.get("hardware", here) for result in results]
    told = [
        f"{one['device']}, {one['cores']} cores, Python {one['python']}, "
        f"torch {one['torch'].split('+')[0]}"
        for one in machines
    ]
    return "; ".join(dict.fromkeys(told))


def footer(name: str, experiment: Any, results: Collection[Mapping[str, Any]]) -> str:
    """Returns what an experiment has cost, and the command that repeats it, for its page.

    Args:
        name: The experiment's, as the command line knows it.
        experiment: Its options, a dataclass.
        results: Those of all runs.
    """
    minutes = sum(result["wall_seconds"] for result in results) / 60
    threads = "one thread a run; " if THREADS == 1 else ""
    return f"""\
{len(results)} runs, {minutes:.0f} minutes of training; {threads}{format_hardware(results)}.

    {format_command(name, experiment)}"""


def format_command(name: str, experiment: Any) -> str:
    """Returns the command that repeats an experiment: every option that is not its default.

    Args:
        name: The experiment's, as the command line knows it.
        experiment: Its options, a dataclass.
    """
    words = ["rltransfer", "experiment", "run", name]
    for field in fields(experiment):
        value = getattr(experiment, field.name)
        if field.name in WHERE or value == field.default:
            continue
        values = value if isinstance(value, tuple) else (value,)
        flag = f"--{field.name.replace('_', '-')}"
        words += [flag, *(f"{one:g}" if isinstance(one, float) else str(one) for one in values)]
    return shlex.join(words)


def write_results(folder: Path, text: str, data: Mapping[str, Any]) -> None:
    """Writes `RESULTS.md` and `results.json`.

    Args:
        folder: Where to.
        text: The page.
        data: Everything that it was made from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RESULTS.md").write_text(text.rstrip() + "\n")
    (folder / "results.json").write_text(json.dumps(data, indent=1, allow_nan=False) + "\n")
