"""The number of steps where a user does not say how many."""

from __future__ import annotations

from typing import Any

import pytest

import rltransfer as rt
from rltransfer.agents.policy_distillation import PolicyDistillation
from rltransfer.learning.agent import Method
from rltransfer.runs.config import RunOptions, with_total_steps

BREAKOUT, CARTPOLE = rt.Suite.of("rltransfer/MinAtar-Breakout-v0"), rt.Suite.of("CartPole-v1")
REINFORCED: dict[str, Any] = {"teacher": "zoo", "reinforcement_weight": 1}


@pytest.mark.parametrize(
    ("method", "suite", "steps"),
    [
        (rt.agents.PPO(), CARTPOLE, 1_000_000),
        (PolicyDistillation(teacher="zoo"), BREAKOUT, 1_000_000),
        (PolicyDistillation(teacher="zoo"), CARTPOLE, 200_000),
        (PolicyDistillation(teacher="zoo"), rt.Suite.of(*BREAKOUT, *CARTPOLE), 200_000),
        (PolicyDistillation(**REINFORCED), CARTPOLE, 1_000_000),
    ],
)
def test_the_method_says_how_many(method: Method, suite: rt.Suite, steps: int) -> None:
    assert with_total_steps(RunOptions(), method, suite).total_steps == steps
    assert with_total_steps(RunOptions(total_steps=7), method, suite).total_steps == 7
