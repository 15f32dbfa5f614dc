"""What groups learned on a task, worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import make_run, taught_by

from rltransfer.reports.comparison import RunCurve, TaskComparison, compare_task, mean_line
from rltransfer.reports.grouping import Lineage, Names, group_runs
from rltransfer.reports.reading import find_runs


def compared(folder: Path, baseline: str | None = "ppo", **how: Any) -> TaskComparison:
    runs, _ = find_runs([folder])
    names = Names(runs)
    groups = group_runs(runs, names, Lineage(runs))
    chosen = next((group for group in groups if group.label == baseline), None)
    return compare_task(names.all()[0], groups, chosen, names, **how)


def both(folder: Path) -> None:
    """Two seeds of a baseline and of a group that learns twice as fast.

    The random policy has -2. The baseline climbs from 0 to 8 and to 10, the other is there at half
    of the 1,000 steps.
    """
    for seed, top in enumerate((8, 10)):
        slow = [top * part / 4 for part in range(5)]
        make_run(folder / f"slow{seed}", seed=seed, returns=slow, random=-2.0)
        fast = [0, top / 2, top, top, top]
        make_run(
            folder / f"fast{seed}", agent="fast", seed=seed, returns=fast, random=-2.0,
            teacher=20.0, changes=taught_by("x.zip"),
        )  # fmt: skip


def test_measures_worked_by_hand(tmp_path: Path) -> None:
    both(tmp_path)
    found = compared(tmp_path)
    slow, fast = found.measures["ppo"], found.measures["fast"]
    assert (slow.seeds, slow.cut_short) == ((0, 1), ())
    assert slow.final_return is not None and slow.final_return.estimate == 9
    # The last tenth: from 0.9 to all of the top.
    assert slow.asymptote is not None and slow.asymptote.estimate == pytest.approx(9 * 0.95)
    assert slow.jumpstart is slow.area_ratio is slow.steps_ratio is slow.retention is None
    # 8 and 10 of 20, both 2 above nothing, as the random policy's return is negative.
    assert fast.retention is not None
    assert fast.retention.estimate == pytest.approx(100 * 11 / 22)
    # The first tenth: the mean of 0 and of 0.2 and 0.1 of the top.
    assert fast.jumpstart is not None
    assert fast.jumpstart.estimate == pytest.approx(9 * (0.1 - 0.05))
    assert fast.asymptotic_gain is not None
    assert fast.asymptotic_gain.estimate == pytest.approx(9 * 0.05)
    # Three quarters of the top against one half, each 2 above the random policy.
    assert fast.area_ratio is not None
    assert fast.area_ratio.estimate == pytest.approx((9 * 0.75 + 2) / (9 * 0.5 + 2))


def test_the_threshold_is_between_the_random_policy_and_the_baselines_asymptote(
    tmp_path: Path,
) -> None:
    both(tmp_path)
    found = compared(tmp_path, threshold=0.5)
    assert (found.kind, found.floor) == ("evaluation", -2.0)
    # Half of the way from -2 to 8.55: 3.275. Slow runs have 4 and 5 at 500, fast ones at 250.
    assert found.threshold == pytest.approx(-2 + 0.5 * (8.55 + 2))
    assert found.horizon == 1000
    slow, fast = found.measures["ppo"], found.measures["fast"]
    assert slow.steps_to_threshold is not None and slow.steps_to_threshold.estimate == 500
    assert fast.steps_ratio is not None and fast.steps_ratio.estimate == pytest.approx(0.5)
    assert (fast.median_steps, fast.censored, fast.timed) == (250, 0, 2)
    assert "The threshold is 3.275: 50 % of the way from -2 to" in " ".join(found.notes)


def test_runs_below_the_threshold_are_censored_and_not_left_out(tmp_path: Path) -> None:
    both(tmp_path)
    # 90 % of the way to 8.55 is 7.495: 8 and 10 reach it, a new run does not.
    make_run(
        tmp_path / "fast2", agent="fast", seed=2, returns=(0, 1, 2, 3, 4), random=-2.0,
        teacher=20.0, changes=taught_by("x.zip"),
    )  # fmt: skip
    fast = compared(tmp_path).measures["fast"]
    assert (fast.censored, fast.timed, fast.median_steps) == (1, 3, 500)
    assert fast.steps_to_threshold is not None
    assert fast.steps_to_threshold.estimate == pytest.approx((500 + 500 + 1000) / 3)


def test_a_run_that_was_cut_short_counts_for_the_steps_alone(tmp_path: Path) -> None:
    both(tmp_path)
    make_run(
        tmp_path / "fast2", agent="fast", seed=2, returns=(0, 1), random=-2.0, finished=False,
        changes=taught_by("x.zip"),
    )  # fmt: skip
    alone = tmp_path / "alone"
    both(alone)
    found, without = compared(tmp_path).measures["fast"], compared(alone).measures["fast"]
    assert (found.seeds, found.cut_short) == ((0, 1), (2,))
    for name in ("final_return", "asymptote", "jumpstart", "area_ratio", "retention"):
        assert getattr(found, name) == getattr(without, name)
    assert (found.censored, found.timed) == (1, 3)
    # It left at 250. Of the two others both reach the threshold at 500: the estimate is theirs.
    assert found.steps_to_threshold is not None
    assert found.steps_to_threshold.estimate == pytest.approx(500)
    (line,) = (run for run in compared(tmp_path).runs["fast"] if not run.finished)
    assert line.curve.steps.tolist() == [0, 250]


def test_a_group_that_was_not_followed_to_the_horizon_has_no_restricted_mean(
    tmp_path: Path,
) -> None:
    both(tmp_path)
    make_run(tmp_path / "late", agent="late", returns=(0, 1), finished=False)
    late = compared(tmp_path).measures["late"]
    assert (late.censored, late.timed) == (1, 1)
    assert late.steps_to_threshold is late.steps_ratio is late.area_ratio is None


def test_the_horizon_is_that_of_the_shortest_group(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", agent="b", steps=(0, 150, 300, 450, 600))
    assert compared(tmp_path).horizon == 600


def test_the_horizon_of_a_group_is_that_of_its_longest_run(tmp_path: Path) -> None:
    make_run(tmp_path / "a0")
    make_run(tmp_path / "a1", seed=1, steps=(0, 200, 400, 600, 800))
    make_run(tmp_path / "b", agent="b")
    assert compared(tmp_path).horizon == 1000


def test_a_run_in_which_nothing_was_measured_yet_is_censored(tmp_path: Path) -> None:
    both(tmp_path)
    # It has logged its loss at step 500, but no evaluation.
    made = make_run(tmp_path / "slow2", seed=2, returns=(), finished=False)
    from rltransfer.runs.tensorboard import Tracker

    tracker = Tracker(made)
    tracker.scalars({"train/loss": 1.0}, 500)
    tracker.close()
    slow = compared(tmp_path).measures["ppo"]
    assert (slow.censored, slow.timed, slow.cut_short) == (1, 3, (2,))


def test_training_returns_are_used_if_a_group_has_no_evaluations(tmp_path: Path) -> None:
    make_run(tmp_path / "a", random=-5.0)
    steps = list(range(10, 1001, 10))
    make_run(tmp_path / "b", agent="b", kind="rollout", steps=steps, returns=[3.0] * 100)
    found = compared(tmp_path)
    # Group "ppo" has no training returns either: its evaluations stay.
    assert found.kind == "evaluation" and "b" not in found.lines
    for name in ("a", "b"):
        make_run(
            tmp_path / f"{name}1", agent="ppo" if name == "a" else "b", seed=1, kind="rollout",
            steps=steps, returns=[float(step) for step in steps], random=-5.0,
        )  # fmt: skip
    found = compared(tmp_path)
    assert found.kind == "training"
    notes = " ".join(found.notes)
    assert "Some group has no evaluation curve with two points" in notes
    assert "Training returns are of whoever acted" in notes
    # Smoothed over the last 50 steps, from the first full window on: 10 to 50.
    (curve,) = (run.curve for run in found.runs["ppo"] if len(run.curve.steps))
    assert (curve.steps[0], curve.returns[0]) == (50, 30)
    # The random policy's -5 is of unclipped rewards: returns count from the baseline's beginning.
    assert found.floor == 30
    assert compared(tmp_path, kind="training").kind == "training"


def test_an_unfinished_run_is_smoothed_over_a_part_of_all_its_steps(tmp_path: Path) -> None:
    steps = range(10, 201, 10)  # of 1,000
    make_run(
        tmp_path / "a", kind="rollout", steps=steps, returns=[float(step) for step in steps],
        finished=False,
    )  # fmt: skip
    (run,) = compared(tmp_path, kind="training").runs["ppo"]
    # The first 50 steps, which are 5 % of 1,000: the mean of 10 to 50.
    assert (run.curve.steps[0], run.curve.returns[0]) == (50, 30)


def test_without_a_threshold_it_is_said_why(tmp_path: Path) -> None:
    make_run(tmp_path / "a", returns=(1, 1, 1), random=1.0)
    make_run(tmp_path / "b", agent="b", returns=(1, 2, 3), random=1.0)
    found = compared(tmp_path)
    assert found.threshold is None and found.measures["b"].timed == 0
    assert "There is no threshold: the baseline ends at 1, not above 1." in found.notes
    # Nor is there an area to divide by.
    assert found.measures["b"].area_ratio is None
    assert "no finished run of a baseline" in " ".join(compared(tmp_path, None).notes)


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", agent="b", returns=(1, 2, 5, 8, 9))
    found = compared(tmp_path)
    one = found.measures["b"]
    for interval in (one.final_return, one.jumpstart, one.area_ratio, one.steps_ratio):
        assert interval is not None and interval.seeds == 1 and not interval.is_known
    assert not any(point.is_known for point in found.lines["b"].returns)


def curve(*points: tuple[float, float], seed: int = 0) -> RunCurve:
    from rltransfer.metrics import Curve

    steps, returns = np.array(points, dtype=float).reshape(-1, 2).T
    return RunCurve(seed, True, Curve(steps, returns))


def test_a_mean_curve_is_of_the_runs_that_got_there(tmp_path: Path) -> None:
    line = mean_line([curve((0, 0), (20, 4)), curve((10, 4), (40, 10)), curve()])
    assert line is not None
    assert line.steps == (0, 10, 20, 40)
    # Alone; 2 and 4; 4 and 6; alone.
    assert [point.estimate for point in line.returns] == [0, 3, 5, 10]
    assert [point.seeds for point in line.returns] == [1, 2, 2, 1]
    assert mean_line([curve()]) is None


def test_a_gap_between_runs_is_not_filled() -> None:
    many = [(float(step), 1.0) for step in range(200)]
    line = mean_line([curve(*many), curve((1000, 2), (1001, 2))])
    assert line is not None and len(line.steps) < 100
    assert not [step for step in line.steps if 199 < step < 1000]
