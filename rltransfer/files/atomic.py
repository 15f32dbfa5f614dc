"""Files and folders that are written completely or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from rltransfer.machine import distributed


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes `target` when the block ends without an error.

    All files are on the disk before the folder gets its name, so that no interruption leaves an
    incomplete folder of that name.
    """
    partial, aside = partial_path(target), _aside(target)
    shutil.rmtree(partial, ignore_errors=True)
    if complete_folder(target) == aside:
        aside.rename(target)
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in [*partial.rglob("*"), partial]:
            _sync(path)
        if target.exists():
            # Moved aside first, so that a complete folder, old or new, exists at any time.
            shutil.rmtree(aside, ignore_errors=True)
            target.rename(aside)
        partial.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if aside.exists() and not target.exists():
            aside.rename(target)  # the second rename failed
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def written_together(target: Path) -> Iterator[Path]:
    """Yields one folder to all processes; the first one completes it as in `written_whole`.

    After the block, the folder exists for every process.
    """
    if distributed.rank() == 0:
        with written_whole(target) as partial:
            distributed.wait()
            yield partial
            distributed.wait()
    else:
        distributed.wait()
        yield partial_path(target)
        distributed.wait()
    distributed.wait()


def complete_folder(target: Path) -> Path:
    """Where a folder of `written_whole` is: aside, after a kill between the two renames."""
    aside = _aside(target)
    return aside if aside.exists() and not target.exists() else target


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def partial_path(target: Path) -> Path:
    """Where a file or folder is written before it gets its name."""
    return target.with_name(f".{target.name}.partial")


def write_text_whole(path: Path, text: str) -> None:
    """Writes a file completely or not at all."""
    write_bytes_whole(path, text.encode(errors="backslashreplace"))


def write_bytes_whole(path: Path, data: bytes) -> None:
    """Writes a file completely or not at all."""
    partial = partial_path(path)
    # What is left there may be a link, e.g. in the folder of somebody else's run.
    partial.unlink(missing_ok=True)
    try:
        with partial.open("xb") as file:
            file.write(data)
        _sync(partial)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes a safetensors file, with the permissions of any new file of this user.

    safetensors itself makes files that only their owner can read.
    """
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path)
    path.chmod(mode)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
