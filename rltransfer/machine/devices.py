"""Devices by name."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.machine import distributed


def find_device(name: str) -> torch.device:
    """The device of a name; with several processes, "cuda" is a separate GPU for each.

    Raises:
        InputError: The device does not exist, or there are more processes than GPUs.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if distributed.world_size() > 1 and name.startswith("cuda"):
        name = _gpu_of_process(name)
    return existing_device(name)


def restore_generator(generator: torch.Generator, state: Tensor) -> None:
    """Restores a generator's state; one of another kind of device becomes its seed."""
    if state.shape == generator.get_state().shape:
        generator.set_state(state)
    else:
        digest = hashlib.sha256(bytes(state.tolist())).digest()
        generator.manual_seed(int.from_bytes(digest[:7]))


def existing_device(name: str) -> torch.device:
    """The device of a torch name, e.g. "cuda:1".

    Raises:
        InputError: The device does not exist.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "meta":
            raise RuntimeError("tensors on it have no values")
    except (RuntimeError, AssertionError, ImportError) as error:
        available = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise InputError(
            f"There is no device {name!r}: available are {', '.join(available)}."
        ) from error
    return device


def _gpu_of_process(name: str) -> str:
    if name != "cuda":
        raise InputError(f"The device {name!r} would put every process on one GPU: pass cuda.")
    processes, gpus = distributed.local_world_size(), torch.cuda.device_count()
    if processes > gpus:
        raise InputError(
            f"There are {processes} processes on this machine and {gpus} GPUs, but each process "
            "needs a separate one: start fewer processes, or pass cpu."
        )
    return f"cuda:{distributed.local_rank()}"
