"""Progress as plain lines in a pipe, and as a table in a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from rltransfer.runs.progress import Progress, duration

SCRIPT = """
import time
from rltransfer.runs.progress import Progress
with Progress("a run", 100) as progress:
    progress.show(50, 10.0, {"return": "1.5"})
    time.sleep(0.5)
    progress.show(100, 10.0, {"return": "2.5"})
    time.sleep(0.5)
"""


def test_duration() -> None:
    assert duration(59.4) == "59 s"
    assert duration(200) == "3 min 20 s"
    assert duration(3_720) == "1 h 2 min"
    assert duration(float("inf")) == "?"


def test_a_pipe_gets_plain_lines() -> None:
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    first, last = process.stderr.splitlines()
    assert first == "a run  done 50 %  steps 50  steps/s 10  left 5 s  return 1.5"
    assert last.startswith("a run  done 100 %")
    assert process.stdout == ""


def test_a_terminal_gets_a_live_table() -> None:
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stderr=follower, stdout=follower, env=environment
    )
    process.wait(60)
    os.close(follower)
    shown = os.read(leader, 100_000).decode()
    os.close(leader)
    assert "a run" in shown
    assert "50 %" in shown and "2.5" in shown
    assert "┃" in shown


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("a run", 10, quiet=True) as progress:
        progress.show(10, 1.0, {})
    assert capsys.readouterr() == ("", "")
