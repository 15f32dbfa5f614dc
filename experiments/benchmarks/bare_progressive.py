"""Plain PyTorch: PPO's updates of a progressive network of two columns, on batches in RAM.

    python -m rltransfer.experiments.benchmarks.bare_progressive --batch-size 256

Network and loop are written as a user of PyTorch would write them: each column a convolution and a
linear layer, the second with an adapter and lateral heads (Rusu 2016, eq. 2), and the usual clipped
surrogate with Adam and a clipped gradient.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .script import Timing, main

SHAPE = (4, 10, 10)
"""Shape of an observation, as in MinAtar's Breakout."""
NUM_ACTIONS = 6
"""Number of actions."""
CHANNELS, UNITS = 16, 128
"""Channels of the convolution, units of the linear layer."""
CLIP_RANGE, VALUE_COEFFICIENT, ENTROPY_COEFFICIENT, MAX_GRAD_NORM = 0.2, 0.5, 0.01, 0.5
"""PPO's settings, the defaults of rltransfer's."""


@dataclass(frozen=True, kw_only=True)
class BareProgressive:
    """Samples per second of a plain loop."""

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
        torch.manual_seed(self.seed)
        network = TwoColumns()
        learned = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(learned, lr=1e-3, eps=1e-5)
        batches = itertools.cycle(random_batches(self.num_batches, self.batch_size))

        def work() -> int:
            batch = next(batches)
            optimizer.zero_grad()
            logits, value = network(batch["observation"])
            ppo_loss(logits, value, batch).backward()
            nn.utils.clip_grad_norm_(learned, MAX_GRAD_NORM)
            optimizer.step()
            return self.batch_size

        speed = self.timing.speed(work)
        return {"samples_per_second": speed, "threads": torch.get_num_threads()}


class TwoColumns(nn.Module):
    """A column on a frozen one, with an action and a value head."""

    def __init__(self) -> None:
        super().__init__()
        pixels = (SHAPE[1] - 2) * (SHAPE[2] - 2)
        self.frozen_conv = nn.Conv2d(SHAPE[0], CHANNELS, 3)
        self.frozen_linear = nn.Linear(CHANNELS * pixels, UNITS)
        self.requires_grad_(False)
        self.conv = nn.Conv2d(SHAPE[0], CHANNELS, 3)
        self.linear = nn.Linear(CHANNELS * pixels, UNITS)
        self.alpha = nn.Parameter(torch.tensor(0.1))
        self.project = nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)
        self.unite = nn.Linear(CHANNELS * pixels, UNITS, bias=False)
        self.action, self.lateral_action = (nn.Linear(UNITS, NUM_ACTIONS) for _ in range(2))
        self.value, self.lateral_value = (nn.Linear(UNITS, 1) for _ in range(2))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, (batch, actions), and the values, (batch,).

        Args:
            images: Bytes.    (batch, channels, height, width)
        """
        images = images.float()
        with torch.no_grad():
            below = F.relu(self.frozen_conv(images))
            above = F.relu(self.frozen_linear(below.flatten(1)))
        hidden = F.relu(self.conv(images))
        lateral = self.unite(F.relu(self.project(self.alpha * below)).flatten(1))
        hidden = F.relu(self.linear(hidden.flatten(1)) + lateral)
        logits = self.action(hidden) + self.lateral_action(above)
        value = self.value(hidden) + self.lateral_value(above)
        return logits, value.squeeze(-1)


def ppo_loss(logits: Tensor, value: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """PPO's loss of a minibatch.    ()

    Source: Schulman 2017 (arXiv 1707.06347), eq. 9.

    Args:
        logits: (batch, actions)
        value: (batch,)
        batch: See `random_batches`.
    """
    policy: Any = torch.distributions.Categorical(logits=logits)
    advantage = batch["advantage"]
    advantage = (advantage - advantage.mean()) / (advantage.std(unbiased=False) + 1e-8)
    ratio = (policy.log_prob(batch["action"]) - batch["old_log_prob"]).exp()
    clipped = ratio.clamp(1 - CLIP_RANGE, 1 + CLIP_RANGE)
    surrogate = torch.minimum(ratio * advantage, clipped * advantage).mean()
    value_loss = 0.5 * (value - batch["return"]).square().mean()
    entropy = policy.entropy().mean()
    loss: Tensor = -surrogate + VALUE_COEFFICIENT * value_loss - ENTROPY_COEFFICIENT * entropy
    return loss


def random_batches(number: int, size: int) -> list[dict[str, Tensor]]:
    """Minibatches with random content.

    Args:
        number: How many.
        size: Samples of each.
    """
    return [
        {
            "observation": torch.randint(0, 2, (size, *SHAPE), dtype=torch.uint8),
            "action": torch.randint(NUM_ACTIONS, (size,)),
            "old_log_prob": -torch.rand(size) - 1.0,
            "advantage": torch.randn(size),
            "return": torch.randn(size),
        }
        for _ in range(number)
    ]


if __name__ == "__main__":
    sys.exit(main(BareProgressive, "bare_progressive"))
