"""Kickstarting: a short experiment writes a page whose numbers are those of the runs' curves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rltransfer.cli.main import main
from rltransfer.experiments.common.training_curve import Curve, training_curve
from rltransfer.experiments.kickstarting.experiment import WINDOW, Kickstarting, Race

WORDS = (
    "experiment run kickstarting --games Breakout --seeds 2 --steps 8192 --episodes 2 "
    "--out runs --results page"
)


@pytest.mark.usefixtures("in_this_process")
def test_it_writes_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(WORDS.split()) == 0
    data = json.loads((tmp_path / "page" / "results.json").read_text())
    assert list(data["races"]) == ["Breakout-0", "Breakout-1"]
    fractions = []
    for seed in range(2):
        race = data["races"][f"Breakout-{seed}"]
        curves = [
            training_curve(
                tmp_path / "runs" / f"Breakout-{who}-{seed}", "rltransfer/MinAtar-Breakout-v0"
            )
            for who in ("scratch", "kickstarted")
        ]
        # Rollouts of 2048 steps are longer than the window: each is its own mean.
        assert curves[0].steps.tolist() == [2048.0 * n for n in range(1, 5)]
        assert WINDOW * 8192 < 2048
        assert race["goal"] == curves[0].returns[-1]
        reached = curves[1].steps, curves[1].returns
        there = [s for s, r in zip(*reached, strict=True) if r >= race["goal"]]
        fractions.append(there[0] / 8192 if there else 1.0)
        assert race["share"] == fractions[-1] and race["censored"] == (not there)
    # The geometric mean over one game is its fraction; over two seeds sqrt(a * b).
    assert data["table"]["kickstarted"]["mean"] == pytest.approx(np.sqrt(np.prod(fractions)))
    page = (tmp_path / "page" / "RESULTS.md").read_text()
    assert "| Breakout |" in page and " 4 runs" in page.replace("\n", " ")
    assert (tmp_path / "page" / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_learners_differ_in_the_advice_alone() -> None:
    scratch, kickstarted = (Kickstarting().method(who) for who in ("scratch", "kickstarted"))
    assert kickstarted.student == scratch.network
    for name in (
        "num_envs",
        "rollout_length",
        "epochs",
        "batch_size",
        "learning_rate",
        "max_grad_norm",
    ):
        assert getattr(kickstarted, name) == getattr(scratch, name)
    assert kickstarted.surrogate == scratch.surrogate


def race(kickstarted: list[float]) -> Race:
    """Runs of ten steps; the return of the run from scratch ends at 5."""
    steps = np.arange(1.0, 11.0)
    scratch = np.array([0.0, 1, 2, 3, 4, 5, 6, 5, 4, 5])
    return Race(Curve(steps, scratch), Curve(steps, np.array(kickstarted)))


def test_fractions_worked_by_hand() -> None:
    # 5 is reached with the third of ten steps; from scratch it was, for the first time, with the
    # sixth.
    found = race([3.0, 4, 6, 4, 7, 7, 7, 7, 7, 7])
    assert (found.goal, found.step_fraction("kickstarted"), found.step_fraction("scratch")) == (
        5.0,
        0.3,
        0.6,
    )
    assert not found.censored
    # A run that never reaches the goal counts with all steps.
    lost = race([1.0] * 10)
    assert lost.censored and lost.step_fraction("kickstarted") == 1.0


def test_a_run_that_never_reaches_the_goal_is_reported(tmp_path: Path) -> None:
    experiment = Kickstarting(games=("Breakout",), seeds=2)
    result = {
        "wall_seconds": 60.0,
        "tasks": {
            "rltransfer/MinAtar-Breakout-v0": {
                "return_mean": 5.0, "teacher_return_mean": 10.0, "random_return_mean": 0.5,
            }
        },
    }  # fmt: skip
    names = [f"Breakout-{who}-{seed}" for who in ("scratch", "kickstarted") for seed in range(2)]
    races = {"Breakout": [race([1.0] * 10), race([5.0] * 10)]}
    experiment.page(races, dict.fromkeys(names, result)).write(tmp_path)
    page = (tmp_path / "RESULTS.md").read_text()
    assert "1 of 2 kickstarted runs did not reach it and count as 100 %" in page
    # (100 + 10) / 2 per cent of the steps; from scratch 60; half of the teacher's return.
    assert "| Breakout | 55 | 60 | 1 of 2 | 5.0 | 3.0 | 50 | 50 |" in page
