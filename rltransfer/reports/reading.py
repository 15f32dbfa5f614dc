"""Runs that are found in directories, with what a report needs of each."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import category

import numpy as np

from rltransfer.aliases import with_current_names
from rltransfer.errors import InputError
from rltransfer.files.reading import is_folder, must_be_readable
from rltransfer.files.untrusted import DAMAGE, check_size, damage_refused, read_json
from rltransfer.metrics.curves import Curve
from rltransfer.runs.config import (
    SOURCES,
    read_config,
    with_default_method,
    with_default_options,
)
from rltransfer.runs.curves import CurvePoint
from rltransfer.runs.curves import curves as curve_points
from rltransfer.runs.folder import stored_result
from rltransfer.tasks.task import Suite

CURVES = {"evaluation": "evaluate/return/", "training": "rollout/return/"}
"""The curves of returns: greedy evaluations, and the episodes of training."""

UNPRINTABLE = ("Cc", "Cs")
"""Categories of characters that are not printed: controls, and halves of pairs."""

RETURNS = (
    "return_mean", "return_ci95", "episodes", "random_return_mean", "teacher_return_mean",
)  # fmt: skip
"""The numbers of a task in `result.json`."""


@dataclass(frozen=True)
class Source:
    """What a run learned from, e.g. a teacher or a run that its weights or prior began with."""

    kind: str
    """"teacher", "init_from", "distilled" or "columns"."""
    text: str
    """Where it comes from, as the user wrote it."""
    sha256: str = ""
    """Hash of its weights; empty if there is none."""


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run as a report sees it. All values come from files that somebody else may have written."""

    path: Path
    """The run's folder."""
    agent: str
    """Name of the method."""
    method: Mapping[str, Any]
    """The method's options."""
    suite: Suite
    """The tasks."""
    options: Mapping[str, Any]
    """The run's options."""
    sources: tuple[Source, ...]
    """What it learned from."""
    result: Mapping[str, Any]
    """`result.json`; empty if the run is not finished."""
    returns: Mapping[str, Mapping[str, float]]
    """The numbers of each task in the final evaluation."""
    curves: Mapping[str, Mapping[str, Curve]]
    """The returns of each task over steps, by the kinds in `CURVES`."""
    steps: int
    """Environment steps that were done, as far as the files show."""
    generation: int | None
    """Its number in a chain of generations; None for a single run."""
    weights: frozenset[str]
    """Hashes of the policies in its checkpoints."""

    @property
    def name(self) -> str:
        """The run's folder as text."""
        return printable(str(self.path))

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.options["seed"])

    @property
    def total_steps(self) -> int:
        """The environment steps that the run was started with."""
        return int(self.options["total_steps"])

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.result)

    @property
    def status(self) -> str:
        """Whether the run is finished, or where it was cut short."""
        if self.is_finished:
            return "finished"
        part = 100 * self.steps // max(self.total_steps, 1)
        return f"cut short at step {self.steps:,} of {self.total_steps:,} ({part} %)"


def find_runs(folders: Sequence[Path]) -> tuple[list[RunRecord], list[str]]:
    """All runs in some folders and the folders below.

    A chain of generations counts as the runs of its generations.

    Args:
        folders: The folders, each a run or a folder that contains runs somewhere below.

    Returns:
        The runs, each once, sorted by path; and a sentence for every run that cannot be read.

    Raises:
        InputError: A folder does not exist or contains no run, or all its runs are damaged.
    """
    runs: dict[Path, RunRecord] = {}
    wrong: list[str] = []
    for folder in folders:
        if not is_folder(folder):
            raise InputError(f"There is no folder {folder}: pass run directories, or their parent.")
        found = 0
        unreadable: list[str] = []
        for path in _run_folders(folder, unreadable):
            try:
                runs.setdefault(path.resolve(), read_run(path))
                found += 1
            except InputError as error:
                unreadable.append(printable(str(error)))
        if not found and unreadable:
            raise InputError(unreadable[0])
        if not found:
            raise InputError(
                f"{folder} contains no run: pass folders with runs of `rltransfer train`."
            )
        wrong += unreadable
    return sorted(runs.values(), key=lambda run: _natural(run.path)), list(dict.fromkeys(wrong))


def printable(text: str) -> str:
    """A text without what terminals and files do not take: control characters, half characters."""
    return "".join("\N{REPLACEMENT CHARACTER}" if category(c) in UNPRINTABLE else c for c in text)


def read_run(run_dir: Path) -> RunRecord:
    """Reads a run's configuration, result and curves.

    Raises:
        InputError: A file is damaged, exceeds the limit or may not be read.
    """
    config = read_config(run_dir)
    damaged = f"{run_dir} is not a complete run: its config.json is damaged."
    with damage_refused(damaged):
        current = _printable(with_current_names(dict(config)))
        suite = Suite.from_json(_printable(config["suite"]))
        if not isinstance(current["agent"], str):
            raise TypeError("The name of a method is text.")
        method = with_default_method(current["agent"], current["method"])
        options = with_default_options(current["options"])
        for name in ("seed", "total_steps"):
            if not isinstance(options[name], int) or not 0 <= options[name] < 10**18:
                raise ValueError(f"{name} is a whole number.")
        sources = tuple(_sources(current))
    result = stored_result(run_dir)
    points = _points(run_dir)
    by_tag: dict[str, list[CurvePoint]] = {}
    for point in points:
        by_tag.setdefault(point.tag, []).append(point)
    curves = {
        kind: {
            task: curve
            for task in suite.names()
            if len((curve := _curve(by_tag.get(f"{prefix}{task}", []))).steps)
        }
        for kind, prefix in CURVES.items()
    }
    return RunRecord(
        path=run_dir,
        agent=current["agent"],
        method=method,
        suite=suite,
        options=options,
        sources=sources,
        result=result,
        returns=_returns(result, suite.names()),
        curves=curves,
        steps=int(
            _number(result.get("env_steps")) or max((point.step for point in points), default=0)
        ),
        generation=_generation(run_dir),
        weights=frozenset(_weights(run_dir)),
    )


