"""Running normalisation of vector observations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rltransfer.machine import distributed


class RunningNormalizer(nn.Module):
    """Normalises vectors by the mean and standard deviation of all vectors passed to `update`.

    With several tasks, each task has a separate mean and standard deviation, and padding stays
    zero.

    Source: Chan, Golub & LeVeque 1979 (parallel variance).

    Args:
        size: Length of a vector.
        num_tasks: Number of tasks with separate statistics; 1 if all tasks share them.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    clip = 10.0
    """Bound on the absolute value of a normalised entry."""
    epsilon = 1e-8
    """Added to the variance."""

    def __init__(self, size: int, num_tasks: int = 1) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        each = (num_tasks,) if num_tasks > 1 else ()
        self.register_buffer("mean", torch.zeros(*each, size))
        self.register_buffer("variance", torch.ones(*each, size))
        self.register_buffer("count", torch.zeros((num_tasks, 1) if each else ()))

    def forward(self, vector: Tensor, task: Tensor | None = None) -> Tensor:
        """The normalised vectors.    (..., size)

        Args:
            vector: The observed vectors.                                      (..., size)
            task: Index of each vector's task, if statistics are per task.     (...)
        """
        # In this order, as ONNX's exporter would otherwise round so small an epsilon to 0.
        mean, scale = self.mean, (self.variance + self.epsilon).rsqrt()
        if self.num_tasks > 1:
            assert task is not None
            # Indexing would take five times as long.
            mean, scale = F.embedding(task, mean), F.embedding(task, scale)
        scaled = (vector - mean) * scale
        return scaled.clamp(-self.clip, self.clip)

    @torch.no_grad()
    def update(self, vectors: Tensor, task: Tensor | None = None) -> None:
        """Updates the statistics with vectors of all processes.

        Args:
            vectors: The observed vectors, equally many in each process.       (..., size)
            task: Index of each vector's task, if statistics are per task.     (...)
        """
        rows = vectors.reshape(-1, vectors.shape[-1])
        num_rows: Tensor | int
        if self.num_tasks > 1:
            assert task is not None
            num_rows, mean, variance = self._per_task(rows, task.flatten())
        else:
            processes = distributed.world_size()
            num_rows = len(rows) * processes
            mean = distributed.total(rows.mean(0)) / processes
            variance = distributed.total((rows - mean).square().mean(0)) / processes
        total = self.count + num_rows
        # The total of a task without observations so far is 0.
        fraction = num_rows / total.clamp(min=1)
        difference = mean - self.mean
        self.variance.copy_(
            self.variance * (1 - fraction)
            + variance * fraction
            + difference.square() * fraction * (1 - fraction)
        )
        self.mean.add_(difference * fraction)
        self.count.copy_(total)

    def _per_task(self, rows: Tensor, task: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Count (num_tasks, 1), mean and variance (num_tasks, size) of each task's vectors.

        Args:
            rows: The observed vectors.         (rows, size)
            task: Index of each row's task.     (rows,)
        """
        member = F.one_hot(task, self.num_tasks).to(rows.dtype).T
        num_rows = distributed.total(member.sum(1, keepdim=True))
        divisor = num_rows.clamp(min=1)
        mean = distributed.total(member @ rows) / divisor
        variance = distributed.total(member @ (rows - mean[task]).square()) / divisor
        return num_rows, mean, variance
