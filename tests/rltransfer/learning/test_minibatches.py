"""Minibatches: every sample once an epoch, all fields alike, whole columns for sequences."""

from __future__ import annotations

import torch
from torch import Tensor

from rltransfer.learning.minibatches import INITIAL_STATE, Batch, minibatches


def rollout(time: int, columns: int) -> Batch:
    """A batch in which every tensor says where it came from: time * 100 + column."""
    place = 100 * torch.arange(time).unsqueeze(1) + torch.arange(columns)
    return {
        "task": place,
        "reward": place.float(),
        "observation": {"joints": place.unsqueeze(-1).expand(time, columns, 3), "clock": place},
        "initial_state": torch.arange(columns).unsqueeze(-1).expand(columns, 2),
    }


def steps_of(batch: Batch) -> Batch:
    """The batch without what there is once a column."""
    return {name: value for name, value in batch.items() if name != INITIAL_STATE}


def order(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_sample_once_an_epoch_and_the_last_minibatch_is_smaller():
    batch = steps_of(rollout(5, 4))
    found = list(minibatches(batch, 6, 3, order()))
    # 20 samples by 6: three whole minibatches and one of 2, in each of three epochs.
    assert [len(one["task"]) for one in found] == 3 * [6, 6, 6, 2]
    everything = sorted(batch["task"].flatten().tolist())
    orders = []
    for epoch in range(3):
        seen = torch.cat([one["task"] for one in found[4 * epoch : 4 * epoch + 4]]).tolist()
        assert sorted(seen) == everything
        orders.append(tuple(seen))
    assert len(set(orders)) == 3
    assert tuple(everything) not in orders


def test_fields_stay_together():
    for one in minibatches(steps_of(rollout(5, 4)), 6, 1, order()):
        place = one["task"]
        assert torch.equal(one["reward"], place.float())
        assert torch.equal(one["observation"]["clock"], place)
        assert torch.equal(one["observation"]["joints"], place.unsqueeze(-1).expand(-1, 3))


def test_minibatch_larger_than_all():
    (only,) = minibatches(steps_of(rollout(2, 3)), 100, 1, order())
    assert sorted(only["task"].tolist()) == [0, 1, 2, 100, 101, 102]


def test_order_is_the_generators():
    def seen(seed: int) -> list[list[int]]:
        batch = steps_of(rollout(5, 4))
        return [one["task"].tolist() for one in minibatches(batch, 6, 2, order(seed))]

    assert seen(1) == seen(1) != seen(2)


def columns_of(one: Batch) -> list[int]:
    return [int(column) for column in one["task"][0]]


def test_sequences_are_whole_columns_with_their_initial_state():
    batch = rollout(4, 5)
    # 8 samples are two columns of 4 steps.
    found = list(minibatches(batch, 8, 2, order(), sequences=True))
    assert [one["task"].shape for one in found] == 2 * [(4, 2), (4, 2), (4, 1)]
    for one in found:
        columns = torch.tensor(columns_of(one))
        expected = 100 * torch.arange(4).unsqueeze(1) + columns
        assert torch.equal(one["task"], expected)
        assert torch.equal(one["reward"], expected.float())
        assert torch.equal(one["observation"]["clock"], expected)
        assert torch.equal(one["observation"]["joints"], expected.unsqueeze(-1).expand(4, -1, 3))
        assert torch.equal(one["initial_state"], columns.unsqueeze(-1).expand(-1, 2))
    for epoch in (found[:3], found[3:]):
        assert sorted(column for one in epoch for column in columns_of(one)) == [0, 1, 2, 3, 4]


def test_sequences_longer_than_a_minibatch_come_one_by_one():
    found = list(minibatches(rollout(4, 3), 2, 1, order(), sequences=True))
    assert [one["task"].shape for one in found] == [(4, 1)] * 3


def test_gradients_reach_through_minibatches():
    weight = torch.ones(3, 2, requires_grad=True)
    batch = {"task": torch.zeros(3, 2), "x": weight}
    total: Tensor = sum(
        (one["x"].sum() for one in minibatches(batch, 4, 1, order())), torch.zeros(())
    )
    total.backward()
    assert weight.grad is not None and weight.grad.tolist() == [[1, 1]] * 3
