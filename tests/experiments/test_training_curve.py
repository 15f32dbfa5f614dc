"""Training curves: read back from event files, smoothed, searched."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rltransfer.experiments.training_curve import Curve, training_curve
from rltransfer.tracking import Tracker

NAME = "rollout/return/CartPole-v1"


def test_smoothing_worked_by_hand() -> None:
    # Episodes ended at 10, 20, 40 and 50; the window is of 20 steps.
    curve = Curve(np.array([10.0, 20, 40, 50]), np.array([1.0, 3, 5, 9])).smoothed(20)
    # At 10 no whole window has passed; (0, 20] holds 1 and 3, (20, 40] only 5, (30, 50] 5 and 9.
    assert curve.steps.tolist() == [20, 40, 50]
    assert curve.returns.tolist() == [2, 5, 7]
    assert curve.first_at_least(5) == 40
    assert curve.first_at_least(8) is None


def test_every_point_is_read_and_what_a_killed_process_logged_is_not(tmp_path: Path) -> None:
    # More points than the 10,000 that TensorBoard reads of a curve by itself.
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
