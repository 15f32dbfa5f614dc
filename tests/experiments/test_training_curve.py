"""Training curves: read from event files, smoothed, searched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rltransfer.experiments.common.training_curve import Curve, training_curve, training_curves
from rltransfer.runs.tensorboard import Tracker

NAME = "rollout/return/CartPole-v1"


def test_smoothing_worked_by_hand() -> None:
    # Episodes ended at 10, 20, 40 and 50; the window is of 20 steps.
    curve = Curve(np.array([10.0, 20, 40, 50]), np.array([1.0, 3, 5, 9])).smoothed(20)
    # At 10 no full window has passed; (0, 20] contains 1 and 3, (20, 40] only 5, (30, 50] 5 and 9.
    assert curve.steps.tolist() == [20, 40, 50]
    assert curve.returns.tolist() == [2, 5, 7]
    assert curve.first_at_least(5) == 40
    assert curve.first_at_least(8) is None


def test_every_point_is_read_except_those_of_a_killed_process(tmp_path: Path) -> None:
    # More points than the 10,000 that TensorBoard reads by default.
    first = Tracker(tmp_path)
    for step in range(11_000):
        first.scalars({NAME: float(step)}, step)
    first.close()
    # Killed there; the newest checkpoint was at step 10,000.
    second = Tracker(tmp_path, purge_step=10_000)
    for step in range(10_000, 10_500):
        second.scalars({NAME: -1.0}, step)
    second.close()
    curve = training_curve(tmp_path, "CartPole-v1")
    assert curve.steps.tolist() == list(range(10_500))
    assert curve.returns.tolist() == [float(step) for step in range(10_000)] + [-1.0] * 500


def test_a_run_in_which_no_episode_ended_has_no_points(tmp_path: Path) -> None:
    Tracker(tmp_path).close()
    curve = training_curve(tmp_path, "CartPole-v1")
    assert not len(curve.steps) and not len(curve.smoothed(5).steps)


def test_parts_worked_by_hand() -> None:
    # Four parts of 10 steps. Step 10 belongs to the first part, and a last rollout that ended
    # after the run to the last part.
    curve = Curve(np.array([4.0, 10, 31, 44]), np.array([1.0, 3, 8, 12]))
    # 1 and 3; nothing; nothing; 8 and 12. Linear between 2 and 10.
    assert curve.in_parts(40, 4).tolist() == pytest.approx([2, 14 / 3, 22 / 3, 10])
    # Constant before the first point and after the last one.
    assert Curve(np.array([15.0]), np.array([7.0])).in_parts(40, 4).tolist() == [7, 7, 7, 7]


def test_several_tasks_are_read_at_once(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    tracker.scalars({"rollout/return/a": 1.0, "rollout/return/b": 2.0}, 8)
    tracker.close()
    found = training_curves(tmp_path, ["b", "none", "a"])
    assert [curve.returns.tolist() for curve in found] == [[2.0], [], [1.0]]
