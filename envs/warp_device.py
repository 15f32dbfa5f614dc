"""Warp on a torch device, without output on the terminal."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator

import torch
import warp as wp

from rltransfer.errors import InputError
from rltransfer.machine.devices import existing_device


def find_device(device: torch.device | str) -> torch.device:
    """The device of a name; a CUDA device with its index.

    Raises:
        InputError: The device does not exist, or is neither a CPU nor a CUDA device.
    """
    found = existing_device(str(device))
    if found.type == "cpu":
        return torch.device("cpu")
    if found.type != "cuda":
        raise InputError(f"Kernels do not run on {str(found)!r}: they run on 'cpu' and 'cuda'.")
    return torch.device("cuda", torch.cuda.current_device() if found.index is None else found.index)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppresses Warp's messages on start-up and compilation, but not its warnings."""
    with wp.ScopedLogLevel(wp.LOG_WARNING):
        _initialize()
        yield


def current_stream(device: torch.device) -> wp.Stream | None:
    """Torch's current stream as a Warp stream, so that kernels run in order; None on the CPU."""
    if device.type == "cpu":
        return None
    return _stream(device, torch.cuda.current_stream(device).cuda_stream)


@functools.cache
def _stream(device: torch.device, handle: int) -> wp.Stream:
    return wp.Stream(wp.device_from_torch(device), cuda_stream=handle)


@functools.cache
def _initialize() -> None:
    """Starts Warp once, without the line that its native library prints if CUDA is missing."""
    try:
        stderr = -1 if torch.cuda.is_available() else os.dup(2)
    except OSError:  # stderr is closed
        stderr = -1
    if stderr == -1:
        wp.init()  # type: ignore[no-untyped-call]
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        wp.init()  # type: ignore[no-untyped-call]
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
