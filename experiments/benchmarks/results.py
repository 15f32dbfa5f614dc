"""What came out: tables for the terminal, and RESULTS.md from the stored JSON."""

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
"""The file of the curves, beside those of the pairs."""
NOTES = "NOTES.md"
"""A file that is written by hand, beside RESULTS.md."""

HEAD = """\
# Benchmarks

Written by `rltransfer experiment run benchmarks` from the files in `{folder}/`; do not edit it.
The two sides of a pair ran in turn, A B A B ..., each time in a fresh process on the same cores. A
ratio says how many times better rltransfer is (steps a second of ours over theirs, seconds of
theirs over ours), unless the bar is a maximum; it is the median over the repetitions, with the
range. Where each repetition has a seed of its own, as in learning until a return, it is the ratio
of the medians, and the range is that of any run of one side beside any of the other. Where torch is
on both sides, each has one thread or all, whichever it was faster with in a first run that does not
count.

"""


def figure(value: float) -> str:
    """Returns a number as it is shown, with three digits at the least."""
    if value >= 1e6:
        return f"{value / 1e6:.4g} M"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def ratio_text(result: dict[str, Any]) -> str:
    """Returns a ratio with its range."""
    ratio = result["ratio"]
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def bar_text(result: dict[str, Any]) -> str:
    """Returns a bar as words."""
    return f"{'at most' if result['at_most'] else 'at least'} {result['bar']:g}"


def side_text(side: dict[str, Any] | None, unit: str) -> str:
    """Returns a side's median with its range; nothing where there is no peer."""
    if side is None:
        return ""
    low, high = figure(side["min"]), figure(side["max"])
    return f"{figure(side['median'])} {unit} ({low} to {high})"


def cells(result: dict[str, Any]) -> list[str]:
    """Returns what a table says of a pair: bar, ratio, whether it is met, both sides."""
    return [
        bar_text(result),
        ratio_text(result),
        "yes" if result["met"] else "NO",
        side_text(result["ours"], result["unit"]),
        side_text(result["peer"], result["unit"]),
    ]


def terminal_table(results: Sequence[dict[str, Any]]) -> Table:
    """Returns one row for each pair."""
    table = Table("pair", "bar", "ratio", "met", "rltransfer", "peer")
    for result in results:
        table.add_row(result["pair"], *cells(result))
    return table


def stored_results(folder: Path) -> list[dict[str, Any]]:
    """Returns the contents of every pair's file, in the pairs' order."""
    found = [
        json.loads(path.read_text())
        for path in sorted(folder.glob("*.json"))
        if path.name != CURVES
    ]
    order = list(PAIRS)
    return sorted(
        found,
        key=lambda one: order.index(one["pair"]) if one["pair"] in order else len(order),
    )


def write_report(folder: Path, path: Path) -> None:
    """Writes RESULTS.md anew from everything that is stored.

    Args:
        folder: Where the JSON files are.
        path: The file; NOTES.md beside it is appended.
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
    """Returns what the pairs ran on, and with what."""
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
    """Returns a machine as words."""
    hardware = result["hardware"]
    return (
        f"{hardware['device']}, {hardware['cores']} cores, "
        f"{hardware['threads']} threads of torch at the most"
    )


def _pairs(results: Sequence[dict[str, Any]]) -> str:
    """Returns the table of the pairs."""
    lines = [
        "## Pairs",
        "",
        "| what | against | bar | ratio | met | rltransfer | peer | repetitions | repeat it with |",
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
    """Returns the row of MinAtar's games together, once all are there."""
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
    """Returns the tables of the curves."""
    hardware = curves["hardware"]
    lines = [
        "## Curves",
        "",
        f"Environment steps a second, medians of {curves['repeats']} repetitions with the range: "
        f"alone with random actions, and with a policy that acts (3x3 convolution, 128 units). "
        f"{hardware['device']}, {hardware['cores']} cores, {hardware['threads']} threads, "
        f"{curves['date'][:10]}; `rltransfer experiment run benchmarks --curves`.",
        "",
        f"| environments of {curves['task']} | environments alone | with a policy |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {one['num_envs']:,} | {_speeds(one)} |" for one in curves["envs"]]
    lines += [
        "",
        "The tasks are MinAtar's five games, then the same games without sticky actions; they",
        "share the environments evenly.",
        "",
        "| tasks | environments of each | environments alone | with a policy |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {one['num_tasks']} | {one['num_envs']:,} | {_speeds(one)} |" for one in curves["tasks"]
    ]
    return "\n".join(lines)


def _speeds(point: dict[str, Any]) -> str:
    """Returns the two cells of a point of a curve."""
    return " | ".join(
        f"{figure(point[name]['median'])} "
        f"({figure(point[name]['min'])} to {figure(point[name]['max'])})"
        for name in ("environments_only", "with_inference")
    )
