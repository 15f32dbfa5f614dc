"""Environments in one process each, which may hang or end without a word."""

from __future__ import annotations

import atexit
import contextlib
import functools
import multiprocessing
import time
import weakref
from collections.abc import Sequence
from typing import Any

from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState

from rltransfer.tasks.env_layer import EnvMaker, Failure
from rltransfer.tasks.episode_replay import SECONDS

CLOSE_SECONDS = 5.0
"""How long the environments may take to close before their processes are killed."""


class LostEnvironmentError(Exception):
    """An environment's process ended, or did not answer in time."""

    def __init__(self, row: int, failure: Failure) -> None:
        super().__init__(failure.did)
        self.row = row
        self.failure = failure


class AsyncEnvs(AsyncVectorEnv):
    """Gymnasium's `AsyncVectorEnv` for workers that ignore SIGINT and SIGTERM.

    Signals to the whole group of processes then reach the training alone, which saves its state and
    closes the workers.

    Args:
        makers: Makes each environment.
        timeout: Seconds that a step or reset may take; 0 for any time.

    Raises:
        EOFError: A process ended before its environment was made.
    """

    def __init__(self, makers: Sequence[EnvMaker], timeout: float = 0.0) -> None:
        self._timeout = timeout or None
        self._is_broken = False
        # At its end, Python would terminate the workers with SIGTERM, and wait.
        self._at_exit = functools.partial(_kill, weakref.ref(self))
        atexit.register(self._at_exit)
        try:
            super().__init__(makers, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
        except BaseException:
            # An environment is made in this process first, before there are others.
            self.processes = getattr(self, "processes", [])
            self.parent_pipes = getattr(self, "parent_pipes", [])
            self.close(terminate=True)
            raise

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins new episodes; see `step_wait`."""
        try:
            self.reset_async(seed=seed, options=options)
            return self.reset_wait(self._timeout)
        except (EOFError, OSError, multiprocessing.TimeoutError) as error:
            raise self._lost(error) from error

    def step_async(self, actions: Any) -> None:
        """Begins a step; see `step_wait`."""
        try:
            super().step_async(actions)
        except OSError as error:
            raise self._lost(error) from error

    def step_wait(self, timeout: float | None = None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Ends a step.

        Raises:
            LostEnvironmentError: A process ended, or took too long.
        """
        try:
            return super().step_wait(timeout or self._timeout)
        except (EOFError, OSError, multiprocessing.TimeoutError) as error:
            raise self._lost(error) from error

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Calls a method of every environment; see `step_wait`.

        It may take as long as episodes may be played again, and a step on top.
        """
        try:
            self.call_async(name, *args, **kwargs)
            return self.call_wait(self._timeout and self._timeout + SECONDS)
        except (EOFError, OSError, multiprocessing.TimeoutError) as error:
            raise self._lost(error) from error

    def set_attr(self, name: str, values: Any) -> None:
        """Sets an attribute of every environment; see `step_wait`."""
        try:
            super().set_attr(name, values)
        except (EOFError, OSError) as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> LostEnvironmentError:
        self._is_broken = True
        if isinstance(error, multiprocessing.TimeoutError):
            waiting = (row for row, pipe in enumerate(self.parent_pipes) if not pipe.poll())
            row = next(waiting, 0)
            did = f"did not answer within {self._timeout:g} seconds"
            return LostEnvironmentError(row, Failure(did, "correct it, or raise --env-timeout"))
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            for row, process in enumerate(self.processes):
                if process.exitcode is not None:
                    did = f"ended its process with the exit code {process.exitcode}"
                    remedy = "a negative code is the signal that killed it"
                    return LostEnvironmentError(row, Failure(did, remedy))
            time.sleep(0.01)
        return LostEnvironmentError(0, Failure("closed its connection", "correct it"))

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Asks every environment to close, and kills the processes of those that do not.

        Args:
            timeout: Seconds to wait for them; None for `CLOSE_SECONDS`.
            terminate: Kills them at once, as happens if a step has not ended.
        """
        seconds = CLOSE_SECONDS if timeout is None else timeout
        if terminate or self._is_broken or self._state != AsyncState.DEFAULT:
            seconds = 0.0
        deadline = time.monotonic() + seconds
        # The pipe of a worker that raised an error is None.
        pipes = [pipe for pipe in self.parent_pipes if pipe is not None]
        for pipe in pipes if seconds else ():
            with contextlib.suppress(OSError):  # the process has ended
                pipe.send(("close", None))
        for process in self.processes:
            if seconds:
                process.join(max(deadline - time.monotonic(), 0.0))
            process.kill()
        for process in self.processes:
            process.join()
        for pipe in pipes:
            pipe.close()
        atexit.unregister(self._at_exit)


def _kill(reference: weakref.ref[AsyncEnvs]) -> None:
    envs = reference()
    if envs is not None:
        envs.close(terminate=True)
