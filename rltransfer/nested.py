"""Nested dictionaries of tensors: what rollouts, memories and minibatches consist of.

Plain dictionaries, and not a `TensorDict`: for a minibatch of small tensors its bookkeeping takes
longer than the indexing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

Nested = dict[str, Any]
"""Tensors by name, or dictionaries of the same kind, e.g. the groups of an observation."""

Path = tuple[str, ...]
"""The names that lead to a tensor."""


def map_nested(function: Callable[[Tensor], Tensor], tree: Nested) -> Nested:
    """The same tree with the function applied to every tensor."""
    return {
        name: map_nested(function, value) if isinstance(value, dict) else function(value)
        for name, value in tree.items()
    }


def select(tree: Nested, axis: int, index: Tensor) -> Nested:
    """The same tree with some entries of an axis of every tensor.

    Args:
        tree: The tensors.
        axis: Which axis.
        index: The entries, int64.    (n,)
    """
    return map_nested(lambda tensor: tensor.index_select(axis, index), tree)


def leaves(tree: Nested, above: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Yields every tensor with the names that lead to it."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*above, name))
        else:
            yield (*above, name), value


def from_leaves(tensors: Mapping[Path, Tensor]) -> Nested:
    """The tree whose leaves these are."""
    tree: Nested = {}
    for (*above, name), tensor in tensors.items():
        branch = tree
        for step in above:
            branch = branch.setdefault(step, {})
        branch[name] = tensor
    return tree
