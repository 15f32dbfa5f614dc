"""PQN learns Q-values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy import TASK

import rltransfer as rt
from rltransfer.agents.pqn import PQN
from rltransfer.run import Run, RunOptions

SMALL = {"num_envs": 32, "horizon": 20, "batch_size": 160, "learning_rate": 3e-3}


def test_learns_values_that_are_right(tmp_path: Path) -> None:
    # With discount 0 the value of naming the symbol is 1 and of every other action 0.
    run = rt.train(
        PQN(**SMALL, discount=0.0), suite=TASK, steps=40_000, run_dir=tmp_path / "run",
        episodes=64, evaluate_episodes=0, quiet=True,
    )  # fmt: skip
    assert run.result["tasks"][TASK]["return_mean"] > 9.5
    values = run.agent.policy({"policy": torch.eye(4)}).q_values
    torch.testing.assert_close(values, torch.eye(4), atol=0.15, rtol=0)


def test_continuous_actions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(rt.InputError, match="pqn needs discrete actions"):
        Run("pqn", PQN(), rt.Suite.of("Pendulum-v1"), RunOptions(), tmp_path / "run")
