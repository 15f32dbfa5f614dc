"""Distral on mazes: choices and claims worked by hand, and a short experiment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.experiments.common import trials
from rltransfer.experiments.common.distral_curves import (
    PARTS,
    VARIANTS,
    area,
    early,
    final,
    run_curves,
)
from rltransfer.experiments.common.intervals import Interval, mean_interval
from rltransfer.experiments.distral_mazes.experiment import (
    CLAIMS,
    Claim,
    DistralMazes,
    Findings,
    Setting,
    best_setting,
    optimal_returns,
    robustness,
    spread,
    verdict,
)
from rltransfer.runs.tensorboard import Tracker

WORDS = (
    "experiment run distral-mazes --mazes 2 --betas 10 100 --learning-rates 1e-3 --grid-seeds 1 "
    "--seeds 1 --steps 2048 --out runs --results page"
)


def test_measures_of_a_straight_line() -> None:
    # 0, 1, ..., 99: mean 49.5; of the first 25 parts 12; of the last ten 94.5.
    line = np.arange(PARTS, dtype=float)
    assert [float(of(np.stack([line, line]))[1]) for of in (area, early, final)] == [49.5, 12, 94.5]


def test_the_setting_with_the_largest_mean_is_best() -> None:
    # Means 2, 3, 3 of two seeds: the highest single run, 4, is not what counts; of equals the
    # first.
    assert best_setting(np.array([[0.0, 4.0], [3.0, 3.0], [2.5, 3.5]])) == 1


def test_the_robustness_curve_falls() -> None:
    assert robustness(np.array([[1.0, 5.0], [3.0, 2.0]])).tolist() == [5, 3, 2, 1]


def test_spread_worked_by_hand() -> None:
    # The median of 0, 2, 4, 10 is 3: (3 + 1 + 1 + 7) / 4.
    assert spread(np.array([[0.0, 2.0], [4.0, 10.0]])) == 3


def test_settings_at_the_edge_of_the_grid_are_named() -> None:
    best = {
        "lowest": Setting(10.0, 2e-3), "within": Setting(30.0, 2e-3), "highest": Setting(30.0, 4e-3)
    }  # fmt: skip
    findings = Findings(grid={}, chosen={}, best=best, optimal=np.ones(1))
    assert findings.at_the_edge((10.0, 30.0, 100.0), (1e-3, 2e-3, 4e-3)) == ["lowest", "highest"]


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.1, 2.0, "held"),
        (-2.0, -0.1, "did not hold"),
        (-0.1, 2.0, "undecided: the interval contains 0"),
        (0.0, 2.0, "undecided: the interval contains 0"),
    ],
)
def test_verdicts_follow_a_rule(low: float, high: float, word: str) -> None:
    assert verdict(Interval(1.0, low, high, 5)) == word


def test_one_seed_decides_nothing() -> None:
    assert verdict(mean_interval([1.0])) == "undecided: one seed has no interval"


def test_claims_compare_runs_of_the_same_seed() -> None:
    # Constant curves: seeds differ by 10, which cancels in pairs; the variants by 1 and 3 from c.
    def level(*returns: float) -> np.ndarray:
        return np.repeat(np.array(returns)[:, None], PARTS, axis=1)

    curves = {"a": level(11, 21, 31), "b": level(13, 23, 33), "c": level(10, 20, 30)}
    found = Claim("it is more", "area", ("a", "b"), ("c",)).difference(curves)
    assert (found.mean, found.low, found.high) == (2, 2, 2)


def test_every_claim_names_variants_and_compares_as_the_paper_does() -> None:
    for claim in CLAIMS:
        assert set(claim.more) | set(claim.less) <= set(VARIANTS)
        assert not set(claim.more) & set(claim.less)
    by_text = {claim.text: claim for claim in CLAIMS}
    # "KL ends lower" is tested as "KL+ent ends higher".
    assert by_text["KL is faster early than KL+ent"].measure == "early"
    assert by_text["KL ends lower than KL+ent"].less == ("KL 1col", "KL 2col")
    assert by_text["two columns are faster than one"].more == ("KL 2col", "KL+ent 2col")


def test_the_optimum_is_that_of_each_maze() -> None:
    best = optimal_returns(DistralMazes(mazes=3).suite)
    # A goal some eleven to sixteen steps away, a hundred steps to reach it again and again.
    assert len(set(best)) == 3 and all(6 < value < 10 for value in best)


@pytest.mark.usefixtures("in_this_process")
def test_it_writes_its_page_and_does_not_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(WORDS.split()) == 0
    data = json.loads((tmp_path / "page" / "results.json").read_text())
    assert list(data["table"]) == list(data["best"]) == list(VARIANTS)
    # Two settings of seven variants with seed 0, then the better one of each with seed 1.
    assert len(data["wall_seconds"]) == 14 + 7
    names = ['rltransfer/Maze-v0{"maze": 0}', 'rltransfer/Maze-v0{"maze": 1}']
    for variant, grid in data["grid"].items():
        areas = [only for (only,) in grid["area"]]
        better = data["settings"][areas.index(max(areas))]
        assert data["best"][variant] == better
        folder = f"{variant.replace(' ', '-')}-{better['beta']:g}-0.001"
        curves = [run_curves(tmp_path / "runs" / f"{folder}-{n}", names, 2048) for n in range(2)]
        assert max(areas) == pytest.approx(curves[0].mean())
        # The table uses the seed that the grid does not have.
        assert data["table"][variant]["area"]["mean"] == pytest.approx(curves[1].mean())
        ratio = (final(curves[1]) / data["optimal_returns"]).mean()
        assert data["table"][variant]["share"]["mean"] == pytest.approx(ratio)
    assert len(data["claims"]) == len(CLAIMS)
    by_maze = np.array(data["final_by_maze"]["A2C"])
    assert by_maze.shape == (1, 2)
    assert data["chosen"]["A2C"]["final"] == pytest.approx(by_maze.mean(1))
    page = (tmp_path / "page" / "RESULTS.md").read_text()
    assert "| KL+ent 2col | " in page and " 21 runs, " in page.replace("\n", " ")
    # One seed decides nothing.
    assert page.count("undecided: one seed has no interval") == len(CLAIMS)
    # Of two betas both are at the edge.
    assert "For 7 of 7 variants (A2C, " in page.replace("\n", " ")
    for name in ("curves", "robustness"):
        assert (tmp_path / "page" / f"{name}.png").read_bytes().startswith(b"\x89PNG")

    capsys.readouterr()
    monkeypatch.setattr(trials, "run_trial", None)  # running anything fails now
    assert main(WORDS.split()) == 0
    out = capsys.readouterr().out
    assert "trials already finished: 14 of 14" in out
    assert "trials already finished: 7 of 7" in out


def test_bad_numbers_are_refused() -> None:
    for name in ("seeds", "grid_seeds"):
        with pytest.raises(InputError, match=f"{name} is 0"):
            DistralMazes(**{name: 0})
    for name in ("betas", "learning_rates"):
        with pytest.raises(InputError, match=f"{name} is empty"):
            DistralMazes(**{name: ()})


def test_a_run_without_episodes_is_refused(tmp_path: Path) -> None:
    Tracker(tmp_path).close()
    with pytest.raises(InputError, match="No episode of CartPole-v1 ended within 64 steps"):
        run_curves(tmp_path, ["CartPole-v1"], 64)
