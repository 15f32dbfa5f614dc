"""One network for several games: a short experiment writes a page with the runs' numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.experiments.multitask.experiment import Multitask

WORDS = (
    "experiment run multitask --games Asterix Breakout --seeds 2 --steps 2048 --episodes 2 "
    "--epochs 2 --out runs --results page"
)


@pytest.mark.usefixtures("in_this_process")
def test_it_writes_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Good teachers play long episodes.
    monkeypatch.setattr("rltransfer.runs.config.LONGEST", 300)
    assert main(WORDS.split()) == 0
    data = json.loads((tmp_path / "page" / "results.json").read_text())
    assert list(data["table"]) == ["KL+MSE", "KL", "NLL", "PPO"]
    results = {
        name: json.loads((tmp_path / "runs" / name / "result.json").read_text())
        for name in data["trials"]
    }
    # Same games, seed and number of episodes: every student's run has the same teacher return.
    games = [f"rltransfer/MinAtar-{game}-v0" for game in ("Asterix", "Breakout")]
    for seed in range(2):
        taught = [results[f"{loss}-{seed}"]["tasks"] for loss in ("KL", "NLL")]
        for game in games:
            first, second = (tasks[game]["teacher_return_mean"] for tasks in taught)
            assert first == second
    # The baseline learns without a teacher: its ratio is to the students' teacher.
    for seed in range(2):
        own, tasks = results[f"PPO-{seed}"]["tasks"], results[f"KL-{seed}"]["tasks"]
        assert "teacher_return_mean" not in own[games[0]]
        share = data["trials"][f"PPO-{seed}"]["shares"]["Asterix"]
        assert share == own[games[0]]["return_mean"] / tasks[games[0]]["teacher_return_mean"]
    # sqrt(a * b) for each of two seeds, and the geometric mean of both.
    for learner, row in data["table"].items():
        logs = [
            math.log(max(share, 1e-3))
            for seed in range(2)
            for share in data["trials"][f"{learner}-{seed}"]["shares"].values()
        ]
        assert row["all games"]["mean"] == pytest.approx(math.exp(sum(logs) / 4))
    # One shape for all: 16 channels of 3 x 3, 128 units, six actions a game, each 1.5 wide, and
    # LayerNorm; the baseline's value is not counted.
    trunk = 24 * (4 * 9 + 1) + 192 * (24 * 64 + 1) + 2 * (24 + 192)
    assert {result["student_parameters"] for result in results.values()} == {trunk + 12 * 193}
    assert data["teacher_parameters"] == {"Asterix": 297_150, "Breakout": 132_566}
    page = (tmp_path / "page" / "RESULTS.md").read_text()
    assert (
        "The students\nlearned 2 times from each step on average." in page and "--epochs 2" in page
    )
    for name in results:
        method = json.loads((tmp_path / "runs" / name / "config.json").read_text())["method"]
        assert (method["epochs"] == 2.0) == (name.split("-")[0] != "PPO"), name
    assert "| PPO |" in page and "Asterix 297,150, Breakout 132,566" in page
    assert (tmp_path / "page" / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_one_shared_head_is_another_network() -> None:
    heads = [Multitask().method(name).student.heads for name in ("KL", "NLL", "KL-one-head")]
    assert heads == ["per-task", "per-task", "shared"]


def test_some_learner_must_evaluate_the_teachers() -> None:
    with pytest.raises(InputError, match=r"learners are PPO: add at least one of KL"):
        Multitask(learners=("PPO",))
