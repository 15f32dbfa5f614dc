"""Compares this checkout's speed with that of another: `make speed BEFORE=DIR`.

Both run the benchmarks' own commands, in turn, so that a slower hour slows both. The commands are
those of the other checkout, as later versions accept earlier option names. Each checkout has its
own `.venv`: `make -C DIR .venv/.installed`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent
NAMES = ("ppo-minatar-8", "ppo-minatar-64", "distillation-mlp", "learner-nature")


def python(checkout: Path, *words: str) -> Any:
    """The JSON that a command of a checkout prints."""
    command = [".venv/bin/python", *words]
    # In its folder: Python looks for packages where it is started.
    done = subprocess.run(command, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def commands(checkout: Path, names: list[str]) -> dict[str, Any]:
    """The command of each benchmark, and the keys that lead to its figure."""
    code = (
        "import json; from rltransfer.experiments.benchmarks.pairs import PAIRS;"
        f"print(json.dumps({{n: (PAIRS[n].ours.command, PAIRS[n].ours.key) for n in {names}}}))"
    )
    return dict(python(checkout, "-c", code))


def speed(checkout: Path, command: list[str], key: list[str]) -> float:
    """One measurement, with one thread."""
    found = python(checkout, *command, "--threads", "1")
    for name in key:
        found = found[name]
    return float(found)


def main() -> None:
    """Prints the ratio of each pair of measurements, and their median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="the checkout to compare with")
    parser.add_argument("--names", nargs="+", default=list(NAMES), help="benchmarks with a speed")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of measurements")
    options = parser.parse_args()
    for name, (command, key) in commands(options.before, options.names).items():
        ratios = []
        for _ in range(options.pairs):
            before, now = (speed(one, command, key) for one in (options.before, HERE))
            ratios.append(now / before)
        each = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"{name:18} now / before {statistics.median(ratios):.3f}  ({each})", flush=True)


if __name__ == "__main__":
    main()
