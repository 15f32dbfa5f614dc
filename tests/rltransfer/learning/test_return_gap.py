"""How far a student lags: worked by hand, right for negative returns, and after a resume."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rltransfer.learning.return_gap import FORGETTING, ReturnGap

CPU = torch.device("cpu")


def heard(lag: ReturnGap, *episodes: tuple[int, float], rows: int = 2, time: int = 4) -> None:
    """Lets rows end episodes with these returns, one after the other in time."""
    returns, done = torch.zeros(time, rows), torch.zeros(time, rows, dtype=torch.bool)
    for when, (row, value) in enumerate(episodes):
        returns[when, row], done[when, row] = value, True
    lag.update(returns, done)


def shares(teacher: list[float], random: list[float], *episodes: tuple[int, float]) -> Tensor:
    lag = ReturnGap(2, CPU)
    lag.set_reference_returns(teacher, random)
    heard(lag, *episodes)
    return lag.lag


def test_worked_by_hand() -> None:
    # (10 - 4) / (10 - 2) = 0.75; (-100 - -150) / (-100 - -200) = 0.5.
    found = shares([10.0, -100.0], [2.0, -200.0], (0, 4.0), (1, -150.0))
    assert found.tolist() == pytest.approx([0.75, 0.5])


def test_it_is_within_its_bounds() -> None:
    # Better than the teacher: 0. Worse than a random policy: 1.
    assert shares([10.0, 10.0], [0.0, 0.0], (0, 12.0), (1, -5.0)).tolist() == [0.0, 1.0]


def test_what_is_not_known_counts_as_all_of_the_way() -> None:
    assert ReturnGap(2, CPU).lag.tolist() == [1.0, 1.0]
    assert shares([10.0, 10.0], [0.0, 0.0], (0, 5.0)).tolist() == pytest.approx([0.5, 1.0])
    # A teacher that plays like a random policy.
    assert shares([3.0, 3.0], [3.0, 3.0], (0, 3.0), (1, 1.0)).tolist() == [1.0, 1.0]
    # One that plays worse: between the two, and above both.
    assert shares([1.0, 1.0], [3.0, 3.0], (0, 2.0), (1, 4.0)).tolist() == [1.0, 1.0]


def test_later_episodes_count_more() -> None:
    lag = ReturnGap(1, CPU)
    lag.set_reference_returns([1.0], [0.0])
    heard(lag, (0, 0.0), rows=1)
    heard(lag, (0, 1.0), (0, 1.0), rows=1)
    # Two episodes of 1 after one of 0: the mean is 1 - FORGETTING ** 2.
    assert lag.lag.item() == pytest.approx(FORGETTING**2, abs=1e-6)


def test_it_goes_on_where_it_was() -> None:
    lag, other = ReturnGap(2, CPU), ReturnGap(2, CPU)
    for one in (lag, other):
        one.set_reference_returns([10.0, 10.0], [0.0, 0.0])
    heard(lag, (0, 4.0))
    other.load_state_dict(lag.state_dict())
    for one in (lag, other):
        heard(one, (0, 8.0), (1, 5.0))
    assert torch.equal(lag.lag, other.lag)
