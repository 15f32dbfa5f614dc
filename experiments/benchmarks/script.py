"""Shared by the scripts: options in, one line of JSON out, and the timing of peers."""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rltransfer.cli.parsing import parse
from rltransfer.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Length and number of measurements of a peer, named as the options of `rltransfer benchmark`.

    A peer runs as its users run it, without rltransfer's settings of the allocator.
    """

    repeats: int = 3
    """Number of repetitions; the result is their median."""
    seconds: float = 1.0
    """Minimum seconds per repetition; a single call may take longer."""

    def speed(self, work: Callable[[], int]) -> float:
        """The number of steps or samples per second, after a warm-up call.

        Args:
            work: Does some work and returns the number of its steps or samples.
        """
        work()
        return statistics.median(self._once(work) for _ in range(max(self.repeats, 1)))

    def _once(self, work: Callable[[], int]) -> float:
        done, began = 0, time.perf_counter()
        while True:
            done += work()
            if time.perf_counter() - began >= self.seconds:
                return done / (time.perf_counter() - began)


def main(kind: type[Any], name: str) -> int:
    """Runs a script, prints its result as a line of JSON, and returns the exit code.

    Args:
        kind: A dataclass whose fields are the options and whose `run` returns the result.
        name: The module's name, without its package.
    """
    try:
        made = parse(kind, sys.argv[1:], f"python -m rltransfer.experiments.benchmarks.{name}")
        found = made.run()
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({**found, "settings": dataclasses.asdict(made)}))
    return 0
