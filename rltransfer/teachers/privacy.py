"""How much privacy noisy votes cost: the moments accountant of private aggregation.

A vote publishes the winner of counts to which Laplace noise of scale b was added. Whoever changes
the data of one voter changes two counts by one at the most, so that each winner is
(2 / b, 0)-differentially private for that voter's data. With gamma = 1 / b, the logarithm alpha(l)
of the privacy loss's moment of order l > 0 is at most 2 gamma^2 l (l + 1). Moments of several votes
add, and

    epsilon = min over l of (alpha(l) + ln(1 / delta)) / l

Source: Papernot 2016 (arXiv 1610.05755), section 3 and appendix A; Abadi 2016 (arXiv 1607.00133).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ORDERS = (*range(1, 33), 40, 50, 64, 80, 100, 128, 200, 256)
"""The moments' orders l that are added up where the bound depends on the votes."""
LARGEST_EXPONENT = 700.0
"""Below it, the exponential is finite in float64."""


def laplace_epsilon(votes: int, noise_scale: float, delta: float) -> float:
    """Returns the epsilon that votes have cost, whatever was voted.

    The smaller of 2 gamma votes, plain composition, and the minimum over all l > 0 of
    2 gamma^2 (l + 1) votes + ln(1 / delta) / l, which lies where
    l^2 = ln(1 / delta) / (2 gamma^2 votes).

    Args:
        votes: How many were taken.
        noise_scale: b, the scale of the Laplace noise, in votes.
        delta: The chance that the bound does not hold.
    """
    if noise_scale == 0:
        return math.inf if votes else 0.0
    gamma = 1 / noise_scale
    spent = 2 * gamma**2 * votes
    return min(2 * gamma * votes, spent + 2 * math.sqrt(spent * math.log(1 / delta)))


def vote_moments(counts: Tensor, legal: Tensor, noise_scale: float, orders: Tensor) -> Tensor:
    """Returns a bound of each vote's moments that depends on how clear the vote was.

    With q >= Pr[another than the leader wins] = sum over the others of
    (2 + gamma gap) / (4 exp(gamma gap)) and q < 1 / (exp(2 gamma) + 1),
    alpha(l) <= ln((1 - q) ((1 - q) / (1 - exp(2 gamma) q))^l + q exp(2 gamma l)).
    Where that does not hold or says less, it is the bound that holds for every vote.

    Source: Papernot 2016, theorem 3 and lemma 4.

    Args:
        counts: Votes for each action.                 (rows, num_actions)
        legal: Which actions may win.                  (rows, num_actions)
        noise_scale: b, the scale of the Laplace noise, above 0.
        orders: l, float64.                            (num_orders,)

    Returns:
        alpha at each order, float64.                  (rows, num_orders)
    """
    gamma = 1 / noise_scale
    counts = counts.double().masked_fill(~legal, -math.inf)
    most, leader = counts.max(-1, keepdim=True)
    gap = gamma * (most - counts)
    wins = ((2 + gap) / 4 * (-gap).exp()).masked_fill(~legal, 0.0).scatter(-1, leader, 0.0)
    q = wins.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    growth = math.exp(2 * gamma) if 2 * gamma < LARGEST_EXPONENT else math.inf
    stays = torch.log1p(-q)
    clear = torch.logaddexp(
        stays + orders * (stays - torch.log1p(-growth * q)), q.log() + 2 * gamma * orders
    )
    always = torch.minimum(2 * gamma**2 * orders * (orders + 1), 2 * gamma * orders)
    return torch.where(q < 1 / (growth + 1), torch.minimum(clear.clamp(min=0), always), always)


def epsilon_of_moments(moments: Tensor, delta: float) -> float:
    """Returns the epsilon that votes have cost.

    Args:
        moments: The sum of the votes' moments.    (len(ORDERS),)
        delta: The chance that the bound does not hold.
    """
    found = zip(moments.tolist(), ORDERS, strict=True)
    epsilons: list[float] = [(moment + math.log(1 / delta)) / order for moment, order in found]
    return min(epsilons)
