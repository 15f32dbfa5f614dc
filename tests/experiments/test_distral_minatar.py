"""Distral on MinAtar: ratios and verdicts worked by hand, and a short experiment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.experiments.common import trials
from rltransfer.experiments.common.distral_curves import final, run_curves
from rltransfer.experiments.common.intervals import Interval
from rltransfer.experiments.distral_minatar.experiment import (
    ALL,
    DistralMinAtar,
    baseline_ratios,
    format_low_games,
    verdict,
    verdict_cells,
)

WORDS = (
    "experiment run distral-minatar --games Asterix Breakout --seeds 1 --steps 6400 "
    "--out runs --results page"
)


def test_ratios_worked_by_hand() -> None:
    finals = {"Asterix": np.array([8.0, 4.0]), "Freeway": np.array([0.0, 2.0])}
    baseline = {"Asterix": np.array([4.0, 2.0]), "Freeway": np.array([0.0, 1.0])}
    # 8/4 and 4/2; half a point to half a point, and 2/1: over games sqrt(2 * 1) and 2.
    row = baseline_ratios(finals, baseline)
    # In one run the baseline scores nothing in Freeway.
    assert list(row) == [ALL, "without Freeway", "Asterix", "Freeway"]
    assert row["without Freeway"] == row["Asterix"]
    assert format_low_games(baseline).startswith("In Freeway some runs of A2C end below that")
    scoring = {"Asterix": baseline["Asterix"], "Freeway": np.array([0.5, 1.0])}
    assert list(baseline_ratios(finals, scoring)) == [ALL, "Asterix", "Freeway"]
    assert format_low_games(scoring) == ""
    assert (row["Asterix"].low, row["Asterix"].mean) == pytest.approx((2, 2))
    assert row["Freeway"].mean == pytest.approx(2**0.5)
    assert row[ALL].mean == pytest.approx(2**0.75)


def test_verdicts_follow_a_rule() -> None:
    helps, harms, open_ = (
        Interval(1.0, *bounds, 5) for bounds in ((1.1, 2.0), (0.1, 0.9), (0.9, 1.1))
    )
    assert [verdict(one) for one in (helps, harms)] == ["helps", "harms"]
    assert verdict(open_) == "undecided: the interval contains 1"
    row = {
        ALL: open_,
        "without Seaquest": helps,
        "Asterix": helps,
        "Breakout": harms,
        "Freeway": helps,
    }
    assert verdict_cells(row) == [
        "undecided: the interval contains 1", "Asterix, Freeway", "Breakout", "none",
    ]  # fmt: skip


def test_learners_differ_in_the_variant_alone() -> None:
    methods = [trial.method for trial in DistralMinAtar(seeds=1).trials()]
    settings = [(one.architecture, one.alpha) for one in methods]
    assert settings == [("one-column", 0), ("two-column", 1), ("two-column", 0.5), ("shared", 0)]
    for name in ("network", "num_envs", "rollout_length", "learning_rate", "beta"):
        assert len({repr(getattr(one, name)) for one in methods}) == 1


@pytest.mark.usefixtures("in_this_process")
def test_it_writes_its_page_and_does_not_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(WORDS.split()) == 0
    data = json.loads((tmp_path / "page" / "results.json").read_text())
    assert list(data["finals"]) == ["A2C", "KL 2col", "KL+ent 2col", "A2C multitask"]
    names = [f"rltransfer/MinAtar-{game}-v0" for game in ("Asterix", "Breakout")]
    for variant, by_game in data["finals"].items():
        run_dir = tmp_path / "runs" / f"{variant.replace(' ', '-')}-0"
        expected = final(run_curves(run_dir, names, 6400))
        assert [only for (only,) in by_game.values()] == expected.tolist()
    # One seed has no interval.
    ratios = data["ratios"]["KL 2col"].values()
    assert {ratio["verdict"] for ratio in ratios} == {"undecided: one seed has no interval"}
    page = (tmp_path / "page" / "RESULTS.md").read_text()
    assert "| A2C multitask | " in page and " 4 runs, " in page.replace("\n", " ")
    assert (tmp_path / "page" / "picture.png").read_bytes().startswith(b"\x89PNG")

    capsys.readouterr()
    monkeypatch.setattr(trials, "run_trial", None)  # running anything fails now
    assert main(WORDS.split()) == 0
    assert "trials already finished: 4 of 4" in capsys.readouterr().out


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="seeds is 0"):
        DistralMinAtar(seeds=0)
