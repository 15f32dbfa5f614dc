"""Rewards in units of the returns, worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rltransfer.learning.reward_scale import LARGEST, RewardScale

CPU = torch.device("cpu")


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).unsqueeze(1)


def scaled(scale: RewardScale, reward: Tensor, done: Tensor | None = None) -> list[float]:
    done = torch.zeros_like(reward, dtype=torch.bool) if done is None else done.bool()
    task = torch.zeros_like(reward, dtype=torch.int64)
    return scale.scaled(reward, done, task).flatten().tolist()


def test_worked_by_hand() -> None:
    scale = RewardScale(num_rows=1, num_tasks=1, gamma=0.5, device=CPU)
    # Returns of 1 and 0.5 + 2 = 2.5: their mean is 1.75, their standard deviation 0.75.
    assert scaled(scale, column(1, 2)) == pytest.approx([1 / 0.75, 2 / 0.75])
    # The episode goes on: 1.25 + 1 = 2.25, and ends. The next one begins with 3, not 4.125.
    found = scaled(scale, column(1, 3), column(1, 0))
    std = torch.tensor([1, 2.5, 2.25, 3]).std(correction=0).item()
    assert found == pytest.approx([1 / std, 3 / std])


def test_a_scaled_reward_is_bounded() -> None:
    scale = RewardScale(1, 1, 0.0, CPU)
    # A thousand returns of 0 and one of -5: the standard deviation is about 0.16.
    rewards = torch.zeros(1001, 1)
    rewards[500] = -5
    assert scaled(scale, rewards)[500] == -LARGEST
    # Rewards that never differ have no scale: they are bounded, too.
    assert set(scaled(RewardScale(1, 1, 0.0, CPU), torch.ones(4, 1))) == {LARGEST}
    assert scaled(RewardScale(1, 1, 0.0, CPU), torch.zeros(4, 1)) == [0.0] * 4


def test_each_task_has_its_own_scale() -> None:
    together = RewardScale(num_rows=2, num_tasks=2, gamma=0.9, device=CPU)
    reward = torch.randn(30, 2, generator=torch.Generator().manual_seed(0)) + 1
    done = torch.zeros(30, 2, dtype=torch.bool)
    done[[4, 11, 20], [0, 1, 0]] = True
    task = torch.tensor([0, 1]).expand(30, -1)
    large = reward * torch.tensor([1.0, 1_000.0])
    found = together.scaled(large, done, task)
    for row in range(2):
        alone = RewardScale(1, 1, 0.9, CPU)
        one = slice(row, row + 1)
        expected = scaled(alone, large[:, one], done[:, one])
        assert found[:, row].tolist() == pytest.approx(expected, rel=1e-5)
    assert 0.5 < found.std(0)[0] / found.std(0)[1] < 2


def test_it_continues_from_its_state() -> None:
    first, second = (RewardScale(1, 1, 0.9, CPU) for _ in range(2))
    scaled(first, column(1, 5, 2))
    second.load_state_dict(first.state_dict())
    assert scaled(second, column(3, 4)) == scaled(first, column(3, 4))
