"""The privacy cost of noisy votes: the moments accountant of private aggregation.

A vote publishes the winner of counts with added Laplace noise of scale b. Changing the data of one
voter changes at most two counts, by one each, so each winner is (2 / b, 0)-differentially private
for the data of that voter. With gamma = 1 / b, the log moment alpha(l) of the privacy loss at order
l > 0 is at most 2 gamma^2 l (l + 1). Moments of several votes add, and

    epsilon = min over l of (alpha(l) + ln(1 / delta)) / l

Source: Papernot 2016 (arXiv 1610.05755), section 3 and appendix A; Abadi 2016 (arXiv 1607.00133).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ORDERS = (*range(1, 33), 40, 50, 64, 80, 100, 128, 200, 256)
"""The orders l of the moments, for the bound that depends on the votes."""
LARGEST_EXPONENT = 700.0
"""Below it, the exponential is finite in float64."""


def laplace_epsilon(votes: int, noise_scale: float, delta: float) -> float:
    """The epsilon of some votes, whatever their outcome.

    The smaller of 2 gamma votes, plain composition, and the minimum over all l > 0 of
    2 gamma^2 (l + 1) votes + ln(1 / delta) / l, at l^2 = ln(1 / delta) / (2 gamma^2 votes).

    Args:
        votes: Number of votes.
        noise_scale: b, the scale of the Laplace noise, in votes.
        delta: The probability that the bound does not hold.
    """
    if noise_scale == 0:
        return math.inf if votes else 0.0
    gamma = 1 / noise_scale
    spent = 2 * gamma**2 * votes
    return min(2 * gamma * votes, spent + 2 * math.sqrt(spent * math.log(1 / delta)))


def vote_moments(counts: Tensor, available: Tensor, noise_scale: float, orders: Tensor) -> Tensor:
    """A bound on the moments of each vote, which is smaller for clear votes.

    With q >= Pr[another than the leader wins] = sum over the others of
    (2 + gamma gap) / (4 exp(gamma gap)) and q < 1 / (exp(2 gamma) + 1),
    alpha(l) <= ln((1 - q) ((1 - q) / (1 - exp(2 gamma) q))^l + q exp(2 gamma l)).
    Otherwise, or where it is smaller, the result is the bound that holds for every vote.

    Source: Papernot 2016, theorem 3 and lemma 4.

    Args:
        counts: Votes for each action.                 (rows, num_actions)
        available: Which actions may win.              (rows, num_actions)
        noise_scale: b, the scale of the Laplace noise, above 0.
        orders: l, float64.                            (num_orders,)

    Returns:
        alpha at each order, float64.                  (rows, num_orders)
    """
    gamma = 1 / noise_scale
    counts = counts.double().masked_fill(~available, -math.inf)
    most, leader = counts.max(-1, keepdim=True)
    gap = gamma * (most - counts)
    wins = ((2 + gap) / 4 * (-gap).exp()).masked_fill(~available, 0.0).scatter(-1, leader, 0.0)
    q = wins.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    growth = math.exp(2 * gamma) if 2 * gamma < LARGEST_EXPONENT else math.inf
    stays = torch.log1p(-q)
    clear = torch.logaddexp(
        stays + orders * (stays - torch.log1p(-growth * q)), q.log() + 2 * gamma * orders
    )
    always = torch.minimum(2 * gamma**2 * orders * (orders + 1), 2 * gamma * orders)
    return torch.where(q < 1 / (growth + 1), torch.minimum(clear.clamp(min=0), always), always)


def epsilon_of_moments(moments: Tensor, delta: float) -> float:
    """The epsilon of some votes from their moments.

    Args:
        moments: The sum of the moments of all votes.    (len(ORDERS),)
        delta: The probability that the bound does not hold.
    """
    bounds = zip(moments.tolist(), ORDERS, strict=True)
    return float(min((moment + math.log(1 / delta)) / order for moment, order in bounds))
