"""Nested dictionaries of tensors: every leaf is reached, and trees come back as they were."""

from __future__ import annotations

import torch

from rltransfer.nested import from_leaves, leaves, map_nested, select


def test_map_nested_reaches_every_tensor() -> None:
    tree = {"a": torch.tensor(1), "b": {"c": torch.tensor(2), "d": {"e": torch.tensor(3)}}}
    doubled = map_nested(lambda tensor: 2 * tensor, tree)
    assert doubled == {"a": 2, "b": {"c": 4, "d": {"e": 6}}}
    assert tree["a"] == 1


def test_a_tree_comes_back_from_its_leaves() -> None:
    tree = {"a": torch.tensor(1), "b": {"c": torch.tensor(2), "d": {"e": torch.tensor(3)}}}
    named = dict(leaves(tree))
    assert named == {("a",): 1, ("b", "c"): 2, ("b", "d", "e"): 3}
    assert from_leaves(named) == tree


def test_select_takes_entries_of_an_axis() -> None:
    tree = {"a": torch.arange(6).view(2, 3), "b": {"c": torch.arange(12).view(2, 3, 2)}}
    found = select(tree, 1, torch.tensor([2, 0]))
    assert found["a"].tolist() == [[2, 0], [5, 3]]
    assert found["b"]["c"].tolist() == [[[4, 5], [0, 1]], [[10, 11], [6, 7]]]
