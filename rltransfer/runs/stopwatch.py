"""Repeated timings, for benchmarks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rltransfer.errors import check_range
from rltransfer.machine.allocator import keep_freed_memory
from rltransfer.machine.devices import find_device
from rltransfer.machine.threads import (
    AUTO,
    Threads,
    available,
    checked_threads,
    number_for,
    use_threads,
)
from rltransfer.options import normalize


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """Duration and number of measurements."""

    repeats: int = 5
    """Repetitions; the median is reported."""
    seconds: float = 1.0
    """Minimum seconds of each repetition; a single call may take longer."""
    seed: int = 0
    """Seed of environments and weights."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", ...; "auto" uses CUDA if available."""
    threads: Threads = AUTO
    """CPU threads of torch; 0 for torch's default, "auto" for one if networks are small."""

    def __post_init__(self) -> None:
        normalize(self)
        object.__setattr__(self, "threads", checked_threads(self.threads))
        check_range(self, "at least 1", "repeats")
        check_range(self, "finite and at least 0", "seconds", "seed")
        check_range(self, "at most 1,000,000", "repeats", "seconds")


@dataclass(frozen=True)
class Speed:
    """Units of work per second: median, minimum and maximum of the repetitions."""

    median: float
    min: float
    max: float


class Stopwatch:
    """Measures functions on one device."""

    def __init__(self, options: Measuring) -> None:
        self.options = options
        self.device = find_device(options.device)
        self._most = available()
        use_threads(options.threads)
        keep_freed_memory()

    def choose_threads(self, work: int) -> None:
        """Sets the number of threads for networks of this size, unless a number is given.

        Args:
            work: Multiply-adds of the largest forward pass.
        """
        if self.options.threads == AUTO and self.device.type == "cpu":
            use_threads(number_for(work, self._most))

    def speeds(self, *functions: Callable[[], int]) -> list[Speed]:
        """The speed of each function, measured in turn within each repetition.

        Args:
            functions: Each does some work and returns its number of steps, samples or labels.
        """
        for function in functions:
            # Twice: on CUDA the first call warms up and the second is captured.
            function()
            function()
        found: list[list[float]] = [[] for _ in functions]
        for _ in range(self.options.repeats):
            for values, function in zip(found, functions, strict=True):
                values.append(self._once(function))
        return [Speed(statistics.median(v), min(v), max(v)) for v in found]

    def _once(self, function: Callable[[], int]) -> float:
        done = 0
        self._wait()
        began = time.perf_counter()
        while True:
            done += function()
            if time.perf_counter() - began >= self.options.seconds:
                break
        self._wait()
        return done / (time.perf_counter() - began)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def speed_rows(result: dict[str, Any]) -> Sequence[tuple[str, str, str]]:
    """Rows of a table of a benchmark's result: name, median, range."""
    rows: list[tuple[str, str, str]] = []

    def walk(value: dict[str, Any], path: tuple[str, ...]) -> None:
        if value.keys() == {"median", "min", "max"}:
            median, low, high = (f"{value[name]:,.0f}" for name in ("median", "min", "max"))
            rows.append((" ".join(path).replace("_", " "), median, f"{low} to {high}"))
            return
        for name, inner in value.items():
            if isinstance(inner, dict):
                walk(inner, (*path, name) if name != "tasks" else path)

    walk(result, ())
    return rows
