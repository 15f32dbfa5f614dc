"""Batches: nested dictionaries of tensors that are indexed, flattened and shuffled together."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from rltransfer.nested import Nested, map_nested, select

Batch = Nested
"""Tensors by name; an observation and a label are dictionaries of tensors."""

INITIAL_STATE = "initial_state"
"""The entry of a batch of sequences that is no sequence: one recurrent state a column."""


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
            `INITIAL_STATE` then has no time, (some, state_size).
    """
    if sequences:
        time, columns = batch["task"].shape
        yield from _columns(batch, max(1, batch_size // time), columns, epochs, generator)
        return
    flat = map_nested(lambda tensor: tensor.flatten(0, 1), batch)
    rows = flat["task"].shape[0]
    device = flat["task"].device
    for _ in range(epochs):
        order = torch.randperm(rows, generator=generator).to(device, non_blocking=True)
        for index in order.split(batch_size):
            yield select(flat, 0, index)


def _columns(
    batch: Batch, size: int, columns: int, epochs: int, generator: torch.Generator
) -> Iterator[Batch]:
    """Yields minibatches of whole columns."""
    device = batch["task"].device
    initial_state = batch.get(INITIAL_STATE)
    over_time = {name: value for name, value in batch.items() if name != INITIAL_STATE}
    for _ in range(epochs):
        order = torch.randperm(columns, generator=generator).to(device, non_blocking=True)
        for index in order.split(size):
            chosen = select(over_time, 1, index)
            if initial_state is not None:
                chosen[INITIAL_STATE] = initial_state.index_select(0, index)
            yield chosen
