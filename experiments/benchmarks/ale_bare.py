"""ale-py: its vector environment with random actions, without any wrapper.

    python -m rltransfer.experiments.benchmarks.ale_bare --num-envs 64

The settings are those of `ALE/Breakout-v5` in the Gymnasium registry.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import ale_py  # noqa: F401  (registers the games)
import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from .script import Timing, main


@dataclass(frozen=True, kw_only=True)
class AleBare:
    """Steps per second of ale-py's `AtariVectorEnv`."""

    timing: Timing = Timing(seconds=2.0)
    task: str = "ALE/Breakout-v5"
    """Id of the game."""
    num_envs: int = 64
    """Number of environments."""
    seed: int = 0
    """Random seed."""

    def run(self) -> dict[str, Any]:
        """Runs the measurement."""
        env = gymnasium.make_vec(self.task, self.num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
        env.reset(seed=self.seed)
        generator = np.random.default_rng(self.seed)
        count = int(env.single_action_space.n)  # type: ignore[attr-defined]

        def work() -> int:
            env.step(generator.integers(count, size=self.num_envs))
            return self.num_envs

        speed = self.timing.speed(work)
        env.close()
        return {"steps_per_second": speed}


if __name__ == "__main__":
    sys.exit(main(AleBare, "ale_bare"))
