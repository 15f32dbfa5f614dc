"""Distral in two rooms: steps and ratios worked by hand, and a short experiment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.experiments.common import trials
from rltransfer.experiments.common.training_curve import Curve
from rltransfer.experiments.distral_two_rooms.experiment import DistralTwoRooms, Findings
from rltransfer.runs.tensorboard import Tracker

WORDS = (
    "experiment run distral-two-rooms --goals 2 --new-goals 2 --room 2 --corridor 1 --betas 10 "
    "--seeds 1 --steps 600 --out runs --results page"
)


def reaching(*steps: float) -> list[Curve]:
    """For each seed a curve that reaches 90 % after so many steps."""
    return [Curve(np.array([1.0, one]), np.array([0.1, 0.95])) for one in steps]


def found(with_: list[list[Curve]], without: list[list[Curve]]) -> Findings:
    curves = {"together": {"with": with_, "without": without}}
    return Findings((10.0, 20.0), 100, curves)


def test_each_learner_is_compared_at_its_best_beta() -> None:
    never = Curve(np.array([1.0, 50.0]), np.array([0.1, 0.89]))
    findings = found(
        [reaching(20, 20), reaching(40, 40)],
        [[*reaching(80), never], reaching(40, 80)],
    )
    np.testing.assert_array_equal(findings.reached("together", "without"), [[80, 100], [40, 80]])
    assert findings.censored("together", "without") == [1, 0]
    assert [findings.best("together", one) for one in ("with", "without")] == [0, 1]
    # 20/40 and 20/80, the geometric mean of which is 1/4 times the root of 2.
    assert findings.ratio_of_the_best("together").mean == pytest.approx(0.25 * 2**0.5)
    # At beta 20: 40/40 and 40/80.
    assert findings.ratio("together", 1, 1).mean == pytest.approx(0.5**0.5)
    text = findings.format("together")
    # A run that does not reach the level only gives a bound.
    assert "| 10 | 20 (20 to 20) | at least 90, 1 not | at most 0.22 |" in text
    assert "| 20 | 40 (40 to 40) | 60 (" in text and "| 0.71 (" in text
    assert "(10 and 20)" in text and "Both are at the edge of the tested values" in text


def test_runs_that_do_not_reach_the_level_are_bounds() -> None:
    never = Curve(np.array([1.0, 50.0]), np.array([0.1, 0.89]))
    late, both = [reaching(20)[0], never], [never, never]
    text = found([late, both], [reaching(40, 50), both]).format("together")
    # 20/40 and at least 100/50: the geometric mean is 1.
    assert "| 10 | at least 60, 1 not | 45 (" in text and "| at least 1.00 |" in text
    assert "| at least 100, 2 not | at least 100, 2 not | not known |" in text
    assert "at least 1.00 of the steps (undecided: some runs did not reach 90%)" in text


def test_learners_differ_by_the_distilled_policy_alone() -> None:
    experiment = DistralTwoRooms(betas=(20.0,), seeds=1, out=Path("runs"))
    with_, without = (trial.method for trial in experiment.trials("together"))
    assert (with_.distillation_rate, without.distillation_rate) == (0.02, 0.0)
    known, alone = (trial.method for trial in experiment.trials("new goals"))
    assert (known.distilled, alone.distilled) == ("runs/together-with-20-0", "")
    assert known.distillation_rate == alone.distillation_rate == 0.0
    assert {one.alpha for one in (with_, without, known, alone)} == {1.0}
    goals = [
        {task.kwargs["goal"] for task in experiment.suite(phase)}
        for phase in ("together", "new goals")
    ]
    assert goals[0].isdisjoint(goals[1]) and len(goals[0] | goals[1]) == 24


@pytest.mark.usefixtures("in_this_process")
def test_the_experiment_writes_its_page_and_is_not_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(WORDS.split()) == 0
    assert {path.name for path in Path("page").iterdir()} == {
        "RESULTS.md", "results.json", "curves.png", "arrows.png",
    }  # fmt: skip
    page = Path("page/RESULTS.md").read_text()
    assert "## Together" in page and "## New goals" in page
    data = json.loads(Path("page/results.json").read_text())
    assert np.shape(data["reached"]["new goals"]["with"]) == (1, 1)
    capsys.readouterr()

    monkeypatch.setattr(trials, "run_trial", lambda *_: pytest.fail("it was already finished"))
    assert main(WORDS.split()) == 0
    assert Path("page/RESULTS.md").read_text() == page


def test_a_run_without_episodes_is_refused(tmp_path: Path) -> None:
    experiment = DistralTwoRooms(out=tmp_path, steps=64)
    run_dir = tmp_path / experiment.trials("together")[0].name
    run_dir.mkdir()
    Tracker(run_dir).close()
    with pytest.raises(InputError, match="No episode ended within 64 steps of each task"):
        experiment._curve("together", "with", experiment.betas[0], 0)


def test_refusals() -> None:
    for wrong in ({"seeds": 0}, {"betas": ()}, {"room": -1}):
        with pytest.raises(InputError, match="at least"):
            DistralTwoRooms(**wrong)
    # Goals are counted from 0 over both phases.
    with pytest.raises(InputError, match="goal is 32: rooms of 4 x 4 have 32 goals"):
        DistralTwoRooms(goals=16, new_goals=17)
    DistralTwoRooms(goals=16, new_goals=16)
