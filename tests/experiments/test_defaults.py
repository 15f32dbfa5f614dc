"""Default options at a quarter of the size: a short experiment writes a page of its runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from in_turn import one_by_one
from stable_baselines3 import PPO

from rltransfer.agents import PolicyDistillation
from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.experiments.common import trials
from rltransfer.experiments.defaults.experiment import ALL, Defaults

WORDS = (
    "experiment run defaults --games Breakout --teachers zips --seeds 1 --steps 64 --episodes 2 "
    "--out runs --results page"
)


def test_it_writes_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trials, "run_parallel", one_by_one)
    PPO("MlpPolicy", "CartPole-v1").save(tmp_path / "zips" / "ppo-CartPole-v1")
    assert main(WORDS.split()) == 0
    data = json.loads((tmp_path / "page" / "results.json").read_text())
    result = json.loads((tmp_path / "runs" / "ppo-CartPole-v1-0" / "result.json").read_text())
    one = result["tasks"]["CartPole-v1"]
    student, teacher, random = (
        one[f"{who}return_mean"] for who in ("", "teacher_", "random_")
    )  # fmt: skip
    kept = data["each_seed"]["ppo-CartPole-v1"]
    assert kept == [pytest.approx((student - random) / (teacher - random))]
    assert data["each_seed"].keys() == {"Breakout", "ppo-CartPole-v1"}
    page = (tmp_path / "page" / "RESULTS.md").read_text()
    number, whole = result["student_parameters"], result["teacher_parameters"]
    assert f"| ppo-CartPole-v1 | {number:,} | {100 * number / whole:.0f} % |" in page
    assert 0.2 < number / whole < 0.3 and "over 1 seed, with" in page
    assert "--teachers FOLDER" in page


def test_only_the_size_is_set() -> None:
    made = Defaults(games=("Breakout", ALL), seeds=1).trials()
    assert [trial.suite for trial in made] == ["rltransfer/MinAtar-Breakout-v0", "minatar"]
    for trial in made:
        assert trial.method == PolicyDistillation(teacher="zoo", size="25%")
        assert trial.options == {"total_steps": 1_000_000, "seed": 0, "episodes": 100}


def test_replaced_tasks_are_played_in_their_newer_version(tmp_path: Path) -> None:
    for name in ("sac-Walker2d-v3", "dqn-LunarLander-v2", "ppo-CartPole-v1", "README", "-x"):
        (tmp_path / f"{name}.zip").touch()
    cases = Defaults(games=("Breakout",), teachers=tmp_path).cases()
    assert {name: task for name, (task, _) in cases.items()} == {
        "Breakout": "rltransfer/MinAtar-Breakout-v0",
        "dqn-LunarLander-v2": "LunarLander-v3",
        "ppo-CartPole-v1": "CartPole-v1",
        "sac-Walker2d-v3": "Walker2d-v4",
    }
    with pytest.raises(InputError, match="a folder without zips named"):
        Defaults(teachers=tmp_path / "nowhere")
