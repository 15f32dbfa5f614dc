"""Plain PyTorch: a distillation loop around the Nature CNN on batches in RAM.

    python -m rltransfer.experiments.benchmarks.bare_torch --batch-size 256

The fastest loop that PyTorch alone allows:

- channels last, also in the stored bytes
- a fused Adam
- no clipping, metrics or checks
- batches that need not be sampled

As in rltransfer, the allocator keeps freed memory; without this the loop would be slower.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from rltransfer.machine.allocator import keep_freed_memory
from rltransfer.runs.benchmark import FRAME_SIDE, FRAME_STACK, NUM_ACTIONS

from .script import Timing, main


@dataclass(frozen=True, kw_only=True)
class BareTorch:
    """Samples per second of a bare loop."""

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
        student = nature_cnn().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(student.parameters(), lr=1e-3, fused=True)
        shape = (self.batch_size, FRAME_STACK, FRAME_SIDE, FRAME_SIDE)
        batches = itertools.cycle(
            [
                (
                    torch.randint(0, 256, shape, dtype=torch.uint8).contiguous(
                        memory_format=torch.channels_last
                    ),
                    F.log_softmax(torch.randn(self.batch_size, NUM_ACTIONS), -1),
                )
                for _ in range(self.num_batches)
            ]
        )

        def work() -> int:
            frames, target = next(batches)
            guess = F.log_softmax(student(frames * (1 / 255)), -1)
            loss = F.kl_div(guess, target, reduction="batchmean", log_target=True)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return self.batch_size

        speed = self.timing.speed(work)
        return {"samples_per_second": speed, "threads": torch.get_num_threads()}


def nature_cnn() -> nn.Sequential:
    """The network with a head over actions.

    Source: Mnih 2015, Methods.
    """
    return nn.Sequential(
        nn.Conv2d(FRAME_STACK, 32, 8, 4),
        nn.ReLU(),
        nn.Conv2d(32, 64, 4, 2),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 512),
        nn.ReLU(),
        nn.Linear(512, NUM_ACTIONS),
    )


if __name__ == "__main__":
    sys.exit(main(BareTorch, "bare_torch"))
