"""Returns and advantages by hand and against the definitions; the clipped surrogate's gradient."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import SHORT_TASK

from rltransfer.learning.reinforcement import (
    clipped_policy_loss,
    generalized_advantage,
    lambda_returns,
    next_values,
    normalized_advantage,
)
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.tasks.task import Suite


def column(*numbers: float) -> Tensor:
    """One environment's steps.    (time, 1)"""
    return torch.tensor(numbers).unsqueeze(1)


def flags(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool).unsqueeze(1)


REWARD = column(1.0, 2.0, 4.0)
VALUE = column(1.0, 3.0, 5.0)
NEXT_VALUE = column(3.0, 5.0, 8.0)
NEVER = flags(0, 0, 0)


@pytest.mark.parametrize(
    ("gae_lambda", "terminated", "done", "expected"),
    [
        # delta = 1 + 3/2 - 1, 2 + 5/2 - 3, 4 + 8/2 - 5 = 1.5, 1.5, 3 with discount 1/2.
        (0.0, NEVER, NEVER, (1.5, 1.5, 3.0)),
        # A_2 = 3, A_1 = 1.5 + 3/2 = 3, A_0 = 1.5 + 3/2 = 3.
        (1.0, NEVER, NEVER, (3.0, 3.0, 3.0)),
        # A_1 = 1.5 + 3/4 = 2.25, A_0 = 1.5 + 2.25/4 = 2.0625.
        (0.5, NEVER, NEVER, (2.0625, 2.25, 3.0)),
        # Step 1 terminates: delta_1 = 2 - 3 = -1 alone, A_0 = 1.5 - 1/2.
        (1.0, flags(0, 1, 0), flags(0, 1, 0), (1.0, -1.0, 3.0)),
        # Step 1 is cut short: the value 5 of what followed counts, A_1 = 1.5, A_0 = 1.5 + 1.5/2.
        (1.0, NEVER, flags(0, 1, 0), (2.25, 1.5, 3.0)),
        # The last step terminates: delta_2 = 4 - 5.
        (0.0, flags(0, 0, 1), flags(0, 0, 1), (1.5, 1.5, -1.0)),
    ],
)
def test_advantages_by_hand(
    gae_lambda: float, terminated: Tensor, done: Tensor, expected: tuple[float]
):
    found = generalized_advantage(REWARD, VALUE, NEXT_VALUE, terminated, done, 0.5, gae_lambda)
    assert found.squeeze(1).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("gae_lambda", "terminated", "done", "expected"),
    [
        # r + V'/2.
        (0.0, NEVER, NEVER, (2.5, 4.5, 8.0)),
        # R_2 = 8, R_1 = 2 + 8/2 = 6, R_0 = 1 + 6/2 = 4.
        (1.0, NEVER, NEVER, (4.0, 6.0, 8.0)),
        # R_1 = 2 + (5 + 8) / 2 / 2 = 5.25, R_0 = 1 + (3 + 5.25) / 2 / 2 = 3.0625.
        (0.5, NEVER, NEVER, (3.0625, 5.25, 8.0)),
        # Step 1 terminates: R_1 = 2, R_0 = 1 + 2/2.
        (1.0, flags(0, 1, 0), flags(0, 1, 0), (2.0, 2.0, 8.0)),
        # Step 1 is cut short: R_1 = 2 + 5/2, R_0 = 1 + 4.5/2.
        (1.0, NEVER, flags(0, 1, 0), (3.25, 4.5, 8.0)),
        # The last step terminates: R_2 = 4.
        (0.0, flags(0, 0, 1), flags(0, 0, 1), (2.5, 4.5, 4.0)),
    ],
)
def test_lambda_returns_by_hand(
    gae_lambda: float, terminated: Tensor, done: Tensor, expected: tuple[float]
):
    found = lambda_returns(REWARD, NEXT_VALUE, terminated, done, 0.5, gae_lambda)
    assert found.squeeze(1).tolist() == pytest.approx(expected, abs=1e-6)


