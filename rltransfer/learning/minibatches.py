"""Minibatches: nested dictionaries of tensors, shuffled together."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from rltransfer.nested import Nested, map_nested, select

Batch = Nested
"""Tensors by name; observations and labels are dictionaries of tensors."""

INITIAL_STATE = "initial_state"
"""The entry without a time axis in a batch of sequences: one recurrent state per row."""


def minibatches(
    batch: Batch, batch_size: int, epochs: int, generator: torch.Generator, sequences: bool = False
) -> Iterator[Batch]:
    """Yields shuffled minibatches: each sample once per epoch; the last may be smaller.

    Args:
        batch: The samples, time first.    (time, rows, ...)
        batch_size: Samples per minibatch.
        epochs: Passes over the samples.
        generator: Source of the order, on the CPU.
        sequences: Whether minibatches consist of whole rows, (time, some, ...), e.g. for recurrent
            policies; `INITIAL_STATE` then has no time axis, (some, state_size).
    """
    time, rows = batch["task"].shape
    device = batch["task"].device
    fields = {name: value for name, value in batch.items() if name != INITIAL_STATE}
    if sequences:
        axis, count, size = 1, rows, max(1, batch_size // time)
    else:
        fields = map_nested(lambda tensor: tensor.flatten(0, 1), fields)
        axis, count, size = 0, time * rows, batch_size
    initial_state = batch.get(INITIAL_STATE)
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator).to(device, non_blocking=True)
        for index in order.split(size):
            chosen = select(fields, axis, index)
            if initial_state is not None:
                chosen[INITIAL_STATE] = initial_state.index_select(0, index)
            yield chosen
