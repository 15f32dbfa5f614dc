"""A Stable-Baselines3 policy of numbered observations is evaluated and taught from the shell."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import pytest
from stable_baselines3 import PPO

from rltransfer.cli.main import main

TASK = "FrozenLake-v1"
OPTIONS = {"desc": ["SFF", "HHF", "HHG"], "is_slippery": False}
"""Right, right, down, down; three of four other ways end in a hole."""
WORDS = ["--task", TASK, "--task-option", 'desc=["SFF", "HHF", "HHG"]', "is_slippery=false"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zip") / "ppo.zip"
    env = gymnasium.make(TASK, **OPTIONS)
    model = PPO(
        "MlpPolicy", env, n_steps=128, learning_rate=3e-3, ent_coef=0.01, seed=0, device="cpu"
    )
    model.learn(2_048).save(path)
    return path


def test_it_reaches_the_goal(teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(teacher), *WORDS, "--episodes", "8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"][TASK]["return_mean"] == 1


def test_it_is_distilled(teacher: Path, tmp_path: Path) -> None:
    words = [
        "train", "policy-distillation", *WORDS, "--teacher", str(teacher), "--quiet",
        "--num-envs", "16", "--rollout-length", "16", "--batch-size", "64", "--steps", "4_000",
        "--hidden", "16", "--exploration", "0.3", "--learning-rate", "1e-2", "--episodes", "32",
        "--evaluate-episodes", "0", "--run-dir", str(tmp_path / "run"),
    ]  # fmt: skip
    assert main(words) == 0
    row = json.loads((tmp_path / "run" / "result.json").read_text())["tasks"][TASK]
    assert row["teacher_return_mean"] == row["return_mean"] == 1
    assert row["random_return_mean"] < 0.5
