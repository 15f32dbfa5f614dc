"""rltransfer: the size of a replay buffer of Atari steps, computed from its tensors' shapes.

    python -m rltransfer.experiments.benchmarks.memory_atari --steps 540_000

The replay buffer is on torch's `meta` device, which has shapes but no storage.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch

from rltransfer.learning.replay_memory import ReplayMemory
from rltransfer.runs.benchmark import FRAME_SIDE, FRAME_STACK
from rltransfer.tasks.observation import DEFAULT_GROUP

from .script import main

MOST_ACTIONS = 18
"""Labels per step: one for each joystick action."""


@dataclass(frozen=True, kw_only=True)
class MemoryAtari:
    """Gigabytes of a replay buffer of frames with a teacher's logits."""

    steps: int = 540_000
    """Capacity in steps."""
    num_envs: int = 80
    """Number of environments: eight for each of ten games."""

    def run(self) -> dict[str, Any]:
        """Computes the size."""
        nowhere = torch.device("meta")
        memory = ReplayMemory(self.steps, self.num_envs, nowhere, FRAME_STACK)
        rows = (1, self.num_envs)
        size = (*rows, FRAME_STACK, FRAME_SIDE, FRAME_SIDE)
        frames = torch.zeros(size, dtype=torch.uint8, device=nowhere)
        fields = {
            "label": {"logits": torch.zeros(*rows, MOST_ACTIONS, device=nowhere)},
            "task": torch.zeros(rows, dtype=torch.int64, device=nowhere),
        }
        start = torch.zeros(rows, dtype=torch.bool, device=nowhere)
        memory.add({DEFAULT_GROUP: frames}, start, fields)
        return {"gigabytes": memory.nbytes() / 1e9, "bytes": memory.nbytes()}


if __name__ == "__main__":
    sys.exit(main(MemoryAtari, "memory_atari"))
