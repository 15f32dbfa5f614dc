"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rltransfer.machine import distributed


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes `target` when the block ends without an error.

    Everything is on the disk before the folder gets its name, so that no interruption leaves a
    folder of that name that is not whole.
    """
    partial = _partial(target)
    aside = target.with_name(f".{target.name}.old")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in [*partial.rglob("*"), partial]:
            _sync(path)
        if target.exists():
            # Aside first: at every instant the old folder or the new one is there, whole.
            shutil.rmtree(aside, ignore_errors=True)
            target.rename(aside)
        partial.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if aside.exists() and not target.exists():
            # The second rename did not happen.
            aside.rename(target)
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def written_together(target: Path) -> Iterator[Path]:
    """Yields one folder to all processes, which is written whole by the first: see `written_whole`.

    When the block has ended, the folder is there for every process.
    """
    if distributed.rank() == 0:
        with written_whole(target) as partial:
            distributed.wait()
            yield partial
            distributed.wait()
    else:
        distributed.wait()
        yield _partial(target)
        distributed.wait()
    distributed.wait()


def _partial(target: Path) -> Path:
    """Returns the name of a folder or file that is not whole yet."""
    return target.with_name(f".{target.name}.partial")


def write_text_whole(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = _partial(path)
    partial.write_text(text)
    _sync(partial)
    partial.rename(path)


def _sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
