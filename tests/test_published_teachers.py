"""Teachers that others trained years ago, as users bring them, from the shell."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rltransfer.cli.main import main

FOLDER = Path(os.environ.get("RLTRANSFER_TEACHERS", ""))
pytestmark = pytest.mark.skipif(
    "RLTRANSFER_TEACHERS" not in os.environ,
    reason="RLTRANSFER_TEACHERS does not name the folder of published teachers",
)

PUBLISHED = {
    "dqn-CartPole-v1": ("CartPole-v1", 500.0, 0.5),
    "ppo-CartPole-v1": ("CartPole-v1", 500.0, 0.5),
    "dqn-LunarLander-v2": ("LunarLander-v3", 154.4, 79.2),
    "a2c-Acrobot-v1": ("Acrobot-v1", -83.4, 17.2),
    "sac-Pendulum-v1": ("Pendulum-v1", -157.0, 88.7),
    "ppo-HalfCheetah-v3": ("HalfCheetah-v4", 5819.0, 664.0),
    "sac-Walker2d-v3": ("Walker2d-v4", 3863.0, 254.0),
}
"""The task today, the published mean return and its spread."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_return_is_reached(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    task, published, spread = PUBLISHED[name]
    words = ["evaluate", str(FOLDER / f"{name}.zip"), "--task", task, "--json"]
    statistics = FOLDER / f"{name}.vecnormalize.pkl"
    if statistics.exists():
        words += ["--vecnormalize", str(statistics)]
    # A thousand steps of MuJoCo each: fewer episodes, and their spread is small.
    words += ["--episodes", "10" if "Cheetah" in name or "Walker" in name else "50"]
    assert main(words) == 0
    row = json.loads(capsys.readouterr().out)["tasks"][task]
    assert abs(row["return_mean"] - published) <= spread


def test_a_policy_and_a_q_network_vote(capsys: pytest.CaptureFixture[str]) -> None:
    zips = ", ".join(f"'{FOLDER / name}-CartPole-v1.zip'" for name in ("ppo", "dqn"))
    vote = f"Vote({zips}, noise_scale=0)"
    assert main(["evaluate", vote, "--task", "CartPole-v1", "--json", "--episodes", "20"]) == 0
    # Where the two disagree, the first action wins, which costs some returns of 500.
    row = json.loads(capsys.readouterr().out)["tasks"]["CartPole-v1"]
    assert row["return_mean"] > 300


def test_a_student_learns_from_a_vote_of_both_kinds(tmp_path: Path) -> None:
    zips = ", ".join(f"'{FOLDER / name}-CartPole-v1.zip'" for name in ("dqn", "ppo", "dqn"))
    words = [
        "train", "policy-distillation", "--task", "CartPole-v1", "--quiet",
        "--teacher", f"Vote({zips}, noise_scale=0)", "--hidden", "32", "32", "--num-envs", "16",
        "--total-steps", "30_000", "--episodes", "20", "--evaluate-episodes", "0",
        "--run-dir", str(tmp_path / "run"),
    ]  # fmt: skip
    assert main(words) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["tasks"]["CartPole-v1"]["return_mean"] > 400


def test_a_student_64_times_smaller_keeps_the_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "train", "policy-distillation", "--task", "CartPole-v1", "--quiet",
        "--teacher", str(FOLDER / "dqn-CartPole-v1.zip"), "--hidden", "28", "28",
        "--num-envs", "16", "--rollout-length", "64", "--steps", "60_000", "--batch-size", "256",
        "--epochs", "4", "--teacher-acts", "1->0@0.5", "--episodes", "50",
        "--evaluate-episodes", "0", "--run-dir", str(tmp_path / "run"),
    ]  # fmt: skip
    assert main(words) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["teacher_parameters"] >= 64 * result["student_parameters"]
    assert result["tasks"]["CartPole-v1"]["return_mean"] >= 475


def test_a_continuous_teacher_is_distilled(tmp_path: Path) -> None:
    # Chance earns about -1200 on Pendulum, the teacher -157 +- 89.
    words = [
        "train", "policy-distillation", "--task", "Pendulum-v1", "--quiet",
        "--teacher", str(FOLDER / "sac-Pendulum-v1.zip"), "--objective", "mse",
        "--hidden", "32", "32", "--num-envs", "16", "--rollout-length", "50", "--steps", "40_000",
        "--batch-size", "256", "--epochs", "20", "--teacher-acts", "1->0@0.5",
        "--episodes", "50", "--evaluate-episodes", "0", "--run-dir", str(tmp_path / "run"),
    ]  # fmt: skip
    assert main(words) == 0
    row = json.loads((tmp_path / "run" / "result.json").read_text())["tasks"]["Pendulum-v1"]
    assert row["return_mean"] > row["teacher_return_mean"] - 60


def test_one_student_of_a_pendulum_and_a_cheetah(tmp_path: Path) -> None:
    # One number and six, SAC and PPO, with and without statistics.
    cheetah, statistics = (FOLDER / f"ppo-HalfCheetah-v3.{k}" for k in ("zip", "vecnormalize.pkl"))
    words = [
        "train", "policy-distillation", "--task", "Pendulum-v1", "HalfCheetah-v4", "--quiet",
        "--teacher", f"PerTask({{'Pendulum-v1': '{FOLDER / 'sac-Pendulum-v1.zip'}', "
        f"'HalfCheetah-v4': load_teacher('{cheetah}', vecnormalize='{statistics}')}})",
        "--objective", "mse", "--heads", "per-task", "--statistics", "per-task",
        "--num-envs", "16", "--rollout-length", "50", "--steps", "40_000", "--batch-size", "256",
        "--epochs", "8", "--learning-rate", "3e-3", "--teacher-acts", "1->0@0.5",
        "--episodes", "8", "--evaluate-episodes", "0", "--run-dir", str(tmp_path / "run"),
    ]  # fmt: skip
    assert main(words) == 0
    tasks = json.loads((tmp_path / "run" / "result.json").read_text())["tasks"]
    for row in tasks.values():
        chance = row["random_return_mean"]
        # Seeds 0 to 2 went 0.84 of the way and more.
        assert row["return_mean"] - chance > 0.6 * (row["teacher_return_mean"] - chance)
