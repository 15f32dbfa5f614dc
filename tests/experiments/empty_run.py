"""The folder of a run that has not logged anything."""

from __future__ import annotations

import json
from pathlib import Path

from rltransfer.runs.tensorboard import Tracker
from rltransfer.tasks.task import Suite


def empty_run(run_dir: Path) -> Path:
    """Writes a run's configuration and an event file without points, and returns the folder."""
    run_dir.mkdir(exist_ok=True)
    config = {"agent": "ppo", "suite": Suite.of("CartPole-v1").to_json()}
    (run_dir / "config.json").write_text(json.dumps(config))
    Tracker(run_dir).close()
    return run_dir
