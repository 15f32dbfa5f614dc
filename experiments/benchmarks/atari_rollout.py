"""rltransfer: a rollout engine over Atari with random actions; all observations are stored.

python -m rltransfer.experiments.benchmarks.atari_rollout --num-envs 64
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from typing import Any

import torch

from rltransfer.rollouts.actors import RandomActor
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.runs.stopwatch import Measuring, Stopwatch
from rltransfer.tasks.task import Suite

from .script import main


@dataclass(frozen=True, kw_only=True)
class AtariRollout:
    """Steps per second of `RolloutEngine.collect`."""

    measuring: Measuring = Measuring(repeats=3, seconds=2.0, device="cpu")
    task: str = "ALE/Breakout-v5"
    """Id of the game."""
    num_envs: int = 64
    """Number of environments."""
    rollout_length: int = 16
    """Steps per rollout."""

    def run(self) -> dict[str, Any]:
        """Runs the measurement."""
        watch = Stopwatch(self.measuring)
        seed = self.measuring.seed
        engine = RolloutEngine(Suite.of(self.task), self.num_envs, watch.device, seed)
        generator = torch.Generator(watch.device).manual_seed(seed)
        actor = RandomActor(engine.spaces, generator)
        (speed,) = watch.speeds(lambda: engine.collect(actor, self.rollout_length).num_steps)
        engine.close()
        return {"steps_per_second": speed.median, "range": dataclasses.asdict(speed)}


if __name__ == "__main__":
    sys.exit(main(AtariRollout, "atari_rollout"))
