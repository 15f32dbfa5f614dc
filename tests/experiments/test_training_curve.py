"""Training curves: read from event files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rltransfer.experiments.common.training_curve import training_curve, training_curves
from rltransfer.runs.tensorboard import Tracker
from rltransfer.tasks.task import Suite


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The folder of a run without curves."""
    config = {"agent": "ppo", "suite": Suite.of("CartPole-v1").to_json()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_run_in_which_no_episode_ended_has_no_points(run_dir: Path) -> None:
    Tracker(run_dir).close()
    curve = training_curve(run_dir, "CartPole-v1")
    assert not len(curve.steps) and not len(curve.smoothed(5).steps)


def test_several_tasks_are_read_at_once(run_dir: Path) -> None:
    tracker = Tracker(run_dir)
    tracker.scalars({"rollout/return/a": 1.0, "rollout/return/b": 2.0}, 8)
    tracker.close()
    found = training_curves(run_dir, ["b", "none", "a"])
    assert [curve.returns.tolist() for curve in found] == [[2.0], [], [1.0]]
