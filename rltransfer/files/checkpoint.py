"""Checkpoints: folders with safetensors and JSON files only.

A run keeps its `KEPT` newest ones, by which it resumes, and one more of its best policy.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.files.atomic import save_tensors
from rltransfer.files.reading import is_folder, must_be_readable
from rltransfer.files.untrusted import (
    JSON_GROWTH,
    LimitError,
    check_size,
    damage_refused,
    is_regular,
    parse_json,
    read_json,
)
from rltransfer.machine import distributed
from rltransfer.machine.terminal import print_line

KEPT = 2
"""Number of newest checkpoints to keep."""

BEST = "best"
"""The folder of the checkpoint with the best policy; the others are named after their step."""

LARGEST_HEADER = 2**24
"""Bytes of the names and shapes in a safetensors file; each tensor takes about 100."""

PROCESSES = "processes"
"""Key of the number of processes in a state."""

HASHES = "sha256.json"
"""The file with the hash of every other file of a checkpoint."""

DAMAGE = (
    SafetensorError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""Errors of reading damaged JSON and safetensors files."""

FILES = ("policy.json", "policy.safetensors", "state.json", "state.safetensors")
"""Files of every checkpoint by which a run resumes; those of several processes have more."""


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Writes nested dictionaries of tensors and JSON values.

    Args:
        folder: The folder of `state.json` and `state.safetensors`; the second process writes
            `state-1.json` and so on.
        state: The dictionaries; keys are strings.
    """
    tensors: dict[str, Tensor] = {}
    plain = _split({**state, PROCESSES: distributed.world_size()}, "", tensors)
    save_tensors(_without_shared_memory(tensors), _state_file(folder, "safetensors"))
    _state_file(folder, "json").write_text(json.dumps(plain, indent=1))


def _state_file(folder: Path, suffix: str) -> Path:
    number = f"-{distributed.rank()}" if distributed.rank() else ""
    return folder / f"state{number}.{suffix}"


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Moves the tensors of a tree into `tensors`, and returns the tree with references to them."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous()
        return {"$tensor": path}
    if isinstance(value, dict):
        # A name with "/" must not lead to the path of another tensor.
        parts = {name: f"{path}/{name.replace('~', '~0').replace('/', '~1')}" for name in value}
        return {name: _split(part, parts[name], tensors) for name, part in value.items()}
    return value


def _without_shared_memory(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies tensors that share memory with an earlier one, as safetensors refuses them."""
    storages: set[int] = set()
    separate = {}
    for path, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        separate[path] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    return separate


def load_state(folder: Path) -> dict[str, Any]:
    """Loads the tree that `save_state` wrote, on the CPU.

    Raises:
        InputError: A file is missing or damaged, or the number of processes differs.
    """
    with damage_refused(f"{folder} is not a complete checkpoint: one of its files is damaged."):
        # From the first process, as others may have no state.
        processes = read_json(folder / "state.json").get(PROCESSES, 1)
        if processes == distributed.world_size():
            tensors = read_tensors(_state_file(folder, "safetensors"))
            plain = read_json(_state_file(folder, "json"))
            state: dict[str, Any] = _join(plain, tensors)
    if processes != distributed.world_size():
        raise InputError(
            f"{folder} was written by {processes} processes, but now there are "
            f"{distributed.world_size()}: resume with {processes}."
        )
    state.pop(PROCESSES, None)
    return state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        Exception: One of `DAMAGE`.
    """
    _check_header(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError("not a safetensors file") from error


def _check_header(path: Path) -> None:
    """Checks what safetensors checks only after it has mapped a whole file, of any size.

    Raises:
        Exception: One of `DAMAGE`.
    """
    if not is_regular(path):
        raise OSError("not a regular file")
    with path.open("rb") as file:
        length, size = int.from_bytes(file.read(8), "little"), path.stat().st_size
        if not 2 <= length <= min(size - 8, LARGEST_HEADER):
            raise ValueError("not a safetensors file")
        header = parse_json(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if 8 + length + max(ends, default=0) != size:
        raise ValueError("not as long as the header of the file declares")


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"$tensor"} and isinstance(value["$tensor"], str):
            return tensors[value["$tensor"]]
        return {name: _join(part, tensors) for name, part in value.items()}
    return value


def checkpoint_folder(run_dir: Path, step: int) -> Path:
    """The folder of the checkpoint at an environment step."""
    return run_dir / "checkpoints" / f"step-{step:012d}"


def best_folder(run_dir: Path) -> Path:
    """The folder of a run's best policy, which is never removed; training cannot resume from it."""
    return run_dir / "checkpoints" / BEST


