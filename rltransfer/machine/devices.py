"""The device that a name stands for."""

from __future__ import annotations

import torch

from rltransfer.errors import InputError
from rltransfer.machine import distributed


def find_device(name: str) -> torch.device:
    """Returns the device of a name.

    Several processes on GPUs have one each.

    Raises:
        InputError: There is no such device here, or not one for each process.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if distributed.world_size() > 1 and name.startswith("cuda"):
        name = _own_gpu(name)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise InputError(
            f"There is no device {name!r} here: there is {', '.join(there)}."
        ) from error
    return device


def _own_gpu(name: str) -> str:
    """Returns the GPU of this process, one of several."""
    if name != "cuda":
        raise InputError(f"The device {name!r} would put every process on one GPU: say cuda.")
    processes, gpus = distributed.local_world_size(), torch.cuda.device_count()
    if processes > gpus:
        raise InputError(
            f"There are {processes} processes on this machine and {gpus} GPUs, but each process "
            "needs its own: start fewer, or say cpu."
        )
    return f"cuda:{distributed.local_rank()}"
