"""The teacher's return before a run is as exact as its lag needs."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import rltransfer as rt
from rltransfer.agents.policy_distillation import PolicyDistillation
from rltransfer.rollouts.evaluation import Evaluation
from rltransfer.runs import teacher_check
from rltransfer.runs.config import RunOptions
from rltransfer.runs.run import Run

TASK = "tests/Noisy-v0"


class Noisy(gymnasium.Env[np.ndarray, int]):
    """One step; action 1 earns 10 more, with a standard deviation of 5."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):  # type: ignore[no-untyped-def]
        reward = 10 * float(action) + 5 * self.np_random.standard_normal()
        return np.zeros(1, np.float32), reward, True, False, {}


def checked(
    tmp_path: Path, gain: float = 9.0, total_steps: int = 1_000_000, needs: bool = False
) -> tuple[Evaluation, list[str]]:
    if TASK not in gymnasium.registry:
        gymnasium.register(TASK, entry_point=Noisy)

    def function(observation: rt.Observation, task: torch.Tensor) -> rt.PolicyOutput:
        return rt.PolicyOutput(logits=torch.tensor([[0.0, gain]]).expand(len(task), 2))

    method = PolicyDistillation(teacher=rt.CallableTeacher(function), num_envs=2)
    run = Run("policy-distillation", method, rt.Suite.of(TASK), RunOptions(), tmp_path / "run")
    run.agent.needs_reference_returns = needs
    run.agent.set_reference_returns = lambda teacher, random: None
    found, _, sentences = teacher_check.teacher_check(run.agent, run.context, 0, total_steps)
    return found[TASK], sentences


def test_more_episodes_until_the_interval_is_narrow(tmp_path: Path) -> None:
    # The difference is 5: a half-width of 0.5 needs (2.36 * 5 / 0.5)^2 = 560, bounded by 512.
    found, sentences = checked(tmp_path)
    assert len(found.returns) > 100 and found.ci95 < 0.8
    assert found.mean == pytest.approx(10.0, abs=1.0) and not sentences
    assert teacher_check.format_return(found) == f"{found.mean:.1f} ± {found.ci95:.1f}"


def test_episodes_are_bounded_by_steps_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(teacher_check.MAX_STEPS, "host", 20)
    assert len(checked(tmp_path)[0].returns) == 20


def test_a_short_run_has_a_short_check_unless_the_returns_are_needed(tmp_path: Path) -> None:
    found, _ = checked(tmp_path, total_steps=1_000)
    assert len(found.returns) == 30
    found, _ = checked(tmp_path, total_steps=10)
    assert len(found.returns) == teacher_check.CHECK_EPISODES
    found, _ = checked(tmp_path, total_steps=1_000, needs=True)
    assert len(found.returns) > 100


def test_a_bad_teacher_is_reported_with_its_interval(tmp_path: Path) -> None:
    found, (sentence,) = checked(tmp_path, gain=-9.0)
    assert f"is {found.mean:.1f} ± {found.ci95:.1f} over {len(found.returns)} episodes" in sentence
