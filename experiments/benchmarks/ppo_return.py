"""rltransfer: seconds until PPO reaches a return on MinAtar's Breakout.

    python -m rltransfer.experiments.benchmarks.ppo_return --until-return 10

The clock starts after all imports. It stops after the first update at which the mean return of the
last 100 training episodes has reached the given return.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rltransfer.agents import PPO
from rltransfer.errors import InputError
from rltransfer.policies.network import Network
from rltransfer.rollouts.rollout import Rollout
from rltransfer.runs.config import RunOptions
from rltransfer.runs.run import Run
from rltransfer.tasks.task import Suite

from .script import main

EPISODES = 100
"""Number of episodes in the mean return."""


@dataclass(frozen=True, kw_only=True)
class PPOReturn:
    """Seconds of rltransfer's PPO to a return."""

    until_return: float = 10.0
    """Return at which training stops."""
    max_steps: int = 5_000_000
    """Steps after which training fails; the step size decays to zero over these steps."""
    num_envs: int = 256
    """Number of environments."""
    rollout_length: int = 32
    """Steps per environment between two updates."""
    epochs: int = 2
    """Passes over each rollout."""
    batch_size: int = 512
    """Samples per minibatch."""
    learning_rate: float = 3e-3
    """Adam's initial step size."""
    seed: int = 0
    """Random seed."""
    threads: int = 0
    """Number of torch threads; 0 leaves the choice to torch."""

    def run(self) -> dict[str, Any]:
        """Runs the measurement."""
        began = time.perf_counter()
        method = PPO(
            network=Network(encoder="grid"),
            num_envs=self.num_envs,
            rollout_length=self.rollout_length,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
        )
        options = RunOptions(
            total_steps=self.max_steps, seed=self.seed, device="cpu", threads=self.threads
        )
        suite = Suite.of("rltransfer/MinAtar-Breakout-v0")
        with tempfile.TemporaryDirectory() as folder:
            run = Run("ppo", method, suite, options, Path(folder), quiet=True)
            steps = self._train(run)
            run.engine.close()
        return {
            "seconds": time.perf_counter() - began,
            "env_steps": steps,
            "threads": torch.get_num_threads(),
        }

    def _train(self, run: Run) -> int:
        last: deque[float] = deque(maxlen=EPISODES)
        for steps in range(0, self.max_steps, run.engine.num_rows * self.rollout_length):
            run.agent.begin_rollout(steps / self.max_steps)
            rollout = run.engine.collect(run.agent, self.rollout_length)
            last.extend(_returns(rollout))
            run.agent.learn(rollout)
            if len(last) == EPISODES and sum(last) / EPISODES >= self.until_return:
                return steps + rollout.num_steps
        mean = sum(last) / max(len(last), 1)
        raise InputError(f"The return after {self.max_steps} steps is only {mean:.1f}.")


def _returns(rollout: Rollout) -> list[float]:
    """The returns of the finished episodes, in the order of their ends."""
    assert rollout.episode_return is not None
    found: list[float] = rollout.episode_return[rollout.done].tolist()
    return found


if __name__ == "__main__":
    sys.exit(main(PPOReturn, "ppo_return"))