def checkpoints(run_dir: Path) -> list[Path]:
    """A run's complete checkpoints by which it resumes, oldest first."""
    folder = run_dir / "checkpoints"
    if not is_folder(folder):
        return []
    with must_be_readable():
        return sorted(path for path in folder.iterdir() if path.name.startswith("step-"))


def newest_checkpoint(run_dir: Path, part: str = "policy") -> Path:
    """A run's newest checkpoint whose files are as they were written.

    A line on stderr names a newer one that is damaged.

    Args:
        run_dir: The run's folder.
        part: What is needed of it, "policy" or "state"; "" for both.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    found = checkpoints(run_dir)
    if not found:
        raise InputError(
            f"{run_dir} contains no checkpoint: it is not a run, or stopped before the first one."
        )
    for folder in reversed(found):
        with must_be_readable():
            whole = is_whole(folder, part)
        if whole:
            if folder != found[-1]:
                line = f"{found[-1]} is damaged: {folder.name}, the newest whole one, is used."
                print_line(line, quiet=distributed.rank() > 0)
            return folder
    raise InputError(f"{found[-1]} is not a complete checkpoint: one of its files is damaged.")


def write_hashes(folder: Path) -> None:
    """Writes the hash of every file of a checkpoint, by which `newest_checkpoint` knows damage."""
    paths = sorted(path for path in folder.iterdir() if path.name != HASHES)
    hashes = {path.name: _sha256(path) for path in paths}
    (folder / HASHES).write_text(json.dumps(hashes, indent=1))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_whole(folder: Path, part: str) -> bool:
    """Whether a checkpoint's files whose names begin with `part` are as they were written.

    Where hashes are stored, at least one such file has one. Checkpoints of earlier versions have no
    hashes: only what can be parsed is known to be whole.
    """
    try:
        stored = (folder / HASHES).is_file()
        hashes = read_json(folder / HASHES) if stored else {}
        more = hashes if stored else (path.name for path in folder.glob("state-*"))
        names = {name for name in {*FILES, *more} if name.startswith(part)}
        if stored and not names:
            return False
        for name in names:
            # Before the hash, as a file of any size takes no room on the disk where it is empty.
            _check_size(folder / name)
            if stored and (Path(name).name != name or _sha256(folder / name) != hashes[name]):
                return False
            if not stored:
                _parse(folder / name)
    except (PermissionError, LimitError):
        raise
    except (*DAMAGE, OSError):
        return False
    return True


def _check_size(path: Path) -> None:
    """Checks the size of a checkpoint's file.

    A state contains the replay buffer and may have any size that it declares.

    Raises:
        LimitError: It is above the limit of `files/untrusted.py`.
        Exception: One of `DAMAGE`.
    """
    if not is_regular(path):
        raise OSError("not a regular file")
    size = path.stat().st_size
    if path.suffix == ".json":
        check_size(size, path, JSON_GROWTH)
        return
    if path.name.startswith("policy"):
        check_size(size, path)
    _check_header(path)


def _parse(path: Path) -> None:
    if path.suffix == ".json":
        read_json(path)
    else:
        _check_header(path)
        with safe_open(path, "pt"):
            pass


def generation_folder(folder: Path, number: int) -> Path:
    """The run directory of a generation of a chain, counted from 1."""
    return folder / f"generation-{number}"


def task_folder(folder: Path, number: int) -> Path:
    """The run directory of a task of a sequence, counted from 1."""
    return folder / f"task-{number}"


def column_folder(folder: Path) -> Path:
    """The run directory of the column that is distilled into a task's run."""
    return folder.with_name(f"{folder.name}-column")


def newest_generation(folder: Path) -> Path:
    """The newest run with a checkpoint if the folder is a chain or a sequence, else the folder."""
    for place in (generation_folder, task_folder):
        number = 0
        while checkpoints(place(folder, number + 1)):
            number += 1
        if number:
            return place(folder, number)
    return folder


def remove_old(run_dir: Path, newest: Path) -> None:
    """Removes all but the `KEPT` newest checkpoints.

    Args:
        run_dir: The run's folder.
        newest: The checkpoint that was just written. Those after it are damaged: the run resumed
            from an earlier one.
    """
    found = checkpoints(run_dir)
    kept = found[: found.index(newest) + 1][-KEPT:]
    for folder in found:
        if folder not in kept:
            shutil.rmtree(folder)
