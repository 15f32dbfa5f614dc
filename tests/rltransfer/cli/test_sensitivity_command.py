"""`rltransfer sensitivity`: a table, JSON, a folder, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import toy
from matplotlib.image import imread
from tensorboard_reader import events_of

import rltransfer as rt
from rltransfer.cli.main import main

QUICK: dict[str, Any] = {
    "episodes": 0, "evaluate_episodes": 0, "quiet": True, "device": "cpu", "total_steps": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    toy.register()
    folder = tmp_path_factory.mktemp("runs")
    learning = rt.agents.PPO(num_envs=16, rollout_length=20, learning_rate=0.01)
    options = {**QUICK, "total_steps": 6_400}
    rt.train(learning, suite=toy.TASK, run_dir=folder / "first", **options)
    still = rt.agents.Progressive(
        columns=(str(folder / "first"),), start="previous", learning_rate=0.0, num_envs=4
    )
    rt.train(still, suite=toy.TASK, run_dir=folder / "second", **QUICK)
    return folder


@pytest.fixture
def here(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for run in ("first", "second"):
        (tmp_path / run).symlink_to(runs / run)
    return tmp_path


def command(*words: str) -> list[str]:
    given = {"--device": "cpu", "--episodes": "4", "--states": "32"}
    rest = [word for name, value in given.items() if name not in words for word in (name, value)]
    return ["sensitivity", *words, *rest]


def test_a_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command("second")) == 0
    out = capsys.readouterr().out
    assert "Fisher sensitivity" in out and "perturbation sensitivity" in out
    rows = [line.replace("│", " ").split() for line in out.splitlines() if line.startswith("│")]
    assert [row[:4] for row in rows] == [
        ["1", "1", "1.000", "1.000"], ["1", "2", "0.000", "0.000"],
        ["2", "1", "1.000", "1.000"], ["2", "2", "0.000", "0.000"],
    ]  # fmt: skip
    assert rows[1][4:] == [">", "1,024"] and "of a random policy" in out
    assert not [path for path in here.iterdir() if path.name not in ("first", "second")]


def test_json_and_a_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command("second", "--json", "--out", "found")) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((here / "found/sensitivity.json").read_text())
    assert (printed["run"], printed["task"], printed["states"]) == ("second", toy.TASK, 32)
    assert [one["perturbation"] for one in printed["layers"]] == [1, 0, 1, 0]
    picture = imread(here / "found/sensitivity.png")
    assert picture.shape[1] > picture.shape[0] > 100
    events = events_of(here / "found")
    assert events.Tags()["images"] == ["sensitivity"]
    assert set(events.Tags()["scalars"]) == {
        f"sensitivity/{name}/column-{column}"
        for name in ("fisher", "perturbation")
        for column in (1, 2)
    }
    for column, value in ((1, 1.0), (2, 0.0)):
        points = events.Scalars(f"sensitivity/fisher/column-{column}")
        assert [(point.step, point.value) for point in points] == [(1, value), (2, value)]

    # What is there is kept.
    (here / "found/notes").write_text("mine")
    assert main(command("second", "--out", "found")) == 2
    assert "found already exists: use another --out." in capsys.readouterr().err
    assert (here / "found/notes").read_text() == "mine"


def test_fisher_only(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command("first", "--fisher-only", "--out", "found", "--task", toy.TASK)) == 0
    printed = capsys.readouterr()
    assert "perturbation" not in printed.out and "return" not in printed.out
    assert "written: found" in printed.err
    found = json.loads((here / "found/sensitivity.json").read_text())
    assert [one["fisher"] for one in found["layers"]] == [1, 1]
    assert found["return_mean"] is found["layers"][0]["perturbation"] is None
    assert {tag.rpartition("/")[0] for tag in events_of(here / "found").Tags()["scalars"]} == {
        "sensitivity/fisher"
    }


def test_runs_that_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recurrent = rt.agents.PPO(num_envs=4, rollout_length=16, network=rt.policies.mlp(gru=8))
    rt.train(recurrent, suite="CartPole-v1", run_dir="recurrent", **QUICK)
    distral = rt.agents.Distral(num_envs=2, rollout_length=8)
    rt.train(distral, suite=["CartPole-v1", "Acrobot-v1"], run_dir="distral", **QUICK)
    for words, sentence in (
        (("nowhere",), "nowhere is not a run"),
        (("zoo:rltransfer/MinAtar-Breakout-v0",), "is not a run"),
        (("recurrent",), "recurrent is recurrent, so that its actions depend on earlier features"),
        (("distral",), "distral was trained on 2 tasks: pass one of them as --task."),
        (("distral", "--task", "CartPole-v1"), "distral has several networks"),
        (("first", "--task", "minatar"), "'minatar' is a suite: pass one of its tasks, e.g. "),
        (("first", "--out", "no/where"), "no/where cannot be written: there is no folder no."),
        (("first", "--episodes", "0"), "episodes is 0: it must be at least 1."),
        (("first", "--checkpoint", "best"), "There is no checkpoint 'best'"),
    ):
        assert main(command(*words)) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1, error
