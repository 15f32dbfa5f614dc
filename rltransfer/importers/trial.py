"""Tries a program within bounds of time and memory, which TorchScript's interpreter does not have.

The bounds hold for the trial alone: what a program does with later observations is not known.
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch

from rltransfer.errors import InputError
from rltransfer.files.untrusted import LIMIT, MIB, most_bytes

T = TypeVar("T")

SECONDS = 10.0
"""How long the trials of a program may take."""

NAME = "trial"
"""The name of the threads."""

GROWTH = 2
"""How many times the limit of a file its program may take."""

PER_THREAD = 256 * MIB
"""Address space that each thread of torch may reserve for its stack and its heap."""


def within_bounds(run: Callable[[], T], path: Path, seconds: float = SECONDS) -> T:
    """What a function returns that runs a program.

    Args:
        run: The function. Errors of its own are raised again.
        path: The file of the program, for errors.
        seconds: How long it may take.

    Raises:
        InputError: It takes longer, or more memory.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(run())
        except BaseException as error:
            errors.append(error)

    # Nothing can interrupt a program: one that does not end is left behind in its thread.
    thread = threading.Thread(target=work, name=NAME, daemon=True)
    with _memory_limited():
        thread.start()
        thread.join(seconds)
    if thread.is_alive():
        raise InputError(
            f"The program of the teacher {path} was stopped: it takes more than {seconds:.0f} s "
            "for a few observations, or never ends."
        )
    if errors:
        raise errors[0]
    return results[0]


def is_left_behind() -> bool:
    """Whether a program that did not end still runs."""
    return any(thread.name == NAME for thread in threading.enumerate())


def is_memory_error(error: BaseException) -> bool:
    """Whether an error of a program means that it needs more memory than there is."""
    words = ("allocate memory", "bad_alloc", "out of memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def memory_refusal(path: Path) -> InputError:
    """The error for a program that needs more memory."""
    return InputError(
        f"The program of the teacher {path} was stopped: for a few observations it takes more than "
        f"{GROWTH * most_bytes() // MIB:,} MiB; if you trust it, set {LIMIT} above "
        f"{most_bytes() // MIB}."
    )


@contextlib.contextmanager
def _memory_limited() -> Iterator[None]:
    """Limits the address space of this process, where the system has such a limit."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        threads = min(torch.get_num_threads(), os.cpu_count() or 1)
        most = pages * resource.getpagesize() + GROWTH * most_bytes() + threads * PER_THREAD
        for known in (soft, hard):
            most = most if known == resource.RLIM_INFINITY else min(most, known)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    except (OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
