"""Training curves: read from event files."""

from __future__ import annotations

from pathlib import Path

from rltransfer.experiments.common.training_curve import training_curve, training_curves
from rltransfer.runs.tensorboard import Tracker

NAME = "rollout/return/CartPole-v1"


def test_a_run_in_which_no_episode_ended_has_no_points(tmp_path: Path) -> None:
    Tracker(tmp_path).close()
    curve = training_curve(tmp_path, "CartPole-v1")
    assert not len(curve.steps) and not len(curve.smoothed(5).steps)


def test_several_tasks_are_read_at_once(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    tracker.scalars({"rollout/return/a": 1.0, "rollout/return/b": 2.0}, 8)
    tracker.close()
    found = training_curves(tmp_path, ["b", "none", "a"])
    assert [curve.returns.tolist() for curve in found] == [[2.0], [], [1.0]]
