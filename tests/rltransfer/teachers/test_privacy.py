"""The privacy accountant beside closed forms and the exact loss of votes between two actions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from rltransfer.teachers.privacy import ORDERS, epsilon_of_moments, laplace_epsilon, vote_moments

ORDER = torch.tensor(ORDERS, dtype=torch.float64)


def moments(counts: Sequence[float], scale: float, illegal: int = 0) -> torch.Tensor:
    legal = torch.tensor([True] * len(counts) + [False] * illegal)
    votes = torch.tensor([[*counts, *[0.0] * illegal]])
    return vote_moments(votes, legal.unsqueeze(0), scale, ORDER)[0]


def wins(gap: float) -> float:
    """Probability that the first of two actions wins, ahead by `gap` scales of the noise.

    The difference of two Laplace variables is above g >= 0 with probability (2 + g) / 4 exp(-g).
    """
    tail = (2 + abs(gap)) / 4 * math.exp(-abs(gap))
    return 1 - tail if gap >= 0 else tail


def exact_moment(gap: float, neighbour: float, order: float) -> float:
    """ln of the mean, over the winner, of (its probability / that among neighbours)^order."""
    terms = [
        math.log(p) + order * (math.log(p) - math.log(q))
        for p, q in ((wins(gap), wins(neighbour)), (wins(-gap), wins(-neighbour)))
    ]
    return float(np.logaddexp(*terms))


def test_votes_cost_the_closed_form() -> None:
    # One vote with noise of scale 20: plain composition, 2 / 20.
    assert laplace_epsilon(1, 20.0, 1e-5) == pytest.approx(0.1)
    # The setting of the paper's section 4.2: gamma = 0.05, 100 labels, delta = 1e-5. By moments
    # 2 * 0.0025 * 100 + 2 * 0.05 sqrt(200 ln 1e5) = 0.5 + 4.799; plain composition costs 10, and
    # the strong composition that the paper compares with 5.80.
    assert laplace_epsilon(100, 20.0, 1e-5) == pytest.approx(5.2985, abs=1e-4)
    assert laplace_epsilon(0, 20.0, 1e-5) == 0
    assert laplace_epsilon(1, 0.0, 1e-5) == math.inf


@pytest.mark.parametrize("votes", [10, 1_000, 100_000])
def test_the_closed_form_is_the_smallest_over_all_orders(votes: int) -> None:
    scale, delta = 50.0, 1e-6
    orders = np.geomspace(1e-3, 1e4, 200_000)
    found = (2 / scale**2 * orders * (orders + 1) * votes + math.log(1 / delta)) / orders
    expected = min(found.min(), 2 * votes / scale)
    assert laplace_epsilon(votes, scale, delta) == pytest.approx(expected, rel=1e-6)


def test_more_labels_cost_more_and_more_noise_costs_less() -> None:
    costs = [laplace_epsilon(votes, 30.0, 1e-5) for votes in (1, 2, 100, 101, 10_000)]
    assert costs == sorted(costs) and len(set(costs)) == len(costs)
    assert laplace_epsilon(100, 60.0, 1e-5) < laplace_epsilon(100, 30.0, 1e-5)
    assert laplace_epsilon(100, 30.0, 1e-3) < laplace_epsilon(100, 30.0, 1e-5)


@pytest.mark.parametrize("scale", [0.5, 2.0, 10.0, 40.0])
@pytest.mark.parametrize("ahead", [0, 1, 5, 40, 200, 300])
def test_moments_bound_the_exact_ones(scale: float, ahead: int) -> None:
    found = moments([ahead + 7, 7], scale)
    for order, bound in zip(ORDERS, found.tolist(), strict=True):
        # A neighbour has one vote more for one action and one less for the other.
        for other in (ahead - 2, ahead + 2):
            exact = exact_moment(ahead / scale, other / scale, order)
            assert exact <= bound + 1e-12, (order, other)
        assert bound <= 2 * order * (order + 1) / scale**2 + 1e-12


def test_moments_of_a_clear_vote_by_hand() -> None:
    # gamma = 0.1, gap 100: q = (2 + 10) / 4 exp(-10) = 1.362e-4. At l = 1:
    # ln((1 - q) (1 - q) / (1 - e^0.2 q) + q e^0.2)
    q = 3 * math.exp(-10)
    grown = math.exp(0.2)
    expected = math.log((1 - q) ** 2 / (1 - grown * q) + q * grown)
    assert moments([150, 50], 10.0)[0].item() == pytest.approx(expected, rel=1e-9)
    # A third action that is as far behind doubles q; one that is illegal changes nothing.
    q *= 2
    expected = math.log((1 - q) ** 2 / (1 - grown * q) + q * grown)
    assert moments([150, 50, 50], 10.0)[0].item() == pytest.approx(expected, rel=1e-9)
    assert torch.equal(moments([150, 50], 10.0), moments([150, 50], 10.0, illegal=2))


def test_where_the_vote_is_open_the_bound_is_that_of_any_vote() -> None:
    # q = 1/2 is not below 1 / (exp(0.2) + 1): 2 gamma^2 l (l + 1), and 2 gamma l from l = 9 on.
    found = moments([100, 100], 10.0)
    assert found[:3].tolist() == pytest.approx([0.04, 0.12, 0.24])
    assert found[ORDERS.index(9)].item() == pytest.approx(1.8)
    assert found[ORDERS.index(100)].item() == pytest.approx(20.0)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("ahead", [0, 1, 10_000])
def test_moments_stay_finite(scale: float, ahead: int) -> None:
    found = moments([ahead, 0, 0], scale)
    assert found.isfinite().all() and (found >= 0).all()


def test_epsilon_is_the_smallest_over_the_orders() -> None:
    # ln(1 / delta) = 5: 1 + 5 at l = 1, (3 + 5) / 2 at l = 2, (12 + 5) / 3 at l = 3, more after.
    spent = torch.full((len(ORDERS),), 1e6)
    spent[:3] = torch.tensor([1.0, 3.0, 12.0])
    assert epsilon_of_moments(spent, math.exp(-5)) == pytest.approx(4.0)


def test_clear_votes_cost_less() -> None:
    clear, split = moments([240, 10], 20.0), moments([130, 120], 20.0)
    found = [epsilon_of_moments(1_000 * one, 1e-5) for one in (clear, split)]
    assert found[0] < 0.2 * found[1]
    # Over whole orders alone the bound for any vote is not much larger than its closed form.
    assert found[1] == pytest.approx(laplace_epsilon(1_000, 20.0, 1e-5), rel=0.05)
