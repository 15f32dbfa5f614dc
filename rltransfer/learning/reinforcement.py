"""Returns, advantages and policy losses, as functions of tensors with time first.

At step t the environment is in a state of value `value[t]`, returns `reward[t]` and moves to a
state of value `next_value[t]`. `terminated[t]`: that state is terminal, and its value is 0.
`done[t]`: the episode ended, by termination or truncation, and no later step affects step t.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rltransfer.machine import distributed
from rltransfer.rollouts.rollout import Rollout
from rltransfer.tasks.observation import Observation

ADVANTAGE_EPSILON = 1e-8
"""Added to the standard deviation that advantages are divided by."""


def next_values(
    rollout: Rollout,
    value: Tensor,
    last_value: Tensor,
    value_of: Callable[[Observation, Tensor], Tensor],
) -> Tensor:
    """V(s_{t+1}) of each step, before any reset.    (time, rows)

    Args:
        rollout: The steps.
        value: V(s_t).                                                       (time, rows)
        last_value: V of the state after the last step.                      (rows,)
        value_of: V of the observations (n, ...) of tasks (n,), for those that followed truncated
            episodes; recurrent policies start there from a zero state.
    """
    following = torch.cat([value[1:], last_value.unsqueeze(0)])
    if rollout.final_obs is not None:
        where = rollout.final_obs.time, rollout.final_obs.rows
        following[where] = value_of(rollout.final_obs.observation, rollout.task[where])
    return following


def generalized_advantage(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    done: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Generalised advantage estimates.    (time, batch)

    A_t = delta_t + gamma * gae_lambda * A_{t+1}, with
    delta_t = r_t + gamma * V(s_{t+1}) - V(s_t).

    Source: Schulman 2015 (arXiv 1506.02438), eq. 16.

    Args:
        reward: r_t.                                              (time, batch)
        value: V(s_t).                                            (time, batch)
        next_value: V(s_{t+1}), before any reset.                 (time, batch)
        terminated: Whether s_{t+1} is terminal.                  (time, batch)
        done: Whether the episode ended at step t.                (time, batch)
        gamma: The discount.
        gae_lambda: 0 for one-step, 1 for Monte-Carlo estimates.
    """
    delta = reward + gamma * next_value * ~terminated - value
    carry = gamma * gae_lambda * (~done).to(reward.dtype)
    advantage = torch.empty_like(delta)
    following = torch.zeros_like(delta[0])
    steps = zip(delta.unbind(), carry.unbind(), advantage.unbind(), strict=True)
    for error, factor, out in reversed(list(steps)):
        following = torch.addcmul(error, factor, following, out=out)
    return advantage


def lambda_returns(
    reward: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    done: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Lambda-returns over greedy values, Peng's Q(lambda).    (time, batch)

    R_t = r_t + gamma * ((1 - lambda) * max_a Q(s_{t+1}, a) + lambda * R_{t+1}); at the end of an
    episode and of the rollout, R_{t+1} is replaced by max_a Q(s_{t+1}, a).

    Source: Gallici 2024 (arXiv 2407.04811), section 4.

    Args:
        reward: r_t.                                                (time, batch)
        next_value: max_a Q(s_{t+1}, a).                            (time, batch)
        terminated: Whether s_{t+1} is terminal.                    (time, batch)
        done: Whether the episode ended at step t.                  (time, batch)
        gamma: The discount.
        gae_lambda: lambda.
    """
    one_step = reward + gamma * next_value * ~terminated
    carry = gamma * gae_lambda * (~done).to(reward.dtype)
    target = torch.empty_like(reward)
    target[-1] = one_step[-1]
    for time in reversed(range(len(reward) - 1)):
        # one_step includes gamma * V: replace the fraction lambda of it by the next return.
        difference = target[time + 1] - next_value[time]
        torch.addcmul(one_step[time], carry[time], difference, out=target[time])
    return target


def weighted_mean(samples: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean of one process's samples, to be averaged evenly over the processes.    ()

    Args:
        samples: Equally many in each process.         (...)
        weight: Weight of each sample; 1 if None.      (...)
    """
    if weight is None:
        return samples.mean()
    # Processes with more weight count more: the divisor is their mean, not each one's own.
    processes = distributed.world_size()
    divisor = (distributed.total(weight.sum()) / processes).clamp(min=1.0 / processes)
    return (samples * weight).sum() / divisor


def normalized_advantage(
    advantage: Tensor, task: Tensor | None, num_tasks: int, weight: Tensor | None = None
) -> Tensor:
    """A minibatch's advantages with mean 0 and standard deviation 1 within each task.    (...)

    The statistics are those of all processes. If they were those of all tasks together, the tasks
    with small rewards would not be learned alongside one with large rewards.

    Args:
        advantage: The advantages.                                          (...)
        task: Index of each sample's task; required with several tasks.     (...)
        num_tasks: Number of tasks.
        weight: Weight of each sample; 1 if None.                           (...)
    """
    if num_tasks == 1:
        center = _mean_of_all(advantage, weight)
        centered = advantage - center
        return centered / (_mean_of_all(centered.square(), weight).sqrt() + ADVANTAGE_EPSILON)
    assert task is not None
    member = F.one_hot(task.flatten(), num_tasks).to(advantage.dtype)
    if weight is not None:
        member = member * weight.reshape(-1, 1)
    count = distributed.total(member.sum(0)).clamp(min=1.0)

    def of_task(samples: Tensor) -> Tensor:
        """The mean of each sample's task.    (...)"""
        # Not a matrix product, which mixed precision would round to bfloat16.
        means = distributed.total((samples.reshape(-1, 1) * member).sum(0)) / count
        return means[task]

    centered = advantage - of_task(advantage)
    return centered / (of_task(centered.square()).sqrt() + ADVANTAGE_EPSILON)


def _mean_of_all(samples: Tensor, weight: Tensor | None) -> Tensor:
    """The mean over all samples of all processes.    ()"""
    return distributed.total(weighted_mean(samples, weight)) / distributed.world_size()


def clipped_policy_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_range: float
) -> Tensor:
    """Each sample's clipped surrogate, to be minimised.    (batch,)

    L = -min(rho A, clip_range(rho, 1 - clip_range, 1 + clip_range) A), rho = pi(a) / pi_old(a).

    Source: Schulman 2017 (arXiv 1707.06347), eq. 7.

    Args:
        log_prob: log pi(a).            (batch,)
        old_log_prob: log pi_old(a).    (batch,)
        advantage: A.                   (batch,)
        clip_range: Distance of the ratio from 1 beyond which its gradient is 0.
    """
    ratio = (log_prob - old_log_prob).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(ratio * advantage, clipped * advantage)
