"""The intervals of every published page follow from its own data, to the last digit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rltransfer.experiments.common.intervals import interval_json, ratio_row
from rltransfer.experiments.distral_minatar.experiment import BASELINE, baseline_ratios
from rltransfer.experiments.distral_two_rooms.experiment import Findings
from rltransfer.metrics.curves import Curve
from rltransfer.metrics.intervals import Interval, geometric_mean_interval, mean_interval

FOLDER = Path(__file__).parents[2] / "experiments"


def published(name: str) -> Any:
    return json.loads((FOLDER / name / "results.json").read_text())


def stored(rows: Any) -> dict[str, Any]:
    return {name: interval_json(one) for name, one in rows.items()}


def by_game(data: Any, figure: Any) -> dict[str, list[float]]:
    """A figure of every entry `GAME-SEED`, by game, in the order of the seeds."""
    games: dict[str, list[float]] = {}
    for name, one in data.items():
        games.setdefault(name.rpartition("-")[0], []).append(figure(one, name))
    return games


def test_atari() -> None:
    data = published("atari")
    for name, ratios in data["shares"].items():
        assert stored(ratio_row(ratios)) == data["table"][name]


def test_born_again() -> None:
    data = published("born_again")
    for who, found in data["table"].items():
        ratios = by_game(
            data["chains"], lambda one, _, w=who: one["returns"][w] / one["returns"]["teacher"]
        )
        assert interval_json(geometric_mean_interval(ratios)) == found


def test_compression() -> None:
    data = published("compression")
    for loss, sizes in data["table"].items():
        for size, found in sizes.items():
            middle = f"-{loss}-{size.split()[0]}-"

            def ratio(returns: Any, name: str, middle: str = middle) -> float:
                return returns[name.replace("-", middle)] / returns["teacher"]

            ratios = by_game(data["returns"], ratio)
            assert interval_json(geometric_mean_interval(ratios)) == found


def test_distral_mazes() -> None:
    data = published("distral_mazes")
    for name, row in data["table"].items():
        for measure in ("area", "final"):
            assert interval_json(mean_interval(data["chosen"][name][measure])) == row[measure]


def test_distral_minatar() -> None:
    data = published("distral_minatar")
    finals = {
        name: {game: np.array(returns) for game, returns in games.items()}
        for name, games in data["finals"].items()
    }
    for name, row in data["ratios"].items():
        found = stored(baseline_ratios(finals[name], finals[BASELINE]))
        assert found == {
            game: {key: value for key, value in one.items() if key != "verdict"}
            for game, one in row.items()
        }


def test_distral_two_rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    data = published("distral_two_rooms")
    reached = {
        phase: {learner: np.array(steps) for learner, steps in learners.items()}
        for phase, learners in data["reached"].items()
    }
    monkeypatch.setattr(Findings, "reached", lambda self, phase, one: reached[phase][one])
    none = Curve(np.array([1.0]), np.array([1.0]))
    curves: Any = {phase: {one: [[none]] for one in by} for phase, by in reached.items()}
    findings = Findings(tuple(data["betas"]), data["steps"], curves)
    for phase, found in data["ratio_of_the_best"].items():
        assert interval_json(findings.ratio_of_the_best(phase)) == found


def test_kickstarting() -> None:
    data = published("kickstarting")
    for learner, share in (("kickstarted", "share"), ("scratch", "scratch_share")):
        fractions = by_game(data["races"], lambda one, _, s=share: one[s])
        assert interval_json(geometric_mean_interval(fractions)) == data["table"][learner]


def test_multitask() -> None:
    data = published("multitask")
    for name, row in data["table"].items():
        ratios = [
            one["shares"] for run, one in data["trials"].items() if run.rpartition("-")[0] == name
        ]
        found = ratio_row({game: [one[game] for one in ratios] for game in ratios[0]})
        assert stored(found) == row


def test_an_interval_is_written_as_before() -> None:
    assert interval_json(Interval(0.5, 0.25, 0.75, 3)) == {
        "mean": 0.5, "low": 0.25, "high": 0.75, "seeds": 3,
    }  # fmt: skip