def rollout(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns reward, value, next_value, terminated and done of 12 steps of 5 environments."""
    torch.manual_seed(seed)
    reward, value, next_value = torch.randn(3, 12, 5)
    done = torch.rand(12, 5) < 0.25
    return reward, value, next_value, done & (torch.rand(12, 5) < 0.5), done


def advantage_by_definition(
    reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, done: Tensor,
    gamma: float, gae_lambda: float,
) -> Tensor:  # fmt: skip
    """The sum of (gamma * gae_lambda)^l delta_{t+l} up to the episode's end, term by term."""
    found = torch.zeros_like(reward)
    for env in range(reward.shape[1]):
        for start in range(len(reward)):
            for time in range(start, len(reward)):
                follows = 0.0 if terminated[time, env] else next_value[time, env]
                delta = reward[time, env] + gamma * follows - value[time, env]
                found[start, env] += (gamma * gae_lambda) ** (time - start) * delta
                if done[time, env]:
                    break
    return found


def lambda_return_by_definition(
    reward: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    done: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """The mean of n-step returns, weighted by (1 - l) l^(n-1), the rest on the longest."""
    found = torch.zeros_like(reward)
    for env in range(reward.shape[1]):
        for start in range(len(reward)):
            returns, rewards = [], 0.0
            for time in range(start, len(reward)):
                ahead = time - start
                rewards = rewards + gamma**ahead * reward[time, env].item()
                follows = 0.0 if terminated[time, env] else next_value[time, env].item()
                returns.append(rewards + gamma ** (ahead + 1) * follows)
                if done[time, env]:
                    break
            weights = [(1 - gae_lambda) * gae_lambda**n for n in range(len(returns))]
            weights[-1] = gae_lambda ** (len(returns) - 1)
            found[start, env] = sum(w * r for w, r in zip(weights, returns, strict=True))
    return found


@pytest.mark.parametrize("gae_lambda", [0.0, 0.65, 1.0])
def test_against_the_definitions(gae_lambda: float):
    for seed in range(3):
        reward, value, next_value, terminated, done = rollout(seed)
        ends = (terminated, done, 0.9, gae_lambda)
        # Tolerance: float32 sums in another order.
        torch.testing.assert_close(
            generalized_advantage(reward, value, next_value, *ends),
            advantage_by_definition(reward, value, next_value, *ends),
            atol=1e-5, rtol=1e-5,
        )  # fmt: skip
        torch.testing.assert_close(
            lambda_returns(reward, next_value, *ends),
            lambda_return_by_definition(reward, next_value, *ends),
            atol=1e-5, rtol=1e-5,
        )  # fmt: skip


def test_one_step():
    one = torch.ones(1, 2)
    never = torch.zeros(1, 2, dtype=torch.bool)
    # 1 + 0.5 * 1, and less V = 1.
    assert lambda_returns(one, one, never, never, 0.5, 0.9).tolist() == [[1.5, 1.5]]
    assert generalized_advantage(one, one, one, never, never, 0.5, 0.9).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        # -rho A, and its slope in log pi, -rho A as well.
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        # A good action that is likely enough already: -1.2 A, and no gradient.
        (1.5, 2.0, -2.4, 0.0),
        # A good action that has become unlikely may come back.
        (0.5, 2.0, -1.0, -1.0),
        # A bad action that is unlikely enough already: -0.8 A, and no gradient.
        (0.5, -2.0, 1.6, 0.0),
        # A bad action that has become likely must go.
        (1.5, -2.0, 3.0, 3.0),
    ],
)
def test_clipped_surrogate(ratio: float, advantage: float, loss: float, slope: float):
    log_prob = torch.tensor([math.log(ratio) - 1.0], requires_grad=True)
    value = clipped_policy_loss(log_prob, torch.tensor([-1.0]), torch.tensor([advantage]), 0.2)
    assert value.shape == (1,)
    assert value.item() == pytest.approx(loss, abs=1e-6)
    value.sum().backward()
    assert log_prob.grad is not None
    assert log_prob.grad.item() == pytest.approx(slope, abs=1e-6)


class NamesTheSymbol:
    """Acts right in the toy task; its episodes are ten steps long and truncated."""

    state_size, graph_key, generators = 0, None, ()

    def act(self, observation: Any, task: Tensor, state: Tensor, start: Tensor) -> Any:
        return {"action": observation["policy"].argmax(-1)}


def test_values_after_a_truncated_episode_are_of_its_last_observation() -> None:
    engine = RolloutEngine(Suite.of(SHORT_TASK), 3, torch.device("cpu"), seed=0)
    rollout = engine.collect(NamesTheSymbol(), 12)
    value = torch.full((12, 3), 5.0)
    found = next_values(rollout, value, value[0], lambda _, task: 0.0 * task + 7.0)
    expected = torch.full((12, 3), 5.0)
    expected[9] = 7.0
    assert torch.equal(found, expected)


def test_advantages_are_normalised_within_each_task() -> None:
    # Task 0: 1, 3 and 5, mean 3, variance 8/3. Task 1: 100 and 300, mean 200, deviation 100.
    advantage = torch.tensor([[1.0, 100.0], [3.0, 300.0], [5.0, 7.0]])
    task = torch.tensor([[0, 1], [0, 1], [0, 2]])
    deviation = math.sqrt(8 / 3)
    # A task of a single sample has no deviation; a fourth one is not in the batch.
    expected = torch.tensor([[-2 / deviation, -1.0], [0.0, 1.0], [2 / deviation, 0.0]])
    torch.testing.assert_close(normalized_advantage(advantage, task, 4), expected)
    flat = normalized_advantage(advantage.flatten(), task.flatten(), 4)
    torch.testing.assert_close(flat, expected.flatten())


def test_normalised_advantages_leave_out_samples_without_weight() -> None:
    advantage = torch.tensor([1.0, 3.0, 1000.0, -50.0, 50.0, 9.0])
    task = torch.tensor([0, 0, 0, 1, 1, 1])
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    found = normalized_advantage(advantage, task, 2, weight)
    # Means 2 and 0, deviations 1 and 50.
    torch.testing.assert_close(found, torch.tensor([-1.0, 1.0, 998.0, -1.0, 1.0, 0.18]))


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 0.0, 1.0, 1.0])])
def test_one_task_is_normalised_as_a_whole_bit_by_bit(weight: Tensor | None) -> None:
    advantage = torch.tensor([0.1, -3.7, 12.9, 5.3])

    def mean(samples: Tensor) -> Tensor:
        return samples.mean() if weight is None else (samples * weight).sum() / weight.sum()

    centered = advantage - mean(advantage)
    expected = centered / (mean(centered.square()).sqrt() + 1e-8)
    assert torch.equal(normalized_advantage(advantage, None, 1, weight), expected)
