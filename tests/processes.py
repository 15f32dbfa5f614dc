"""Commands and functions in processes of their own, which begin with everything imported.

To import torch takes two seconds, which a test of an interrupted run would spend three times. All
processes are forked from one server, which has imported what a run needs and nothing else.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "torch", "torch.distributed", "rltransfer.cli.main", "rltransfer.cli.train",
        "rltransfer.runs.run", "rltransfer.runs.generations", "rltransfer.agents",
        "rltransfer.envs.minatar.vector_env", "rltransfer.envs.gridworld.vector_env",
    ]
)  # fmt: skip


class Forked:
    """A function in a process of its own.

    Args:
        function: The function, of a module; what it returns is the exit code.
        args: Its arguments.
        folder: Where its output is written.
        environment: Variables of its environment, beyond those of this process.
        session: Whether it leads a session, as a command in a terminal does.
        before: Called in the process first.
    """

    def __init__(
        self, function: Callable[..., int | None], *args: object, folder: Path,
        environment: Mapping[str, str] | None = None, session: bool = False,
        before: Callable[[], Any] | None = None,
    ) -> None:  # fmt: skip
        self._folder = folder
        folder.mkdir(exist_ok=True)
        variables = {**os.environ, **(environment or {})}
        self._process = _CONTEXT.Process(
            target=_run, args=(function, args, folder, variables, session, before)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return not self._process.is_alive()

    @property
    def errors(self) -> str:
        """What it has written to stderr."""
        return (self._folder / "stderr").read_text()

    @property
    def output(self) -> str:
        """What it has written to stdout."""
        return (self._folder / "stdout").read_text()

    def wait_for(self, happens: Callable[[], object], seconds: float = 120.0) -> None:
        """Waits for something that the process does, which must not end before."""
        until = time.monotonic() + seconds
        while not happens():
            assert not self.ended, self.errors
            assert time.monotonic() < until
            time.sleep(0.002)

    def send(self, number: int) -> None:
        """Sends a signal."""
        os.kill(self.pid, number)

    def code(self, seconds: float = 120.0) -> int:
        """Waits for its end, and returns its exit code; the number of a signal is negative."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self._process.kill()
            raise AssertionError(f"It takes more than {seconds} seconds:\n{self.errors}")
        return self._process.exitcode


def shell(*words: object, **how: Any) -> Forked:
    """`rltransfer WORDS` in a process of its own; see `Forked`."""
    return Forked(_main, [str(word) for word in words], **how)


def kill_at_iteration(number: int) -> None:
    """Lets this process be killed when a run begins its iteration of this number, from 1."""
    from rltransfer.runs.run import Run

    numbers, iterate = itertools.count(1), Run.iterate

    def killed(run: Run) -> dict[str, float]:
        if next(numbers) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return iterate(run)

    Run.iterate = killed  # type: ignore[method-assign]


def _main(words: list[str]) -> int:
    from rltransfer.cli.main import main

    return main(words)


def _run(
    function: Callable[..., int | None], args: Sequence[object], folder: Path,
    environment: Mapping[str, str], session: bool, before: Callable[[], Any] | None,
) -> None:  # fmt: skip
    """What the process does."""
    # What it starts, it starts as a command in a shell would: not by this server.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    if session:
        os.setsid()
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644), number)
    os.environ.clear()
    os.environ.update(environment)
    if before is not None:
        before()
    sys.exit(function(*args))
