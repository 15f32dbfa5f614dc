"""Compares the default number of threads with one thread beside a busy core: `make busy`.

A process that computes without a pause occupies one core, as other programs do on a laptop. Both
sides run in turn, in fresh processes. The default should reach 0.9 of the speed of one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

COMMANDS = {
    "ppo, MinAtar, 8 environments": (
        "train ppo --task rltransfer/MinAtar-Breakout-v0 --num-envs 8 --batch-size 256 --epochs 4",
        "with_training",
    ),
    "ppo, CartPole, 64 environments": ("train ppo --task CartPole-v1", "with_training"),
    "learner, Nature CNN, batch 256": ("learner --memory-steps 4000", "samples_per_second"),
}
"""Benchmarks, and the key of their figure."""
BUSY = "while True: pass"


def speed(words: str, key: str, threads: str) -> tuple[float, int]:
    """One measurement: units of work per second, and the number of threads."""
    rest = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-m", "rltransfer.cli", "benchmark", *words.split()]
    command += ["--device", "cpu", "--repeats", "3", "--threads", threads, "--json"]
    done = subprocess.run(command, env=rest, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return float(found[key]["median"]), int(found["hardware"]["threads"])


def main() -> None:
    """Prints the ratio of each pair of measurements, and their median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4, help="pairs of measurements")
    parser.add_argument("--busy", type=int, default=1, help="busy processes")
    parser.add_argument("--threads", default="auto", help="the number that one is compared with")
    options = parser.parse_args()
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(options.busy)]
    try:
        for name, (words, key) in COMMANDS.items():
            ratios = []
            for _ in range(options.pairs):
                one, _ = speed(words, key, "1")
                found, threads = speed(words, key, options.threads)
                ratios.append(found / one)
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            median = statistics.median(ratios)
            print(f"{name:32} {threads} threads / one {median:.2f}  ({each})", flush=True)
    finally:
        for other in others:
            other.kill()


if __name__ == "__main__":
    main()
