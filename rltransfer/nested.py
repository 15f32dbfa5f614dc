"""Nested dictionaries of tensors, as in rollouts, replay buffers and minibatches.

Plain dictionaries, as the bookkeeping of a `TensorDict` takes longer than indexing a minibatch of
small tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

Nested = dict[str, Any]
"""Tensors or nested dictionaries by name, e.g. the groups of an observation."""

Path = tuple[str, ...]
"""The names on the way to a tensor."""


def map_nested(function: Callable[[Tensor], Tensor], tree: Nested) -> Nested:
    """Applies a function to every tensor."""
    return {
        name: map_nested(function, value) if isinstance(value, dict) else function(value)
        for name, value in tree.items()
    }


def select(tree: Nested, axis: int, index: Tensor) -> Nested:
    """Selects the entries `index`, int64 (n,), along an axis of every tensor."""
    return map_nested(lambda tensor: tensor.index_select(axis, index), tree)


def leaves(tree: Nested, above: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Yields every tensor with its path."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*above, name))
        else:
            yield (*above, name), value


def from_leaves(tensors: Mapping[Path, Tensor]) -> Nested:
    """Inverse of `leaves`."""
    tree: Nested = {}
    for (*above, name), tensor in tensors.items():
        branch = tree
        for step in above:
            branch = branch.setdefault(step, {})
        branch[name] = tensor
    return tree
