"""Curves as rows: what a run wrote, and what of it a resumed run still has."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

import rltransfer as rt
from rltransfer.runs.curves import _records
from rltransfer.runs.tensorboard import Tracker

CONFIG = {"suite": {"name": "x", "tasks": [{"id": "x", "kwargs": {}}]}}


def folder(path: Path, **more: object) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({**CONFIG, **more}))
    return path


def write(run_dir: Path, *steps: int, purge_step: int | None = None, scale: float = 0.1) -> Path:
    """Writes two curves, and returns the event file."""
    before = set(run_dir.glob("events*"))
    tracker = Tracker(run_dir, purge_step)
    tracker.histograms({"a histogram is not a curve": [1.0, 2.0]}, 1)
    for step in steps:
        tracker.scalars({"train/loss": step * scale, "evaluate/return/a b": -step * scale}, step)
    tracker.close()
    (path,) = set(run_dir.glob("events*")) - before
    return path


def points(run_dir: Path, tag: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in rt.curves(run_dir, tag)]


def as_tensorboard(run_dir: Path) -> list[rt.CurvePoint]:
    events = EventAccumulator(str(run_dir), {"scalars": 0})
    events.Reload()
    return [
        rt.CurvePoint(str(run_dir), tag, point.step, point.wall_time, point.value)
        for tag in sorted(events.Tags()["scalars"])
        for point in events.Scalars(tag)
    ]


def test_the_points_of_a_run(tmp_path: Path) -> None:
    run_dir, began = folder(tmp_path / "run"), time.time()
    write(run_dir, 1, 20, 3, scale=0.5)
    found = rt.curves(run_dir)
    assert found == rt.curves(str(run_dir)) == rt.curves([run_dir])
    assert [(*point[:3], point.value) for point in found] == [
        (str(run_dir), "evaluate/return/a b", 1, -0.5),
        (str(run_dir), "evaluate/return/a b", 3, -1.5),
        (str(run_dir), "evaluate/return/a b", 20, -10.0),
        (str(run_dir), "train/loss", 1, 0.5),
        (str(run_dir), "train/loss", 3, 1.5),
        (str(run_dir), "train/loss", 20, 10.0),
    ]
    assert all(began <= point.wall_time <= time.time() for point in found)
    assert rt.CurvePoint._fields == ("run", "tag", "step", "wall_time", "value")


def test_a_resumed_run_has_what_tensorboard_shows(tmp_path: Path) -> None:
    run_dir = folder(tmp_path / "run")
    for name, steps, purge_step in (("1", (10, 20, 30), None), ("2", (25,), 21), ("3", (24,), 24)):
        path = write(run_dir, *steps, purge_step=purge_step)
        path.rename(run_dir / f"events.out.tfevents.{name}")
    assert [step for step, _ in points(run_dir, "train/loss")] == [10, 20, 24]
    assert rt.curves(run_dir) == as_tensorboard(run_dir)
    # Resumed before its first checkpoint: nothing is left.
    write(run_dir, purge_step=1).rename(run_dir / "events.out.tfevents.4")
    assert rt.curves(run_dir) == as_tensorboard(run_dir) == []


def test_several_runs_and_chains(tmp_path: Path) -> None:
    write(folder(tmp_path / "run"), 1)
    chain = folder(tmp_path / "chain", generations=3)
    for number in (1, 2):
        write(folder(chain / f"generation-{number}"), number)
    found = rt.curves([chain, tmp_path / "run"], "train/loss")
    assert [(point.run, point.step) for point in found] == [
        (f"{chain}/generation-1", 1), (f"{chain}/generation-2", 2), (str(tmp_path / "run"), 1),
    ]  # fmt: skip


def test_curves_are_chosen_by_name(tmp_path: Path) -> None:
    write(folder(tmp_path / "run"), 1)
    tracker = Tracker(tmp_path / "run")
    tracker.scalars({'final/x/Maze{"size": [3]}': 1.0, "final/x/Maze3": 2.0}, 1)
    tracker.close()

    def tags(*patterns: str) -> set[str]:
        return {point.tag for point in rt.curves(tmp_path / "run", patterns)}

    assert tags("evaluate/*", "train/los?") == {"evaluate/return/a b", "train/loss"}
    assert tags("*/return/*") == {"evaluate/return/a b"}
    assert tags('final/x/Maze{"size": [3]}') == {'final/x/Maze{"size": [3]}'}
    assert tags("final/x/Maze[3]") == {"final/x/Maze3"}
    with pytest.raises(rt.InputError, match=r"no curve 'evalute/\*': did you mean 'evaluate/\*'\?"):
        tags("evalute/*")
    with pytest.raises(rt.InputError, match="no curve 'loss': did you mean 'train/loss'"):
        tags("loss")


def test_a_run_without_points_has_none(tmp_path: Path) -> None:
    assert rt.curves(folder(tmp_path / "run"), "train/*") == []


def test_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    write(folder(tmp_path / "run"), 1)
    for wrong in (tmp_path, tmp_path / "nowhere", tmp_path / "run" / "config.json"):
        with pytest.raises(rt.InputError, match=r"is not a run: it has no config\.json"):
            rt.curves([tmp_path / "run", wrong])


def test_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder(tmp_path / "run"), 1)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert rt.curves("~/run")


def test_the_last_record_may_be_incomplete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(folder(tmp_path / "run"), 1, 2, 3)
    content = path.read_bytes()
    *_, last = _records(path)
    # It is cut in its checksum, in itself, and in its length.
    for cut in (1, 30, len(last) + 10):
        path.write_bytes(content[:-cut])
        assert [step for step, _ in points(path.parent, "train/loss")] == [1, 2]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("place", [-2, -30, -90])
def test_a_damaged_file_is_said_and_read_as_far_as_it_goes(
    place: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(folder(tmp_path / "run"), 1, 2, 3)
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    assert [step for step, _ in points(path.parent, "train/loss")] in ([1], [1, 2])
    assert capsys.readouterr().err == f"{path} is damaged: the rest of it is left out.\n"


def test_files_that_are_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = folder(tmp_path / "run")
    write(run_dir, 1)
    os.mkfifo(run_dir / "events.out.tfevents.0")
    (run_dir / "events.out.tfevents.1").mkdir()
    (run_dir / "events.out.tfevents.2").write_text("no event, although it is called like them")
    (run_dir / "events.out.tfevents.3").touch()
    assert len(rt.curves(run_dir)) == 2
    assert "events.out.tfevents.2 is damaged" in capsys.readouterr().err


def record(content: bytes) -> bytes:
    size = struct.pack("<Q", len(content))
    sums = [struct.pack("<I", masked_crc32c(part)) for part in (size, content)]
    return size + sums[0] + content + sums[1]


def event(step: int, tag: str = "") -> bytes:
    """A point of a curve, or without one the mark of a run that resumes."""
    if not tag:
        return record(
            Event(step=step, session_log=SessionLog(status=SessionLog.START)).SerializeToString()
        )
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=1.0)])
    return record(Event(step=step, summary=summary).SerializeToString())


def test_many_marks_of_resumes_take_no_time(tmp_path: Path) -> None:
    """Dropping points at each of them would take minutes."""
    run_dir, many = folder(tmp_path / "run"), 20_000
    content = b"".join([event(step, "a") for step in range(many)] + [event(many)] * many)
    (run_dir / "events.out.tfevents.1").write_bytes(content + event(5) + event(7, "a"))
    began = time.process_time()
    assert [point.step for point in rt.curves(run_dir)] == [0, 1, 2, 3, 4, 7]
    assert time.process_time() - began < 20


def test_names_of_curves_have_no_control_characters(tmp_path: Path) -> None:
    run_dir = folder(tmp_path / "run")
    (run_dir / "events.out.tfevents.1").write_bytes(event(1, "a\x1b[2Jb"))
    (point,) = rt.curves(run_dir)
    assert point.tag == r"a\x1b[2Jb"


def test_a_file_of_any_size_is_refused(tmp_path: Path) -> None:
    run_dir = folder(tmp_path / "run")
    with (run_dir / "events.out.tfevents.1").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(rt.InputError, match="more than the limit of 64"):
        rt.curves(run_dir)
