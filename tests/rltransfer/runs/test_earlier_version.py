"""What an earlier version wrote still loads, evaluates and resumes.

`earlier_version` has two runs of version 0.1 on CartPole-v1: a teacher that PPO trained to the end,
and a student of `Noisy(teacher)` that was stopped at step 128 of 192. Both use names that have
changed since: steps, horizon, clip, trace, discount, and share of Noisy.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.runs.config import configured, read_config

RUNS = Path(__file__).parent / "earlier_version"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(RUNS, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)  # the student's teacher is "teacher"
    return tmp_path


def test_the_options_have_their_present_names(runs: Path) -> None:
    method, _, options = configured(read_config(runs / "teacher"))
    assert isinstance(method, rt.agents.PPO) and method.rollout_length == 16
    surrogate = method.surrogate
    assert (surrogate.clip_range, surrogate.gae_lambda, surrogate.gamma) == (0.3, 0.9, 0.98)
    assert options.total_steps == 128
    student = configured(read_config(runs / "student"))[0]
    assert isinstance(student, rt.agents.PolicyDistillation)
    assert student.teacher == "Noisy('teacher', sigma=0.1, alpha=0.5)"


def test_a_run_evaluates_and_is_a_teacher(runs: Path) -> None:
    stored = json.loads((runs / "teacher" / "result.json").read_text())["tasks"]["CartPole-v1"]
    found = rt.evaluate("teacher", episodes=2, seed=2)["CartPole-v1"]
    assert found.mean == stored["return_mean"]
    assert rt.evaluate(rt.load_teacher("teacher"), episodes=2, seed=2)["CartPole-v1"] == found


def test_a_run_resumes(runs: Path) -> None:
    assert main(["train", "policy-distillation", "--resume", "student", "--quiet"]) == 0
    result = json.loads((runs / "student" / "result.json").read_text())
    assert result["env_steps"] == 192 and result["teacher_parameters"] == 58
    assert (runs / "student" / "checkpoints" / "step-000000000192").is_dir()
