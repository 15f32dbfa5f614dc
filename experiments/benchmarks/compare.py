"""Runs the two sides of a pair in turn, each time in a fresh process, and stores every number."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from rltransfer.errors import InputError
from rltransfer.machine.hardware import hardware

from .pairs import Pair, Side
from .results import figure

PACKAGES = ("rltransfer", "torch", "numpy", "gymnasium", "warp-lang", "ale-py", "stable-baselines3")
"""Packages whose version is stored with every comparison, besides those that its sides need."""

TRIAL_SEED = 1000
"""Seed of the runs that choose the number of threads; no repetition uses it."""


def compare(
    pair: Pair, repeats: int, report: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Measures a pair and returns the results as JSON.

    Args:
        pair: The pair to compare.
        repeats: Number of runs of each side; seeds count from 0.
        report: Called with a line for each number.

    Raises:
        InputError: A side fails.
    """
    sides = [with_best_threads(pair, side, report) for side in (pair.ours, pair.peer) if side]
    outputs: list[list[dict[str, Any]]] = [[] for _ in sides]
    values: list[list[float]] = [[] for _ in sides]
    for repeat in range(repeats):
        for index, side in enumerate(sides):
            output = run_side(pair, side, repeat)
            outputs[index].append(output)
            values[index].append(_number(pair, side, output))
            report(
                f"{pair.name} {repeat + 1}/{repeats}, {side.name}: "
                f"{figure(values[index][-1])} {pair.unit}"
            )
    ours, peer = values[0], values[1] if len(values) > 1 else []
    ratio = pair.median_ratio(ours, peer)
    results = [
        {
            "name": side.name,
            "command": format_command(pair, side),
            **_spread(numbers),
            "said": lines,
        }
        for side, numbers, lines in zip(sides, values, outputs, strict=True)
    ]
    packages = dict.fromkeys((*PACKAGES, *(name for side in sides for name in side.packages)))
    return {
        "pair": pair.name,
        "what": pair.what,
        "unit": pair.unit,
        "repeats": repeats,
        "bar": pair.bar,
        "at_most": pair.at_most,
        "met": pair.met(ratio),
        "ratio": {**_spread(pair.ratios(ours, peer)), "median": ratio},
        "ours": results[0],
        "peer": results[1] if pair.peer else None,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(torch.device("cpu")),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in packages},
    }


def with_best_threads(pair: Pair, side: Side, report: Callable[[str], None]) -> Side:
    """A side with the better number of torch threads, one or all.

    Small networks, and cores with other work, are often faster with one thread. Each side runs once
    with each number before the measurement.
    """
    if not pair.tries_threads:
        return side
    tried = {}
    for threads in sorted({1, torch.get_num_threads()}):
        one = replace(side, command=(*side.command, "--threads", str(threads)))
        tried[one] = _number(pair, one, run_side(pair, one, TRIAL_SEED))
        report(f"{pair.name}, {side.name} with {threads} threads: {figure(tried[one])} {pair.unit}")
    return (min if pair.lower_is_better else max)(tried, key=lambda one: tried[one])


def run_side(pair: Pair, side: Side, seed: int) -> dict[str, Any]:
    """Runs one side in a separate process and returns the JSON of its last line.

    Args:
        pair: The side's pair.
        side: The side to run.
        seed: Its seed, if the pair has one seed per repetition.

    Raises:
        InputError: The side fails, or its last line is not JSON.
    """
    seeded = ("--seed", str(seed)) if pair.seeded else ()
    command = [sys.executable, *side.command, *seeded]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = ["it printed nothing", *done.stderr.strip().splitlines()][-1]
        raise InputError(f"The side {side.name!r} of the pair {pair.name!r} failed: {reason}")
    last = ["", *done.stdout.strip().splitlines()][-1]
    try:
        found: dict[str, Any] = json.loads(last)
    except json.JSONDecodeError as error:
        raise InputError(
            f"The side {side.name!r} of the pair {pair.name!r} must end with a line of JSON, "
            f"but it ends with {last!r}."
        ) from error
    return found


def _number(pair: Pair, side: Side, output: dict[str, Any]) -> float:
    found: Any = output
    for name in side.key:
        if not isinstance(found, dict) or name not in found:
            raise InputError(
                f"The side {side.name!r} of the pair {pair.name!r} does not output "
                f"{'.'.join(side.key)!r}."
            )
        found = found[name]
    return float(found)


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": values,
    }


def format_command(pair: Pair, side: Side) -> str:
    """A side's command line."""
    seed = " --seed REPETITION" if pair.seeded else ""
    return "python " + " ".join(side.command) + seed
