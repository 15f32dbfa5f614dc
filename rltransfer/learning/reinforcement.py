"""Reinforcement learning on tensors: returns, advantages and losses, time first.

Conventions: at step t the environment was in a state of value `value[t]`, gave `reward[t]` and went
to a state of value `next_value[t]`, which counts unless the episode `terminated[t]`. `done[t]` says
that the episode ended there, by termination or truncation, so that nothing flows back across it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def generalized_advantage(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    done: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Returns the generalised advantage estimates.    (time, batch)

    A_t = delta_t + gamma * gae_lambda * A_{t+1}, with
    delta_t = r_t + gamma * V(s_{t+1}) - V(s_t).

    Source: Schulman 2015 (arXiv 1506.02438), eq. 16.

    Args:
        reward: r_t.                                              (time, batch)
        value: V(s_t).                                            (time, batch)
        next_value: V of the state that followed, before a reset. (time, batch)
        terminated: Whether that state ended the episode.         (time, batch)
        done: Whether the episode ended, for whatever reason.     (time, batch)
        gamma: gamma.
        gae_lambda: lambda, 0 for one-step and 1 for Monte-Carlo estimates.
    """
    delta = reward + gamma * next_value * ~terminated - value
    carry = gamma * gae_lambda * (~done).to(reward.dtype)
    advantage = torch.empty_like(delta)
    following = torch.zeros_like(delta[0])
    steps = zip(delta.unbind(), carry.unbind(), advantage.unbind(), strict=True)
    for one, share, out in reversed(list(steps)):
        following = torch.addcmul(one, share, following, out=out)
    return advantage


def lambda_returns(
    reward: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    done: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Returns lambda-returns over greedy values, Peng's Q(lambda).    (time, batch)

    R_t = r_t + gamma * ((1 - lambda) * max_a Q(s_{t+1}, a) + lambda * R_{t+1}), where an episode's
    end and the rollout's end take max_a Q(s_{t+1}, a) alone.

    Source: Gallici 2024 (arXiv 2407.04811), section 4.

    Args:
        reward: r_t.                                                (time, batch)
        next_value: max_a Q of the state that followed.             (time, batch)
        terminated: Whether that state ended the episode.           (time, batch)
        done: Whether the episode ended, for whatever reason.       (time, batch)
        gamma: gamma.
        gae_lambda: lambda.
    """
    one_step = reward + gamma * next_value * ~terminated
    carry = gamma * gae_lambda * (~done).to(reward.dtype)
    target = torch.empty_like(reward)
    target[-1] = one_step[-1]
    for time in reversed(range(len(reward) - 1)):
        # one_step holds gamma * V already: swap a share lambda of it for the return that follows.
        torch.addcmul(
            one_step[time], carry[time], target[time + 1] - next_value[time], out=target[time]
        )
    return target


def clipped_policy_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_range: float
) -> Tensor:
    """Returns each sample's clipped surrogate, to be minimised.    (batch,)

    L = -min(rho A, clip_range(rho, 1 - clip_range, 1 + clip_range) A), rho = pi(a) / pi_old(a).

    Source: Schulman 2017 (arXiv 1707.06347), eq. 7.

    Args:
        log_prob: log pi(a) now.                       (batch,)
        old_log_prob: log pi_old(a), when it was taken. (batch,)
        advantage: A.                                  (batch,)
        clip_range: How far the ratio may move before its gradient is cut.
    """
    ratio = (log_prob - old_log_prob).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(ratio * advantage, clipped * advantage)
