"""rltransfer: PPO's updates of a progressive network of two columns, on batches in RAM.

    python -m rltransfer.experiments.benchmarks.progressive_learner --batch-size 256

The network, the loss and the batches are those of `bare_progressive.py`, with rltransfer's metrics
and checks.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.agents.ppo import Surrogate, evaluate
from rltransfer.agents.progressive_policy import ProgressivePolicy, ProgressiveSpec
from rltransfer.learning.learner import Learner, Loss
from rltransfer.learning.minibatches import Batch
from rltransfer.machine.allocator import keep_freed_memory
from rltransfer.policies.network import Network
from rltransfer.policies.policy import PolicySpec
from rltransfer.tasks.observation import DEFAULT_GROUP
from rltransfer.tasks.task import Suite

from .bare_progressive import (
    CHANNELS,
    MAX_GRAD_NORM,
    NUM_ACTIONS,
    SHAPE,
    UNITS,
    random_batches,
)
from .script import Timing, main


@dataclass(frozen=True, kw_only=True)
class ProgressiveLearner:
    """Samples per second of rltransfer's updates."""

    timing: Timing = Timing(seconds=2.0)
    batch_size: int = 256
    """Samples per optimizer step."""
    num_batches: int = 16
    """Number of batches, used in turn."""
    seed: int = 0
    """Random seed."""
    threads: int = 0
    """Number of torch threads; 0 leaves the choice to torch."""

    def run(self) -> dict[str, Any]:
        """Runs the measurement."""
        if self.threads:
            torch.set_num_threads(self.threads)
        keep_freed_memory()
        torch.manual_seed(self.seed)
        policy = two_columns()
        learner = Learner(policy, learning_rate=1e-3, epsilon=1e-5, max_grad_norm=MAX_GRAD_NORM)
        made = random_batches(self.num_batches, self.batch_size)
        batches = itertools.cycle([fields_of(batch) for batch in made])

        def work() -> int:
            learner.update([next(batches)], lambda batch: loss(policy, batch))
            return self.batch_size

        speed = self.timing.speed(work)
        return {"samples_per_second": speed, "threads": torch.get_num_threads()}


def two_columns() -> ProgressivePolicy:
    """A column on a frozen one, of the sizes of `bare_progressive.TwoColumns`."""
    network = Network(encoder="grid", channels=(CHANNELS,), hidden=(UNITS,))
    seen = spaces.Dict({DEFAULT_GROUP: spaces.Box(0, 1, SHAPE, np.uint8)})
    first = PolicySpec(network, seen, spaces.Discrete(NUM_ACTIONS))
    known = {field.name: getattr(first, field.name) for field in fields(first)}
    suite = Suite.of("rltransfer/MinAtar-Breakout-v0")
    return ProgressivePolicy(ProgressiveSpec(**known, earlier=(first,), suites=(suite,)))


def fields_of(batch: dict[str, Tensor]) -> Batch:
    """A minibatch in the form of rltransfer's."""
    task = torch.zeros_like(batch["action"])
    return {**batch, "observation": {DEFAULT_GROUP: batch["observation"]}, "task": task}


def loss(policy: ProgressivePolicy, batch: Batch) -> Loss:
    """PPO's loss of a minibatch."""
    return Surrogate().loss(evaluate(policy, batch), batch)


if __name__ == "__main__":
    sys.exit(main(ProgressiveLearner, "progressive_learner"))
