"""`rltransfer teachers check`: what a teacher is and how well it plays."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from stable_baselines3 import DQN, PPO, SAC
from toy import TASK

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.errors import InputError

BREAKOUT = "rltransfer/MinAtar-Breakout-v0"


@pytest.fixture(scope="module")
def zips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zips")
    PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [24, 12]}).save(folder / "ppo")
    DQN("MlpPolicy", "CartPole-v1").save(folder / "dqn")
    SAC("MlpPolicy", "Pendulum-v1").save(folder / "sac")
    PPO("MlpPolicy", "Pendulum-v1").save(folder / "gauss")
    return folder


@pytest.mark.parametrize(
    ("name", "task", "says"),
    [
        ("ppo", "CartPole-v1", "probabilities of 2 actions"),
        ("dqn", "CartPole-v1", "Q-values of 2 actions"),
        ("sac", "Pendulum-v1", "1-dimensional actions, and a squashed Gaussian around them"),
        ("gauss", "Pendulum-v1", "a Gaussian over 1-dimensional actions"),
    ],
)
def test_what_a_teacher_says(name: str, task: str, says: str, zips: Path) -> None:
    found = rt.summarize_teacher(zips / f"{name}.zip", task, 2, num_envs=2, max_steps=20)
    assert found.says == says and found.spec.kind == "stable-baselines3"
    assert len(found.returns[task].returns) == 2 and found.num_parameters > 0


def test_everything_is_printed(zips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["teachers", "check", f"{zips}/ppo.zip", "--task", "CartPole-v1", "--episodes", "2"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    for expected in (
        "kind                  stable-baselines3", "layers                24, 12 (tanh)",
        "parameters            446", "observes              policy float32[4]",
        "acts in               Discrete(2)", "algorithm PPO",
    ):  # fmt: skip
        assert expected in printed
    # So few parameters that a smaller student is not advised.
    assert printed.rstrip().endswith("--task CartPole-v1 --teacher " + f"{zips}/ppo.zip")


def test_the_command_that_is_advised_works(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["teachers", "check", "zoo", "--task", BREAKOUT, "--episodes", "4", "--json"]
    assert main([*words, "--max-steps", "500"]) == 0
    found = json.loads(capsys.readouterr().out)
    task = found["tasks"][BREAKOUT]
    assert task["return_mean"] > 5 > task["random_return_mean"]
    assert task["recorded_return"] == pytest.approx(74.3, abs=0.1) and task["episodes"] == 4
    assert found["spec"]["kind"] == "zoo" and found["command"].endswith("--size 25%")
    quick = ["--total-steps", "64", "--num-envs", "2", "--rollout-length", "8", "--episodes", "0"]
    assert main([*shlex.split(found["command"])[1:], *quick, "--evaluate-episodes", "0"]) == 0


def test_a_teacher_that_cannot_play_is_named() -> None:
    def wrong(seen: rt.Observation, task: torch.Tensor) -> rt.PolicyOutput:
        return rt.PolicyOutput(q_values=0.1 * seen["policy"].roll(1, -1))

    found = rt.summarize_teacher(rt.CallableTeacher(wrong), TASK, 8)
    (sentence,) = found.warnings()
    assert sentence.startswith(f"On {TASK!r} it plays no better than a random policy")
    assert found.network is None and ("parameters", "unknown") in found.rows()


def test_a_return_below_the_recorded_one_is_named() -> None:
    found = rt.summarize_teacher(f"zoo:{BREAKOUT}", BREAKOUT, 4, max_steps=40)
    assert found.warnings() == [f"On {BREAKOUT!r} its return is below the recorded one, 74.3."]


def test_what_is_refused(zips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, sentence in (
        (["teachers"], "needs a command: check"),
        (["teachers", "chek"], "check"),
        (["teachers", "check", f"{zips}/ppo.zip"], "either --task ID or --suite NAME"),
        (["teachers", "check", "nowhere.zip", "--task", TASK], "There is no teacher 'nowhere.zip'"),
        (["teachers", "check", f"{zips}/ppo.zip", "--task", "Pendulum-v1"], "does not fit"),
        (
            ["teachers", "check", "zoo", "--task", BREAKOUT, "--episodes", "0"],
            "episodes is 0: it must be at least 1",
        ),
    ):
        assert main(words) == 2
        assert sentence in capsys.readouterr().err
    with pytest.raises(InputError, match="There is no teacher"):
        rt.summarize_teacher("nowhere.zip", TASK)
