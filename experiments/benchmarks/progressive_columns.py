"""rltransfer: steps per second of training with several columns, relative to one column.

    python -m rltransfer.experiments.benchmarks.progressive_columns --columns 2

Both train by PPO on MinAtar's Breakout with the same settings: one column is `ppo`, more are
`progressive` on untrained ones.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltransfer.agents import PPO, Progressive
from rltransfer.errors import InputError
from rltransfer.learning.agent import Method
from rltransfer.policies.network import Network
from rltransfer.runs.benchmark import benchmark_train
from rltransfer.runs.stopwatch import Measuring
from rltransfer.runs.train import train
from rltransfer.tasks.task import Suite

from .script import main

SUITE = Suite.of("rltransfer/MinAtar-Breakout-v0")
STEPS = 1_000_000_000
"""Steps of the whole run, of which only the start is measured."""


@dataclass(frozen=True, kw_only=True)
class ProgressiveColumns:
    """Steps per second with several columns, relative to one."""

    measuring: Measuring = Measuring(repeats=3, device="cpu")
    columns: int = 2
    """Number of columns, the new one included."""
    num_envs: int = 64
    """Number of environments."""
    rollout_length: int = 128
    """Steps per environment between two updates."""
    batch_size: int = 256
    """Samples per minibatch."""

    def __post_init__(self) -> None:
        if self.columns < 2:
            raise InputError(f"columns is {self.columns}: it must be at least 2.")

    def run(self) -> dict[str, Any]:
        """Runs the measurement."""
        settings: dict[str, Any] = {
            "network": Network(encoder="grid"),
            "num_envs": self.num_envs,
            "rollout_length": self.rollout_length,
            "batch_size": self.batch_size,
        }
        with tempfile.TemporaryDirectory() as folder:
            earlier = [
                self._untrained(Path(folder) / str(number)) for number in range(self.columns - 1)
            ]
            alone = self._speed("ppo", PPO(**settings))
            several = self._speed("progressive", Progressive(columns=tuple(earlier), **settings))
        return {
            "ratio": several / alone,
            "steps_per_second": several,
            "steps_per_second_of_one": alone,
            "columns": self.columns,
        }

    def _untrained(self, run_dir: Path) -> str:
        method = PPO(network=Network(encoder="grid"), num_envs=1, rollout_length=1)
        seed = self.measuring.seed + int(run_dir.name)
        train(
            method, suite=SUITE, run_dir=run_dir, total_steps=1, seed=seed, episodes=0,
            evaluate_episodes=0, quiet=True, device="cpu",
        )  # fmt: skip
        return str(run_dir)

    def _speed(self, name: str, method: Method) -> float:
        found = benchmark_train(name, method, SUITE, STEPS, self.measuring)
        return float(found["with_training"]["median"])


if __name__ == "__main__":
    sys.exit(main(ProgressiveColumns, "progressive_columns"))
