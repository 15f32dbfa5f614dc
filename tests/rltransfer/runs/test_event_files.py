"""Curves from event files: every point, no point that a resume replaced, no stranger's surprise."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rltransfer.errors import InputError
from rltransfer.runs.event_files import read_scalars
from rltransfer.runs.tensorboard import Tracker


def log(run_dir: Path, steps: range, value: float | None = None, resumes: bool = False) -> Path:
    """Logs one curve, its steps as values if there is no other, and returns the newest file."""
    tracker = Tracker(run_dir, purge_step=steps.start if resumes else None)
    for step in steps:
        tracker.scalars({"a": float(step) if value is None else value, "b": 2.0}, step)
    tracker.text("config", "a text")
    tracker.close()
    return max(run_dir.glob("events*"), key=os.path.getmtime)


def test_every_point_is_read_except_those_of_a_killed_process(tmp_path: Path) -> None:
    # More points than the 10,000 that TensorBoard reads by default.
    log(tmp_path, range(11_000))
    # Killed there; the newest checkpoint was at step 9,999.
    log(tmp_path, range(10_000, 10_500), value=-1.0, resumes=True)
    found = read_scalars(tmp_path)
    assert found.keys() == {"a", "b"}
    assert found["a"].steps.tolist() == list(range(10_500))
    assert found["a"].values.tolist() == [float(step) for step in range(10_000)] + [-1.0] * 500


def test_it_reads_what_tensorboard_shows(tmp_path: Path) -> None:
    for steps in (range(30), range(20, 40), range(35, 50, 5)):
        log(tmp_path, steps, value=float(len(steps)), resumes=steps.start > 0)
    shown = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    shown.Reload()
    found = read_scalars(tmp_path)
    assert found.keys() == set(shown.Tags()["scalars"])
    for name, curve in found.items():
        points = [(point.step, point.value) for point in shown.Scalars(name)]
        assert list(zip(curve.steps.tolist(), curve.values.tolist(), strict=True)) == points


def test_a_folder_without_event_files_has_no_curves(tmp_path: Path) -> None:
    assert read_scalars(tmp_path) == {}


def test_a_file_that_was_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    path = log(tmp_path, range(100))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    steps = read_scalars(tmp_path)["a"].steps
    assert 30 < len(steps) < 70
    assert np.array_equal(steps, np.arange(len(steps)))


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A pipe would be waited for.
    os.mkfifo(tmp_path / "events.out.tfevents.1")
    with pytest.raises(InputError, match=r"tfevents\.1 is not an event file"):
        read_scalars(tmp_path)
    (tmp_path / "events.out.tfevents.1").unlink()
    with log(tmp_path, range(9)).open("ab") as file:
        file.truncate(2**21)
    monkeypatch.setenv("RLTRANSFER_MAX_FILE_MIB", "1")
    with pytest.raises(InputError, match="its content takes 2 MiB, more than the limit of 1"):
        read_scalars(tmp_path)


def test_records_that_are_no_events_are_refused(tmp_path: Path) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    with (tmp_path / "events.out.tfevents.1").open("wb") as file:
        RecordWriter(file).write(b"\xff" * 20)
    with pytest.raises(InputError, match="is not an event file, or is damaged"):
        read_scalars(tmp_path)
