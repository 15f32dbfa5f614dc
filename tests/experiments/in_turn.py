"""Work for trials: calls in this process, for short experiments, and a function for others."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rltransfer.experiments.common.trials import run_parallel


def one_by_one(work: Any, arguments: dict[str, Any], jobs: int) -> Iterator[tuple[str, Any]]:
    """Like `run_parallel`, without the seconds that new processes take to start."""
    return ((name, work(*given)) for name, given in arguments.items())


def leave_a_mark(path: Path, fails: bool) -> str:
    """Creates a file, and fails on request. Other processes need a function of a module."""
    path.touch()
    if fails:
        raise RuntimeError("It failed on request.")
    return f"made {path.name}"


def wait(path: Path) -> None:
    """Writes the number of its process, and waits for SIGTERM, as a run does."""
    stopped = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    path.write_text(str(os.getpid()))
    while not stopped.is_set():
        time.sleep(0.1)
    time.sleep(0.5)
    path.with_name("checkpoint").touch()
    signal.signal(signal.SIGTERM, before)


def wait_in_parallel(path: Path) -> None:
    """Lets another process `wait`."""
    list(run_parallel(wait, {"one": (path,)}, jobs=1))
