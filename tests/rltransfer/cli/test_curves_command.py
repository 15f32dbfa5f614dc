"""`rltransfer curves`: a table, CSV, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rltransfer.cli.main import main
from rltransfer.runs.curves import curves
from rltransfer.runs.tensorboard import Tracker

CONFIG = {"suite": {"name": "x", "tasks": [{"id": "x", "kwargs": {}}]}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("run", "b[red]"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(CONFIG))
        tracker = Tracker(tmp_path / name)
        for step in (1000, 2000):
            tracker.scalars({"train/loss": step / 3, 'final/Maze{"a": 1, "b": 2}': 0.1}, step)
        tracker.close()
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["curves", *words]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_csv_is_tidy(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "run", "b[red]", "--csv")
    assert text.splitlines()[0] == "run,tag,step,wall_time,value" and "\r" not in text
    rows = list(csv.DictReader(io.StringIO(text)))
    points = curves(["run", "b[red]"])
    assert len(rows) == len(points) == 8
    for row, point in zip(rows, points, strict=True):
        assert (row["run"], row["tag"], int(row["step"])) == point[:3]
        assert float(row["wall_time"]) == point.wall_time
        assert np.float32(row["value"]) == np.float32(point.value)
    # As few digits as float32 needs: 0.1, not 0.10000000149011612.
    assert {row["value"] for row in rows} == {"0.1", "333.33334", "666.6667"}


def test_a_table_is_short(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "run", "b[red]", "--tag", "train/*")
    assert text.count("train/loss") == 2 and "final" not in text
    assert "run" in text and "b[red]" in text
    assert "2,000" in text and "666.67" in text


def test_csv_goes_into_a_file_that_is_new(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "run", "--csv", "--tag", "train/*")
    assert main(["curves", "run", "--tag", "train/*", "--out", "run.csv"]) == 0
    assert capsys.readouterr().err == "run.csv: 2 points\n"
    assert (here / "run.csv").read_text() == text
    for words, sentence in {
        ("run", "--out", "run.csv"): "run.csv already exists: use another --out.",
        ("run", "--out", "no/run.csv"): "no/run.csv cannot be written: there is no folder no.",
        (): "RUN is missing; see `rltransfer curves --help`.",
        ("nowhere",): "nowhere is not a run: it has no config.json.",
        ("run", "."): ". is not a run: it has no config.json.",
        ("run", "--tag", "trian/*"): "There is no curve 'trian/*': did you mean 'train/*'?",
    }.items():
        assert main(["curves", *words]) == 2
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("", f"{sentence}\n")
    assert (here / "run.csv").read_text() == text


def test_a_run_without_points_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (here / "run").glob("events*"):
        path.unlink()
    assert main(["curves", "run"]) == 0
    assert capsys.readouterr().err == "There are no points yet.\n"
    assert printed(capsys, "run", "--csv") == "run,tag,step,wall_time,value\n"


def test_a_closed_pipe_ends_quietly(here: Path) -> None:
    tracker = Tracker(here / "run")
    for step in range(2000):  # more than a pipe holds
        tracker.scalars({"train/other": 0.5}, step)
    tracker.close()
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "rltransfer.cli", "curves", "run", "--csv"]
    process = subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert os.read(reader, 10) == b"run,tag,st"  # as `| head -1` does
    os.close(reader)
    assert process.communicate(timeout=120)[1] == ""
    assert process.returncode == 0
