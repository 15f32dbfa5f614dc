"""Checkpoints: written whole or not at all, safetensors and JSON only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.machine import distributed

KEPT = 2
"""Checkpoints that stay: the newest and the one before it."""

PROCESSES = "processes"
"""What a state calls the number of processes that learned together."""


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Writes a tree of dictionaries whose leaves are tensors and JSON values.

    Args:
        folder: Where `state.json` and `state.safetensors` go, and `state-1.json` and so on of other
            processes than the first.
        state: The tree; its keys are strings without "/".
    """
    tensors: dict[str, Tensor] = {}
    plain = _split({**state, PROCESSES: distributed.world_size()}, "", tensors)
    save_file(_apart(tensors), _state(folder, "safetensors"))
    _state(folder, "json").write_text(json.dumps(plain, indent=1))


def _state(folder: Path, suffix: str) -> Path:
    """Returns the path of this process's state."""
    own = f"-{distributed.rank()}" if distributed.rank() else ""
    return folder / f"state{own}.{suffix}"


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Moves the tensors of a tree into `tensors` and returns the rest, with a mark for each."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous()
        return {"$tensor": path}
    if isinstance(value, dict):
        return {name: _split(part, f"{path}/{name}", tensors) for name, part in value.items()}
    return value


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors, copies where they share memory with one before: these are refused."""
    seen: set[int] = set()
    apart = {}
    for path, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        apart[path] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return apart


def load_state(folder: Path) -> dict[str, Any]:
    """Returns the tree that `save_state` wrote, on the CPU.

    Raises:
        InputError: A file is missing or damaged, or there were more or fewer processes.
    """
    try:
        # Of the first process: if there were fewer, others have no state.
        processes = json.loads((folder / "state.json").read_text()).get(PROCESSES, 1)
        if processes == distributed.world_size():
            tensors = load_file(_state(folder, "safetensors"))
            plain = json.loads(_state(folder, "json").read_text())
            state: dict[str, Any] = _join(plain, tensors)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder} is no whole checkpoint: one of its files is damaged."
        ) from error
    if processes != distributed.world_size():
        raise InputError(
            f"{folder} was written by {processes} processes, but now there are "
            f"{distributed.world_size()}: go on with as many as before."
        )
    state.pop(PROCESSES, None)
    return state


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"$tensor"}:
            return tensors[value["$tensor"]]
        return {name: _join(part, tensors) for name, part in value.items()}
    return value


def checkpoint_folder(run_dir: Path, step: int) -> Path:
    """Returns the folder of the checkpoint at an environment step."""
    return run_dir / "checkpoints" / f"step-{step:012d}"


def checkpoints(run_dir: Path) -> list[Path]:
    """Returns a run's whole checkpoints, oldest first."""
    return sorted((run_dir / "checkpoints").glob("step-*"))


def newest_checkpoint(run_dir: Path) -> Path:
    """Returns a run's newest checkpoint.

    Raises:
        InputError: The folder is no run, or has none yet.
    """
    found = checkpoints(run_dir)
    if not found:
        raise InputError(f"{run_dir} holds no checkpoint: it is no run, or was stopped before one.")
    return found[-1]


def generation_folder(folder: Path, number: int) -> Path:
    """Returns the run directory of a generation of a chain, counted from 1."""
    return folder / f"generation-{number}"


def newest_generation(folder: Path) -> Path:
    """Returns the newest generation of a chain that has a checkpoint; any other folder as it is."""
    number = 0
    while checkpoints(generation_folder(folder, number + 1)):
        number += 1
    return generation_folder(folder, number) if number else folder


def remove_old(run_dir: Path) -> None:
    """Removes all but the newest checkpoints."""
    for folder in checkpoints(run_dir)[:-KEPT]:
        shutil.rmtree(folder)
