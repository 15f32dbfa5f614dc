"""PPO's defaults on control tasks: a short experiment writes a page with the runs' numbers."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import gymnasium
import pytest
from in_turn import one_by_one

from rltransfer.agents.ppo import PPO
from rltransfer.cli.main import main
from rltransfer.experiments.common import trials
from rltransfer.experiments.control.experiment import BARS, Control

WORDS = (
    "experiment run control --tasks CartPole-v1 MountainCar-v0 --seeds 2 --steps 64 --episodes 2 "
    "--out runs --results page"
)


def test_it_writes_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trials, "run_parallel", one_by_one)
    assert main(WORDS.split()) == 0
    data = json.loads((tmp_path / "page" / "results.json").read_text())
    found = [
        json.loads((tmp_path / "runs" / f"CartPole-v1-{seed}" / "result.json").read_text())
        for seed in range(2)
    ]
    each = [one["tasks"]["CartPole-v1"]["return_mean"] for one in found]
    assert data["returns"]["CartPole-v1"] == each
    assert data["returns"]["MountainCar-v0"] == [-200, -200]
    page = (tmp_path / "page" / "RESULTS.md").read_text()
    seeds = ", ".join(f"{one:.0f}" for one in each)
    mean, random = statistics.fmean(each), data["random"]["CartPole-v1"]
    assert f"| `CartPole-v1` | 64 | {random:.0f} | 475 | {mean:.0f} | no | {seeds} |" in page
    assert "| `MountainCar-v0` | 64 | -200 | -110 | -200 | no | -200, -200 |" in page
    assert "rltransfer experiment run control --tasks CartPole-v1" in page


def test_nothing_is_tuned_to_a_task() -> None:
    made = Control().trials()
    assert len(made) == 3 * len(BARS) == 24
    assert all(trial.method == PPO() for trial in made)


def test_the_bars_are_gymnasiums() -> None:
    for task, bar in BARS.items():
        threshold = gymnasium.spec(task).reward_threshold
        assert bar.mean_return == (-200 if threshold is None else threshold)
        assert (threshold is None) == (task == "Pendulum-v1")
