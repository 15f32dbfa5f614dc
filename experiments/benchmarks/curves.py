"""Curves: steps per second over the number of environments, and over the number of tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rltransfer.envs.minatar.ids import GAMES
from rltransfer.machine.devices import find_device
from rltransfer.machine.hardware import hardware
from rltransfer.policies.network import Network
from rltransfer.runs.benchmark import benchmark_rollout
from rltransfer.runs.stopwatch import Measuring
from rltransfer.tasks.task import Suite, Task

TASK = "rltransfer/MinAtar-Breakout-v0"
"""The task for the curve over the number of environments."""
NUM_ENVS = (64, 256, 1024, 4096, 16384)
NUM_TASKS = (1, 2, 3, 4, 5, 6, 7, 8)
ROWS = 4096
"""Number of environments, divided among the tasks."""


def suite_of(num_tasks: int) -> Suite:
    """The first tasks of MinAtar's games, followed by the games without sticky actions."""
    ids = [f"rltransfer/MinAtar-{title}-v0" for title in GAMES.values()]
    tasks = [Task(name) for name in ids]
    tasks += [Task(name, {"sticky_action_prob": 0.0}) for name in ids]
    return Suite(f"{num_tasks} tasks", tuple(tasks[:num_tasks]))


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The speeds of `rltransfer benchmark rollout`, over environments and over tasks."""

    measuring: Measuring = Measuring(repeats=3, seconds=0.5, device="cpu")
    num_envs: Sequence[int] = NUM_ENVS
    num_tasks: Sequence[int] = NUM_TASKS
    rows: int = ROWS
    rollout_length: int = 16

    def run(self, report: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
        """Measures both curves and returns them as JSON, with medians and ranges.

        Args:
            report: Called with a line before each measurement.
        """
        envs, tasks = [], []
        for count in self.num_envs:
            report(f"{count} environments of {TASK}")
            envs.append({"num_envs": count, **self._speeds(Suite.of(TASK), count)})
        for count in self.num_tasks:
            each = self.rows // count
            report(f"{count} tasks, {each} environments each")
            speeds = self._speeds(suite_of(count), each)
            tasks.append({"num_tasks": count, "num_envs": each, **speeds})
        return {
            "task": TASK,
            "repeats": self.measuring.repeats,
            "rollout_length": self.rollout_length,
            "envs": envs,
            "tasks": tasks,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "hardware": hardware(find_device(self.measuring.device)),
        }

    def _speeds(self, suite: Suite, num_envs: int) -> dict[str, Any]:
        found = benchmark_rollout(suite, num_envs, self.rollout_length, Network(), self.measuring)
        speeds: dict[str, Any] = found.get("together") or found["tasks"][suite.names()[0]]
        return speeds
