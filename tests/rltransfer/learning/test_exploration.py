"""How often random actions are taken, and which."""

from __future__ import annotations

import pytest
import torch

from rltransfer.learning.exploration import epsilon_greedy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("num_actions", [3, 18])
def test_frequencies(share: float, num_actions: int):
    rows = 200_000
    action = torch.full((rows,), 2)
    taken = epsilon_greedy(action, torch.full((rows,), num_actions), share, generator())
    assert taken.dtype == torch.int64
    counts = taken.bincount(minlength=num_actions)
    # Random ones are uniform, the chosen action among them.
    expected = torch.full((num_actions,), share / num_actions)
    expected[2] += 1 - share
    assert len(counts) == num_actions
    # Tolerance: 5 standard deviations of a share, sqrt(0.25 / 200,000) = 0.0011 at most.
    deviation = (expected * (1 - expected) / rows).sqrt()
    assert ((counts / rows - expected).abs() <= 5 * deviation + 1e-9).all()


def test_each_row_takes_its_own_tasks_actions():
    num_actions = torch.tensor([2, 6]).repeat(20_000)
    taken = epsilon_greedy(torch.zeros(40_000, dtype=torch.int64), num_actions, 1.0, generator())
    for offset, count in ((0, 2), (1, 6)):
        shares = taken[offset::2].bincount() / 20_000
        # Tolerance: 5 standard deviations of a share, 0.0035 at most.
        torch.testing.assert_close(shares, torch.full((count,), 1 / count), atol=0.018, rtol=0)


def test_no_exploration_changes_nothing():
    action = torch.arange(5)
    assert epsilon_greedy(action, torch.full((5,), 5), 0.0, generator()).equal(action)


def test_same_generator_same_actions():
    def taken(seed: int) -> list[int]:
        action, num_actions = torch.zeros(100, dtype=torch.int64), torch.full((100,), 6)
        return epsilon_greedy(action, num_actions, 0.5, generator(seed)).tolist()

    assert taken(1) == taken(1) != taken(2)
