"""Multiply-adds of networks, counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rltransfer.agents.distral_policy import DistralSpec
from rltransfer.policies.network import Network
from rltransfer.policies.policy import PolicySpec
from rltransfer.policies.work import multiply_adds, row_work

VECTOR = spaces.Box(-1, 1, (8,), np.float32)
PLANES = spaces.Box(0, 1, (4, 10, 10), np.float32)
FRAMES = spaces.Box(0, 255, (4, 84, 84), np.uint8)


def work(network: Network, space: spaces.Box, **rest: Any) -> int:
    spec = PolicySpec(network, spaces.Dict({"policy": space}), spaces.Discrete(6), **rest)
    return row_work(spec.build())


def test_of_an_mlp() -> None:
    # Two networks of 8 x 64 + 64 x 64, for the actions and for the value, with 6 and 1 outputs.
    assert work(Network(), VECTOR) == 2 * (8 * 64 + 64 * 64) + 64 * 6 + 64
    assert work(Network(), VECTOR, value=False) == 8 * 64 + 64 * 64 + 64 * 6


def test_of_convolutions() -> None:
    # Weights of 3 x 3 at 8 x 8 places, then 1,024 x 128.
    grid = 9 * 4 * 16 * 8 * 8 + 1024 * 128 + 128 * 6
    assert work(Network(), PLANES, value=False) == grid
    nature = 64 * 4 * 32 * 20 * 20 + 16 * 32 * 64 * 9 * 9 + 9 * 64 * 64 * 7 * 7 + 3136 * 512
    assert work(Network(), FRAMES, value=False) == nature + 512 * 6


def test_of_a_gru() -> None:
    # Three gates of inputs and of the state.
    found = work(Network(hidden=(16,), gru=10), VECTOR, value=False)
    assert found == 8 * 16 + 3 * 10 * (16 + 10) + 10 * 6


def test_of_several_columns() -> None:
    spec = DistralSpec(
        Network(hidden=(16,)), spaces.Dict({"policy": VECTOR}), spaces.Discrete(6),
        value=False, num_tasks=3,
    )  # fmt: skip
    column = 8 * 16 + 16 * 6
    assert row_work(spec.build()) == (1 + 3) * column


def test_counting_leaves_nothing_behind() -> None:
    spec = PolicySpec(Network(), spaces.Dict({"policy": VECTOR}), spaces.Discrete(6))
    policy = spec.build()
    before, random = policy.state_dict(), torch.get_rng_state()
    assert row_work(policy) == row_work(policy)
    assert all(not module._forward_hooks for module in policy.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(policy.state_dict()[name], value) for name, value in before.items())
    broken = nn.Linear(2, 2)
    with pytest.raises(RuntimeError):
        multiply_adds(broken, torch.zeros(1, 3))
    assert not broken._forward_hooks
