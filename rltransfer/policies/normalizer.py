"""Running normalisation of vector observations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rltransfer.machine import distributed


class RunningNormalizer(nn.Module):
    """Normalises vectors by the mean and deviation of all that `update` has seen.

    With several tasks, each task's vectors are normalised by their own mean and deviation; the
    zeros that pad them to the longest stay zeros.

    Source: Chan, Golub & LeVeque 1979 (parallel variance).

    Args:
        size: Numbers of a vector.
        clip: Bound on the absolute value of a normalised number.
        epsilon: Added to the variance.
        num_tasks: How many tasks have statistics of their own; 1 where all share them.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(
        self, size: int, clip: float = 10.0, epsilon: float = 1e-8, num_tasks: int = 1
    ) -> None:
        super().__init__()
        self.clip = clip
        self.epsilon = epsilon
        self.num_tasks = num_tasks
        each = (num_tasks,) if num_tasks > 1 else ()
        self.register_buffer("mean", torch.zeros(*each, size))
        self.register_buffer("variance", torch.ones(*each, size))
        self.register_buffer("count", torch.zeros((num_tasks, 1) if each else ()))

    def forward(self, vector: Tensor, task: Tensor | None = None) -> Tensor:
        """Returns the normalised vectors.    (..., size)

        Args:
            vector: What is observed.                                                 (..., size)
            task: Index of each vector's task, where tasks have their own statistics.    (...)
        """
        # In this order: ONNX's exporter takes so small an epsilon for 0, unless it adds it itself.
        mean, scale = self.mean, (self.variance + self.epsilon).rsqrt()
        if self.num_tasks > 1:
            assert task is not None
            # An index would say the same, and take five times as long.
            mean, scale = F.embedding(task, mean), F.embedding(task, scale)
        scaled = (vector - mean) * scale
        return scaled.clamp(-self.clip, self.clip)

    @torch.no_grad()
    def update(self, vectors: Tensor, task: Tensor | None = None) -> None:
        """Takes more vectors into account, those of every process.

        Args:
            vectors: What was observed, as many in each process.                      (..., size)
            task: Index of each vector's task, where tasks have their own statistics.    (...)
        """
        rows = vectors.reshape(-1, vectors.shape[-1])
        num_rows: Tensor | int
        if self.num_tasks > 1:
            assert task is not None
            num_rows, mean, variance = self._of_each_task(rows, task.flatten())
        else:
            processes = distributed.world_size()
            num_rows = len(rows) * processes
            mean = distributed.total(rows.mean(0)) / processes
            variance = distributed.total((rows - mean).square().mean(0)) / processes
        total = self.count + num_rows
        # A task of which nothing was seen yet has no rows and no total.
        share = num_rows / total.clamp(min=1)
        apart = mean - self.mean
        self.variance.copy_(
            self.variance * (1 - share) + variance * share + apart.square() * share * (1 - share)
        )
        self.mean.add_(apart * share)
        self.count.copy_(total)

    def _of_each_task(self, rows: Tensor, task: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the number of each task's vectors, their mean and their variance.

        Args:
            rows: What was observed.            (rows, size)
            task: Index of each row's task.     (rows,)

        Returns:
            (num_tasks, 1), (num_tasks, size), (num_tasks, size)
        """
        member = F.one_hot(task, self.num_tasks).to(rows.dtype).T
        num_rows = distributed.total(member.sum(1, keepdim=True))
        divisor = num_rows.clamp(min=1)
        mean = distributed.total(member @ rows) / divisor
        variance = distributed.total(member @ (rows - mean[task]).square()) / divisor
        return num_rows, mean, variance
