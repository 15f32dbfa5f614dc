"""Results: tables for the terminal, and RESULTS.md from the stored JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from rltransfer.files.atomic import write_text_whole

from .pairs import ENVS, ENVS_MEAN_BAR, PAIRS

CURVES = "curves.json"
"""File of the curves, next to those of the pairs."""
NOTES = "NOTES.md"
"""A hand-written file next to RESULTS.md."""

HEAD = """\
# Benchmarks

Written by `rltransfer experiment run benchmarks` from the files in `{folder}/`; do not edit this
file. The two sides of a pair ran in turn (A B A B ...), each time in a fresh process on the same
cores.

- The ratio is how many times better rltransfer is: its steps per second over the peer's, or the
  peer's seconds over its seconds. Where the bar is a maximum, it is rltransfer's number itself.
- It is the median over the repetitions, with the range. If each repetition has a different seed, as
  in training until a return, it is the ratio of the medians, and the range covers every run of one
  side against every run of the other.
- If both sides use torch, each runs with one thread or with all, whichever was faster in a first
  run that is not counted.

"""


def figure(value: float) -> str:
    """A number as text, with at least three digits."""
    if value >= 1e6:
        return f"{value / 1e6:.4g} M"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def ratio_text(result: dict[str, Any]) -> str:
    """A ratio with its range."""
    ratio = result["ratio"]
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def bar_text(result: dict[str, Any]) -> str:
    """A bar as text."""
    return f"{'at most' if result['at_most'] else 'at least'} {result['bar']:g}"


def side_text(side: dict[str, Any] | None, unit: str) -> str:
    """A side's median with its range; empty without a peer."""
    if side is None:
        return ""
    low, high = figure(side["min"]), figure(side["max"])
    return f"{figure(side['median'])} {unit} ({low} to {high})"


def cells(result: dict[str, Any]) -> list[str]:
    """A pair's cells in a table: bar, ratio, whether the bar is met, both sides."""
    return [
        bar_text(result),
        ratio_text(result),
        "yes" if result["met"] else "NO",
        side_text(result["ours"], result["unit"]),
        side_text(result["peer"], result["unit"]),
    ]


def terminal_table(results: Sequence[dict[str, Any]]) -> Table:
    """A table with one row per pair."""
    table = Table("pair", "bar", "ratio", "met", "rltransfer", "peer")
    for result in results:
        table.add_row(result["pair"], *cells(result))
    return table


def stored_results(folder: Path) -> list[dict[str, Any]]:
    """The contents of every pair's file, in the order of `PAIRS`."""
    paths = sorted(folder.glob("*.json"))
    found = [json.loads(path.read_text()) for path in paths if path.name != CURVES]
    order = {name: index for index, name in enumerate(PAIRS)}
    return sorted(found, key=lambda one: order.get(one["pair"], len(order)))


def write_report(folder: Path, path: Path) -> None:
    """Writes RESULTS.md from everything that is stored.

    Args:
        folder: Folder of the JSON files.
        path: The file; NOTES.md next to it is appended.
    """
    results = stored_results(folder)
    curves, notes = folder / CURVES, path.with_name(NOTES)
    parts = [HEAD.format(folder=folder.name)]
    if results:
        parts += [_hardware(results), _pairs(results)]
    if curves.is_file():
        parts.append(_curves(json.loads(curves.read_text())))
    if notes.is_file():
        parts.append(f"## What fell short, and why\n\n{notes.read_text().strip()}\n")
    write_text_whole(path, "\n".join(part.rstrip("\n") + "\n" for part in parts))


def _hardware(results: Sequence[dict[str, Any]]) -> str:
    machines: dict[str, list[str]] = {}
    versions: dict[str, dict[str, None]] = {}
    for result in results:
        machines.setdefault(_machine(result), []).append(result["pair"])
        for name, one in result["versions"].items():
            versions.setdefault(name, {})[one] = None
    lines = [
        f"- {machine}" + (f": {', '.join(pairs)}" if len(machines) > 1 else "")
        for machine, pairs in machines.items()
    ]
    days = sorted(result["date"][:10] for result in results)
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    used = ", ".join(f"{name} {' and '.join(found)}" for name, found in versions.items())
    return "\n".join(["## Hardware and versions", "", *lines, f"- measured {when}", f"- {used}"])


def _machine(result: dict[str, Any]) -> str:
    hardware = result["hardware"]
    return (
        f"{hardware['device']}, {hardware['cores']} cores, "
        f"at most {hardware['threads']} torch threads"
    )


def _pairs(results: Sequence[dict[str, Any]]) -> str:
    lines = [
        "## Pairs",
        "",
        "| what | compared with | bar | ratio | met | rltransfer | peer | repetitions | command |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        against = result["peer"]["name"] if result["peer"] else "itself"
        repeats = result["repeats"]
        command = (
            f"`rltransfer experiment run benchmarks --pairs {result['pair']} --repeats {repeats}`"
        )
        row = [result["what"], against, *cells(result), str(repeats), command]
        lines.append(f"| {' | '.join(row)} |")
    lines += _geometric_mean(results)
    return "\n".join(lines)


def _geometric_mean(results: Sequence[dict[str, Any]]) -> list[str]:
    games = [result for result in results if result["pair"].startswith(ENVS)]
    if len(games) < sum(name.startswith(ENVS) for name in PAIRS):
        return []
    mean = statistics.geometric_mean(game["ratio"]["median"] for game in games)
    row = [
        f"geometric mean of MinAtar's {len(games)} games",
        games[0]["peer"]["name"],
        f"at least {ENVS_MEAN_BAR:g}",
        f"{mean:.2f}",
        "yes" if mean >= ENVS_MEAN_BAR else "NO",
        *[""] * 4,
    ]
    return [f"| {' | '.join(row)} |"]


def _curves(curves: dict[str, Any]) -> str:
    hardware = curves["hardware"]
    lines = [
        "## Curves",
        "",
        f"Environment steps per second, medians of {curves['repeats']} repetitions with the range: "
        f"environments only with random actions, and with an acting policy (3x3 convolution, 128 "
        f"units). {hardware['device']}, {hardware['cores']} cores, {hardware['threads']} threads, "
        f"{curves['date'][:10]}; `rltransfer experiment run benchmarks --curves`.",
        "",
        f"| environments of {curves['task']} | environments only | with a policy |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {one['num_envs']:,} | {_speeds(one)} |" for one in curves["envs"]]
    lines += [
        "",
        "The tasks are MinAtar's five games, then the same games without sticky actions. The",
        "environments are divided equally among them.",
        "",
        "| tasks | environments per task | environments only | with a policy |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {one['num_tasks']} | {one['num_envs']:,} | {_speeds(one)} |" for one in curves["tasks"]
    ]
    return "\n".join(lines)


def _speeds(point: dict[str, Any]) -> str:
    return " | ".join(
        f"{figure(point[name]['median'])} "
        f"({figure(point[name]['min'])} to {figure(point[name]['max'])})"
        for name in ("environments_only", "with_inference")
    )
