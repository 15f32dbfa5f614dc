"""Evaluation: every environment plays its share, intervals are Student's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import toy
from gymnasium import spaces
from scipy import stats
from toy import TASK

import rltransfer as rt
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.rollouts.actors import RandomActor, TeacherActor
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.rollouts.evaluation import (
    Evaluation,
    _episodes_per_row,
    _rows,
    evaluate,
    evaluate_policy,
)
from rltransfer.rollouts.rollout import Actor

CPU = torch.device("cpu")
CART_POLE = rt.Suite.of("CartPole-v1")


def at_random(engine: RolloutEngine) -> Actor:
    return RandomActor(engine.spaces, torch.Generator().manual_seed(0))


def test_interval_by_hand_and_by_scipy() -> None:
    # 1, 2, 3: mean 2, standard error 1 / sqrt(3), t(0.975, 2) = 4.3027: half-width 2.484.
    one = Evaluation((1.0, 2.0, 3.0), (1, 1, 1))
    assert one.mean == 2.0
    assert one.ci95 == pytest.approx(2.484, abs=1e-3)
    returns = tuple(np.random.default_rng(0).normal(size=40))
    low, high = stats.t.interval(0.95, 39, np.mean(returns), stats.sem(returns))
    assert Evaluation(returns, (1,) * 40).ci95 == pytest.approx((high - low) / 2)


def test_episodes_per_row_add_up() -> None:
    assert _episodes_per_row(10, 4) == [3, 3, 2, 2]
    assert sum(_episodes_per_row(201, 64)) == 201


def test_no_environment_waits_for_a_last_round() -> None:
    # 200 episodes take 64 environments four rounds, and as many 50 of them.
    assert _rows(200, 64) == 50
    assert _episodes_per_row(200, _rows(200, 64)) == [4] * 50
    assert [_rows(episodes, 64) for episodes in (1, 64, 65, 128, 129)] == [1, 64, 33, 64, 43]


@pytest.mark.parametrize("episodes", [1, 5, 70])
def test_exactly_so_many_episodes_are_counted(episodes: int) -> None:
    found = evaluate(at_random, rt.Task(TASK), episodes)
    assert len(found.returns) == episodes
    assert set(found.lengths) == {10}


def test_long_episodes_are_not_left_out() -> None:
    # Whoever counted the first episodes to end would count short ones: with one episode for each of
    # many environments the mean length is that of one environment after another.
    task = rt.Task("rltransfer/MinAtar-Breakout-v0")
    together = evaluate(at_random, task, 400, num_envs=400)
    in_turn = evaluate(at_random, task, 400, num_envs=20)
    error = np.std(together.lengths) / 20 + np.std(in_turn.lengths) / 20
    assert abs(np.mean(together.lengths) - np.mean(in_turn.lengths)) < 3 * error


def test_same_seed_same_returns() -> None:
    task = rt.Task("rltransfer/MinAtar-Asterix-v0")
    first = evaluate(at_random, task, 20, seed=1)
    assert first == evaluate(at_random, task, 20, seed=1)
    assert first != evaluate(at_random, task, 20, seed=2)


def test_an_endless_episode_is_cut_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "LENGTH", 10**9)
    knows = rt.CallableTeacher(lambda seen, task: rt.PolicyOutput(logits=seen["policy"]))
    found = evaluate(lambda _: TeacherActor(knows), rt.Task(TASK), 3, num_envs=1, max_steps=100)
    # A look every 64 steps, each of which earns 1.
    assert found == Evaluation((128.0,) * 3, (128,) * 3)


def policy_of(size: int, num_tasks: int = 1) -> Policy:
    seen = spaces.Dict(policy=spaces.Box(-1, 1, (size,), np.float32))
    network = rt.policies.mlp(hidden=(4,))
    return PolicySpec(network, seen, spaces.Discrete(2), num_tasks=num_tasks).build()


@pytest.mark.parametrize(("size", "num_tasks"), [(3, 1), (6, 1), (3, 2)])
def test_a_policy_of_other_observations_is_refused(size: int, num_tasks: int) -> None:
    with pytest.raises(rt.InputError) as caught:
        evaluate_policy(policy_of(size, num_tasks), CART_POLE, 1, seed=0, device=CPU)
    assert str(caught.value) == (
        "The policy does not fit the task 'CartPole-v1': it reads the group 'policy' as "
        f"float32[{size}], but the task has float32[4]."
    )


def test_a_policy_of_several_tasks_may_read_more() -> None:
    for policy in (policy_of(4), policy_of(6, num_tasks=2)):
        assert evaluate_policy(policy, CART_POLE, 1, seed=0, device=CPU)


def test_no_episodes_are_refused() -> None:
    with pytest.raises(rt.InputError, match="number of episodes is 0"):
        evaluate(at_random, rt.Task(TASK), 0)


def test_atari_is_evaluated_with_its_own_rewards() -> None:
    # A random game of Pong is lost by some 20 points, clipped or not; Space Invaders' points are
    # multiples of 5, of which clipping would leave ones.
    task = rt.Task("ALE/SpaceInvaders-v5", {"reward_clipping": True, "episodic_life": True})
    found = evaluate(at_random, task, 2)
    assert all(value % 5 == 0 and value >= 5 for value in found.returns)
