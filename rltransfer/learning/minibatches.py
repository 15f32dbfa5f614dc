"""Batches: nested dictionaries of tensors that are indexed, flattened and shuffled together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Any]
"""Tensors by name; an observation is a dictionary of tensors."""


def map_batch(function: Callable[[Tensor], Tensor], batch: Batch) -> Batch:
    """Returns the batch with the function applied to every tensor."""
    return {
        name: map_batch(function, value) if isinstance(value, dict) else function(value)
        for name, value in batch.items()
    }


def minibatches(
    batch: Batch,
    batch_size: int,
    epochs: int,
    generator: torch.Generator,
    sequences: bool = False,
) -> Iterator[Batch]:
    """Yields shuffled minibatches; every sample once an epoch, the last minibatch may be smaller.

    Args:
        batch: What was seen, time first.    (time, batch, ...)
        batch_size: Samples a minibatch.
        epochs: How often everything is gone through.
        generator: The source of the order, on the CPU.
        sequences: Whether minibatches are whole columns, (time, some, ...), for recurrent policies;
            a name that begins with "initial_" is then no sequence but one row a column.
    """
    if sequences:
        time, columns = batch["task"].shape
        yield from _columns(batch, max(1, batch_size // time), columns, epochs, generator)
        return
    flat = map_batch(lambda tensor: tensor.flatten(0, 1), batch)
    rows = flat["task"].shape[0]
    device = flat["task"].device
    for _ in range(epochs):
        order = torch.randperm(rows, generator=generator).to(device, non_blocking=True)
        for index in order.split(batch_size):
            yield map_batch(lambda tensor, index=index: tensor.index_select(0, index), flat)  # type: ignore[misc]


def _columns(
    batch: Batch, size: int, columns: int, epochs: int, generator: torch.Generator
) -> Iterator[Batch]:
    """Yields minibatches of whole columns."""
    device = batch["task"].device
    for _ in range(epochs):
        order = torch.randperm(columns, generator=generator).to(device, non_blocking=True)
        for index in order.split(size):
            chosen: Batch = {}
            for name, value in batch.items():
                axis = 0 if name.startswith("initial_") else 1
                if isinstance(value, dict):
                    chosen[name] = {k: v.index_select(axis, index) for k, v in value.items()}
                else:
                    chosen[name] = value.index_select(axis, index)
            yield chosen
