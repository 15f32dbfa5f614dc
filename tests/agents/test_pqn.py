"""PQN learns Q-values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import TASK

import rltransfer as rt
from rltransfer.agents.pqn import PQN, PQNAgent
from rltransfer.rollouts.rollout import Rollout
from rltransfer.runs.config import RunOptions
from rltransfer.runs.run import Run

SMALL = {"num_envs": 32, "rollout_length": 20, "batch_size": 160, "learning_rate": 3e-3}


def test_learns_values_that_are_right(tmp_path: Path) -> None:
    # With discount 0 the value of naming the symbol is 1 and of every other action 0.
    run = rt.train(
        PQN(**SMALL, gamma=0.0), suite=TASK, total_steps=40_000, run_dir=tmp_path / "run",
        episodes=64, evaluate_episodes=0, quiet=True,
    )  # fmt: skip
    assert run.result["tasks"][TASK]["return_mean"] > 9.5
    values = run.agent.policy({"policy": torch.eye(4)}).q_values
    torch.testing.assert_close(values, torch.eye(4), atol=0.15, rtol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epsilon": "often"}, "'often' is not a schedule"),
        ({"epsilon": "2->0"}, "epsilon is 2->0: it must be from 0 to 1"),
        ({"epsilon": -0.1}, "epsilon is -0.1: it must be from 0 to 1"),
        ({"gae_lambda": 2.0}, "gae_lambda is 2.0: it must be from 0 to 1"),
        ({"gamma": -1.0}, "gamma is -1.0: it must be from 0 to 1"),
        ({"epochs": 0}, "epochs is 0: it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0: it must be at least 1"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0: it must be finite and at least 0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm is -1.0: it must be above 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(rt.InputError, match=words):
        PQN(**options)


def test_continuous_actions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(rt.InputError, match="pqn needs discrete actions"):
        Run("pqn", PQN(), rt.Suite.of("Pendulum-v1"), RunOptions(), tmp_path / "run")


def started(tmp_path: Path, **options: Any) -> tuple[Run, Rollout]:
    run = Run("pqn", PQN(rollout_length=10, **options), rt.Suite.of(TASK), RunOptions(), tmp_path)
    run.agent.begin_rollout(0.0)
    return run, run.engine.collect(run.agent, 10)


@pytest.mark.parametrize("epsilon", [0.0, 0.4])
def test_epsilon_is_the_fraction_of_random_actions(tmp_path: Path, epsilon: float) -> None:
    run, rollout = started(tmp_path, num_envs=1000, epsilon=epsilon)
    with torch.no_grad():
        greedy = run.agent.policy(rollout.observation).greedy()
    # One random action in four is the greedy one. Of 10,000 actions, 0.03 are six standard errors.
    other = (rollout.extras["action"] != greedy).float().mean().item()
    assert other == pytest.approx(0.75 * epsilon, abs=0.03)


def test_gamma_and_lambda_reach_the_targets(tmp_path: Path) -> None:
    def targets(**options: Any) -> torch.Tensor:
        run, rollout = started(tmp_path, num_envs=8, **options)
        assert isinstance(run.agent, PQNAgent)
        with torch.no_grad():
            return run.agent._targets(rollout)

    plain = targets()
    assert torch.equal(plain, targets())
    assert not torch.equal(plain, targets(gae_lambda=0.0))
    assert not torch.equal(plain, targets(gamma=0.5))
