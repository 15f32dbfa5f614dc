"""What every script here shares: options in, one line of JSON out, and how a peer is timed."""

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
    """How long a peer is measured, and how often; `rltransfer benchmark` names its options so too.

    A peer is run as its users run it, without what `rltransfer` does to the allocator.
    """

    repeats: int = 3
    """Repetitions, of which the median counts."""
    seconds: float = 1.0
    """Seconds of each repetition, at least; one call if that takes longer."""

    def speed(self, work: Callable[[], int]) -> float:
        """Returns how much is done in a second, after a first call that is not counted.

        Args:
            work: Does some work and returns how many steps or samples it was.
        """
        work()
        return statistics.median(self._once(work) for _ in range(max(self.repeats, 1)))

    def _once(self, work: Callable[[], int]) -> float:
        """Returns the speed of one repetition."""
        done, began = 0, time.perf_counter()
        while True:
            done += work()
            if time.perf_counter() - began >= self.seconds:
                return done / (time.perf_counter() - began)


def main(kind: type[Any], name: str) -> int:
    """Runs a script and returns the exit code; its last line on stdout is JSON.

    Args:
        kind: A dataclass whose fields are the options and whose `run` returns what was found.
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
