"""Runs a pair's sides in turn, each time in a fresh process, and keeps every number."""

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
"""Packages that every comparison tells the version of, beside those that its sides need."""

TRIAL_SEED = 1000
"""Seed of the runs by which the number of threads is chosen; no repetition has it."""


def compare(
    pair: Pair, repeats: int, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Measures a pair and returns what came out, as JSON.

    Args:
        pair: What is compared.
        repeats: How often each side is run; seeds count from 0.
        tell: Is told each number as it comes.

    Raises:
        InputError: A side fails.
    """
    sides = [settled(pair, side, tell) for side in (pair.ours, pair.peer) if side]
    said: list[list[dict[str, Any]]] = [[] for _ in sides]
    values: list[list[float]] = [[] for _ in sides]
    for repeat in range(repeats):
        for index, side in enumerate(sides):
            output = run_side(pair, side, repeat)
            said[index].append(output)
            values[index].append(_number(pair, side, output))
            tell(
                f"{pair.name} {repeat + 1}/{repeats}, {side.name}: "
                f"{figure(values[index][-1])} {pair.unit}"
            )
    ours, peer = values[0], values[1] if len(values) > 1 else []
    ratio = pair.median_ratio(ours, peer)
    told = [
        {"name": side.name, "command": shown(pair, side), **_spread(numbers), "said": outputs}
        for side, numbers, outputs in zip(sides, values, said, strict=True)
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
        "ours": told[0],
        "peer": told[1] if pair.peer else None,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(torch.device("cpu")),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in packages},
    }


def settled(pair: Pair, side: Side, tell: Callable[[str], None] = lambda line: None) -> Side:
    """Returns a side with the number of torch's threads that it is better with, one or all.

    Small networks, and cores that have other work, are often faster with one: each side is tried
    with both, once, before anything counts.
    """
    if not pair.tries_threads:
        return side
    tried = {}
    for threads in sorted({1, torch.get_num_threads()}):
        one = replace(side, command=(*side.command, "--threads", str(threads)))
        tried[one] = _number(pair, one, run_side(pair, one, TRIAL_SEED))
        tell(f"{pair.name}, {side.name} with {threads} threads: {figure(tried[one])} {pair.unit}")
    return (min if pair.lower_is_better else max)(tried, key=lambda one: tried[one])


def run_side(pair: Pair, side: Side, seed: int) -> dict[str, Any]:
    """Runs one side in a process of its own and returns the line of JSON that it ends with.

    Args:
        pair: Whose side it is.
        side: What is run.
        seed: Its seed, where the pair has one a repetition.

    Raises:
        InputError: It fails, or says something else.
    """
    seeded = ("--seed", str(seed)) if pair.seeded else ()
    done = subprocess.run(
        [sys.executable, *side.command, *seeded], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = ["it said nothing", *done.stderr.strip().splitlines()][-1]
        raise InputError(f"The side {side.name!r} of the pair {pair.name!r} failed: {reason}")
    last = ["", *done.stdout.strip().splitlines()][-1]
    try:
        found: dict[str, Any] = json.loads(last)
    except json.JSONDecodeError as error:
        raise InputError(
            f"The side {side.name!r} of the pair {pair.name!r} must end with a line of JSON, "
            f"but it says {last!r}."
        ) from error
    return found


def _number(pair: Pair, side: Side, output: dict[str, Any]) -> float:
    """Returns the number that counts of what a side said."""
    found: Any = output
    for name in side.key:
        if not isinstance(found, dict) or name not in found:
            raise InputError(
                f"The side {side.name!r} of the pair {pair.name!r} does not say "
                f"{'.'.join(side.key)!r}."
            )
        found = found[name]
    return float(found)


def _spread(values: list[float]) -> dict[str, Any]:
    """Returns the median, the range and all of some numbers, as JSON."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": values,
    }


def shown(pair: Pair, side: Side) -> str:
    """Returns a side's command line, as one would type it."""
    seed = " --seed REPETITION" if pair.seeded else ""
    return "python " + " ".join(side.command) + seed
