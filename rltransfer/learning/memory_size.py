"""Whether a replay buffer and its checkpoints will fit, before a run begins."""

from __future__ import annotations

import math
import os
from pathlib import Path

from rltransfer.errors import InputError
from rltransfer.learning.replay_memory import ReplayMemory
from rltransfer.machine import distributed
from rltransfer.machine.free_memory import existing, format_gib, free_disk, free_memory
from rltransfer.nested import Nested
from rltransfer.tasks.observation import Observation

LARGE = 2**30
"""Bytes of a replay buffer whose size is said before a run."""


def check_memory_size(
    memory: ReplayMemory, observation: Observation, fields: Nested, total_steps: int, run_dir: Path
) -> str | None:
    """Checks that a memory fits where it is kept, and into a checkpoint.

    Args:
        memory: The memory, still empty.
        observation: The groups of a step.    (rows, ...)
        fields: Other tensors of the step.    (rows, ...)
        total_steps: Steps of the run, over all processes. What a short run never fills takes no
            space, except on a GPU.
        run_dir: Where checkpoints are written, which contain the memory.

    Returns:
        The size in words if it is large.

    Raises:
        InputError: It does not fit.
    """
    step_bytes = memory.step_bytes(observation, fields)
    filled = min(memory.capacity, math.ceil(total_steps / distributed.world_size()))
    # All processes of a machine share its RAM and disks.
    stored = filled * distributed.local_world_size() * step_bytes
    on_gpu = memory.folder is None and memory.device.type != "cpu"
    steps = memory.capacity if on_gpu else filled
    needed = memory.capacity * step_bytes if on_gpu else stored
    free = check_fits(memory, needed, steps)
    taken, on_disk = stored, free_disk(run_dir)
    if memory.folder is not None and _same_disk(memory.folder, run_dir):
        taken, on_disk = stored + needed, on_disk + _replaced(memory.folder)
    if taken > on_disk:
        where = f"on the disk of {run_dir}, where each checkpoint stores it too"
        raise _too_large(steps, taken, on_disk, where)
    if needed < LARGE:
        return None
    known = "" if free is None else f" of the {format_gib(free)} that are free"
    return (
        f"the replay buffer takes up to {format_gib(needed)}{known} {_place(memory)}, and each "
        f"checkpoint stores it too: {format_gib(on_disk)} are free for them"
    )


def check_fits(memory: ReplayMemory, needed: int, steps: int) -> int | None:
    """Checks that a memory fits where it is kept.

    Args:
        memory: The memory, still empty.
        needed: Bytes that it will take, in all processes of this machine.
        steps: Steps that it will hold.

    Returns:
        Bytes that are free there; None if unknown.

    Raises:
        InputError: It does not fit.
    """
    free = _free(memory)
    if free is not None and needed > free:
        remedy = "a --memory-dir on a larger disk" if memory.folder else "--memory-dir FOLDER"
        raise _too_large(steps, needed, free, _place(memory), f", or {remedy}")
    return free


def _free(memory: ReplayMemory) -> int | None:
    """Bytes that a memory may take; None if unknown."""
    if memory.folder is None:
        return free_memory(memory.device)
    return free_disk(memory.folder) + _replaced(memory.folder)


def _replaced(folder: Path) -> int:
    """Bytes of an earlier run's files, which are replaced."""
    return sum(path.stat().st_blocks * 512 for path in folder.glob("*.memmap"))


def _place(memory: ReplayMemory) -> str:
    if memory.folder is not None:
        return f"on the disk of {memory.folder}"
    return "in RAM" if memory.device.type == "cpu" else f"on {memory.device}"


def _same_disk(*folders: Path) -> bool:
    return len({os.stat(existing(folder)).st_dev for folder in folders}) == 1


def _too_large(steps: int, needed: int, free: int, place: str, others: str = "") -> InputError:
    fitting = steps * free // needed
    return InputError(
        f"The replay buffer would take {format_gib(needed)}, but {format_gib(free)} are free "
        f"{place}: use --memory-steps {fitting:_} at most{others}."
    )
