"""The number of CPU threads that torch computes with.

Threads that share one operation wait for each other at its end. If another program occupies a core,
they wait for their turn there. Small networks consist of operations of microseconds, so that such
waits may take most of the time. `number_for` therefore gives several threads to large networks
only. It counts multiply-adds and measures no time, so that it chooses the same number each time:
results may depend on it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from rltransfer.errors import InputError, check_number
from rltransfer.machine import distributed
from rltransfer.options import whole_number

Threads = int | str
"""A number of threads, 0 for torch's default, or `AUTO`: `number_for` chooses."""

AUTO = "auto"

WORK_PER_THREAD = 2**28
"""Multiply-adds of a forward pass that each thread should have: about ten milliseconds of work."""


def checked_threads(value: Threads) -> Threads:
    """A number of threads as an option.

    Raises:
        InputError: It is not a whole number from 0 to 1,024, nor "auto".
    """
    if isinstance(value, str):
        if value != AUTO:
            raise InputError(f'threads is {value!r}: it must be a whole number, or "auto".')
        return value
    number = whole_number("threads", value, "at least 0")
    check_number("threads", number, "at most 1,024")
    return number


def available() -> int:
    """The number of threads that this process may use.

    It is torch's own number: one per core, or `OMP_NUM_THREADS`. Processes of torchrun share the
    cores, unless that variable is set.
    """
    number = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        number //= distributed.local_world_size()
    return max(1, number)


def number_for(work: int, most: int) -> int:
    """The number of threads for networks of some size: `work` / `WORK_PER_THREAD`, at least one.

    Args:
        work: Multiply-adds of the largest forward pass.
        most: The largest number of threads.
    """
    return max(1, min(most, work // WORK_PER_THREAD))


def use_threads(number: Threads) -> None:
    """Computes with this many threads; 0 and "auto" leave torch's number."""
    if isinstance(number, int) and number:
        torch.set_num_threads(number)


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Restores torch's number of threads at the end of the block."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Computes the block with one thread."""
    with restored():
        torch.set_num_threads(1)
        yield