def _printable(value: Any) -> Any:
    """JSON in which every text is printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(name): _printable(part) for name, part in value.items()}
    return [_printable(part) for part in value] if isinstance(value, list) else value


def _run_folders(folder: Path, unreadable: list[str]) -> Iterator[Path]:
    """The folders with a run's configuration, a folder itself among them."""

    def report(error: OSError) -> None:
        unreadable.append(printable(f"{error.filename} cannot be read: {error.strerror}."))

    for here, below, files in os.walk(folder, onerror=report):
        below[:] = sorted(
            name for name in below if name != "checkpoints" and not name.startswith(".")
        )
        if "config.json" in files and _is_run(Path(here)):
            yield Path(here)


def _is_run(folder: Path) -> bool:
    """Whether a configuration is that of a run: not of several runs, and not of another program.

    A damaged one counts as a run, so that it is named.
    """
    try:
        config = read_json(folder / "config.json")
    except DAMAGE:
        return True
    if not isinstance(config, dict) or "agent" not in config:
        return False
    return not config.get("generations") and not config.get("sequential")


def _sources(config: Mapping[str, Any]) -> Iterator[Source]:
    begun = config.get("init_from") or config["options"].get("init_from")
    if isinstance(begun, str):
        begun = {"source": begun}
    if isinstance(begun, dict) and isinstance(begun.get("source"), str):
        yield Source("init_from", begun["source"], str(begun.get("sha256") or ""))
    teachers = list(_leaves(config.get("teacher")))
    text = config["method"].get("teacher")
    if isinstance(text, str) and not teachers:
        teachers = [Source("teacher", text)]  # the configuration of an earlier version
    yield from teachers
    distilled = config["method"].get("distilled")
    if isinstance(distilled, str) and distilled:
        yield Source("distilled", distilled)
    yield from _columns(config)


def _columns(config: Mapping[str, Any]) -> Iterator[Source]:
    """The earlier columns of a progressive network; those of the method lack a hash."""
    known = {
        one["source"]: str(one.get("sha256") or "")
        for one in config.get(SOURCES) or ()
        if isinstance(one["source"], str)
    }
    columns = config["method"].get("columns")
    for text in columns if isinstance(columns, list) else ():
        if isinstance(text, str):
            yield Source("columns", text, known.get(text, ""))


def _leaves(description: Any) -> Iterator[Source]:
    """The single teachers in the JSON of `Teacher.describe`, in their order."""
    if isinstance(description, list):
        for part in description:
            yield from _leaves(part)
    elif isinstance(description, dict):
        parts = [description[name] for name in ("members", "per_task") if name in description]
        if not parts and isinstance(description.get("source"), str):
            yield Source("teacher", description["source"], str(description.get("sha256") or ""))
        for part in parts:
            yield from _leaves(list(part.values()) if isinstance(part, dict) else part)


def _points(run_dir: Path) -> list[CurvePoint]:
    """All points of a run's curves.

    Raises:
        InputError: An event file exceeds the limit or may not be read.
    """
    with must_be_readable():
        for path in run_dir.glob("events.out.tfevents.*"):
            check_size(path.stat().st_size, path)
    return curve_points(run_dir)


def _curve(points: Sequence[CurvePoint]) -> Curve:
    """The finite points of a curve; of several at one step, the last."""
    known = {point.step: point.value for point in points if math.isfinite(point.value)}
    steps = np.array(sorted(known), dtype=np.float64)
    return Curve(steps, np.array([known[step] for step in sorted(known)], dtype=np.float64))


def _returns(result: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    rows = result.get("tasks", {})
    found = {}
    for task in tasks:
        row = rows.get(task)
        numbers = (
            {name: _number(row.get(name)) for name in RETURNS} if isinstance(row, dict) else {}
        )
        known = {name: number for name, number in numbers.items() if number is not None}
        if "return_mean" in known:
            found[task] = known
    return found


def _number(value: Any) -> float | None:
    """A finite number from a file; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _generation(run_dir: Path) -> int | None:
    name, dash, number = run_dir.name.partition("-")
    is_generation = name == "generation" and dash and number.isdecimal() and number.isascii()
    chain = run_dir.parent / "config.json"
    if not is_generation or len(number) > 9 or not chain.is_file() or _is_run(run_dir.parent):
        return None
    return int(number)


def _weights(run_dir: Path) -> Iterator[str]:
    """The hashes of the policies in a run's checkpoints."""
    for path in sorted(run_dir.glob("checkpoints/*/sha256.json")):
        try:
            found = read_json(path)["policy.safetensors"]
        except DAMAGE:
            continue
        if isinstance(found, str):
            yield found


def _natural(path: Path) -> list[str | int]:
    """Sorts run-2 before run-10."""
    parts = re.split(r"([0-9]+)", str(path))
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]
