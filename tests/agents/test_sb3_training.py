"""Stable-Baselines3's own training: zips that are teachers at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import PPO, SAC
from toy import TASK

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.teachers.file_teacher import FileTeacher

FOLDER = Path("runs/teacher")
SMALL = ("--total-steps", "128", "--episodes", "2", "--evaluate-max-steps", "40", "--quiet")
ON_POLICY = ("--algorithm-option", "n_steps=64", "batch_size=64", "n_epochs=1")


def trained(*words: str) -> int:
    return main(["train", "sb3", *words, *SMALL])


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_teacher_with_statistics_from_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--algorithm", "PPO", "--task", "CartPole-v1", "--normalize", "--hidden", "24", "12")
    assert trained(*words, *ON_POLICY, "--num-envs", "2", "--run-dir", str(FOLDER)) == 0
    printed = capsys.readouterr().out
    assert f"--task CartPole-v1 --teacher {FOLDER}/CartPole-v1.zip" in printed
    # The statistics are found where rl-zoo's are.
    teacher = rt.load_teacher(FOLDER / "CartPole-v1.zip")
    assert isinstance(teacher, FileTeacher) and teacher.is_found
    assert teacher.network() == rt.policies.Network(
        encoder="mlp", hidden=(24, 12), activation="tanh"
    )
    model = PPO.load(FOLDER / "CartPole-v1.zip")
    assert model.num_timesteps == 128 and model.n_steps == 64
    result = json.loads((FOLDER / "result.json").read_text())
    assert result["agent"] == "sb3 PPO" and result["env_steps"] == 128
    assert result["student_parameters"] == teacher.num_parameters
    assert result["tasks"]["CartPole-v1"]["episodes"] == 2
    stored = json.loads((FOLDER / "options.json").read_text())
    assert stored["algorithm"] == "PPO" and stored["task"]["id"] == "CartPole-v1"
    assert list(FOLDER.glob("PPO_1/events*"))


def test_off_policy_and_task_options() -> None:
    words = ("--task", "Pendulum-v1", "--task-option", "g=5.0", "--run-dir", str(FOLDER))
    assert trained(*words, "--algorithm-option", "learning_starts=64", "gamma=0.9") == 0
    model = SAC.load(FOLDER / "Pendulum-v1.zip")
    assert model.gamma == 0.9 and model.learning_starts == 64
    assert json.loads((FOLDER / "options.json").read_text())["task"]["kwargs"] == {"g": 5.0}


def test_an_interrupted_training_keeps_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(model: Any, *_: Any) -> None:
        model.num_timesteps = 77
        raise KeyboardInterrupt

    monkeypatch.setattr(SAC, "learn", stopped)
    assert trained("--task", "Pendulum-v1", "--normalize", "--run-dir", str(FOLDER)) == 130
    assert SAC.load(FOLDER / "Pendulum-v1.zip").num_timesteps == 77
    assert (FOLDER / "Pendulum-v1" / "vecnormalize.pkl").exists()
    assert not (FOLDER / "result.json").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "needs a task: pass --task ID"),
        (("--task", "CartPole-v1"), "discrete; use DQN, PPO or A2C"),
        (("--algorithm", "DQN", "--task", "Pendulum-v1"), "continuous; use SAC, TD3, PPO or A2C"),
        (("--algorithm", "SARSA", "--task", "Pendulum-v1"), "SARSA"),
        (("--algorithm", "PPO", "--task", "ALE/Pong-v5"), "does not train on ALE/Pong-v5"),
        (
            ("--algorithm", "PPO", "--task", "rltransfer/MinAtar-Breakout-v0"),
            "are too small for Stable-Baselines3's convolutions; use ppo or pqn",
        ),
        (("--task", "Nowhere-v1"), "There is no environment 'Nowhere-v1'"),
        (("--task", "Pendulum-v1", "--task-option", "x=1"), "cannot be made with {'x': 1}"),
        (("--task", "Pendulum-v1", "--algorithm-option", "x=1"), "unexpected keyword argument 'x'"),
        (("--task", "Pendulum-v1", "--algorithm-option", "x"), "is not an algorithm option: write"),
        (("--task", "Pendulum-v1", "--hidden", "0"), "each layer needs at least 1 unit"),
        (("--task", "Pendulum-v1", "--num-envs", "0"), "num_envs is 0: it must be at least 1"),
    ],
)
def test_refusals(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained(*words, "--run-dir", str(FOLDER)) == 2
    assert sentence in capsys.readouterr().err
    assert not FOLDER.exists()


def test_a_value_that_only_training_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--algorithm", "PPO", "--task", "CartPole-v1")
    assert trained(*words, "--algorithm-option", "gamma=abc", "--run-dir", str(FOLDER)) == 2
    assert "PPO with {'gamma': 'abc'} does not learn CartPole-v1: " in capsys.readouterr().err


def test_a_folder_is_never_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    FOLDER.mkdir(parents=True)
    (FOLDER / "mine").touch()
    assert trained("--task", "Pendulum-v1", "--run-dir", str(FOLDER)) == 2
    said = capsys.readouterr().err
    assert f"{FOLDER} already exists: use another --run-dir." in said
    assert [one.name for one in FOLDER.iterdir()] == ["mine"]


def test_tasks_of_the_device_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert trained("--algorithm", "PPO", "--task", TASK, "--run-dir", str(FOLDER)) == 2
    assert TASK in capsys.readouterr().err
