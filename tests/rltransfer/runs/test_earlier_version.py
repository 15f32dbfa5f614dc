"""What an earlier version wrote still loads, evaluates and resumes.

`earlier_version` has two runs of version 0.1 on CartPole-v1: a teacher that PPO trained to the end,
and a student of `Noisy(teacher)` that was stopped at step 128 of 192. Both use names that have
changed since: steps, horizon, clip, trace, discount, and share of Noisy.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

import rltransfer as rt
from rltransfer.aliases import with_current_names
from rltransfer.cli.main import main
from rltransfer.files.checkpoint import load_state, newest_checkpoint
from rltransfer.runs.config import configured, read_config
from rltransfer.runs.run import Run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(rt.agents.PPO):
    """A method with an option that has the former name of another one."""

    share: float = 0.5


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
    # What they lack or had is not what would be the default today.
    assert (method.reward_scaling, method.network.activation) == ("none", "relu")
    assert options.threads == 1
    student = configured(read_config(runs / "student"))[0]
    assert isinstance(student, rt.agents.PolicyDistillation)
    teacher = rt.load_teacher(student.teacher)
    assert str(teacher) == "Noisy('teacher', sigma=0.1, alpha=0.5)"


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


def test_its_environments_resume_as_they_were(runs: Path) -> None:
    """That version restarted those that cannot be saved when it wrote a checkpoint."""
    method, suite, options = configured(read_config(runs / "student"))
    run = Run("policy-distillation", method, suite, options, runs / "student", quiet=True)
    run.begin(resume=True)
    state = load_state(newest_checkpoint(runs / "student"))["engine"]
    rollout = run.engine.collect(run.agent, 1)
    assert torch.equal(rollout.observation["policy"][0], state["observation"]["policy"])
    assert state["start"].all() and rollout.start[0].all()


def test_a_method_of_ones_own_may_use_a_former_name(tmp_path: Path) -> None:
    options = {"total_steps": 32, "episodes": 1, "evaluate_episodes": 0, "quiet": True}
    method = Mine(num_envs=2, rollout_length=8, batch_size=16)
    for resume in (False, True):
        rt.train(method, suite="CartPole-v1", run_dir=tmp_path / "run", resume=resume, **options)


def test_a_path_may_contain_a_former_name(runs: Path) -> None:
    (runs / "teacher").rename(runs / "share=0.5")
    words = "train policy-distillation --task CartPole-v1 --num-envs 2 --rollout-length 8 --quiet"
    sizes = "--total-steps 16 --batch-size 16 --episodes 1 --evaluate-episodes 0 --run-dir run"
    teacher = "Noisy('share=0.5', sigma=0.1)"
    assert main([*words.split(), *sizes.split(), "--teacher", teacher]) == 0
    assert main(["train", "policy-distillation", "--resume", "run", "--quiet"]) == 0


def test_a_former_name_next_to_its_present_one_is_refused(runs: Path) -> None:
    with pytest.raises(rt.InputError, match="sets an option of Noisy under two names"):
        rt.load_teacher("Noisy('teacher', sigma=0.1, share=0.5, alpha=0.2)")


def test_former_names_are_found_at_any_depth() -> None:
    stored = {"members": [{"options": {"share": 0.5}, "preprocessing": {"clip": 10.0}}]}
    named = {"members": [{"options": {"alpha": 0.5}, "preprocessing": {"clip": 10.0}}]}
    assert with_current_names(stored) == named
