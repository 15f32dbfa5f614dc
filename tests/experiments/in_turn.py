"""What trials run: one after the other, where experiments are cut short, and as other processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def one_by_one(work: Any, arguments: dict[str, Any], jobs: int) -> Iterator[tuple[str, Any]]:
    """What `side_by_side` yields, without the seconds that new processes take to begin."""
    return ((name, work(*given)) for name, given in arguments.items())


def leave_a_mark(path: Path, fails: bool) -> str:
    """Makes a file, and fails if it is to. A function of a module, as other processes need it."""
    path.touch()
    if fails:
        raise RuntimeError("It failed, as it was asked to.")
    return f"made {path.name}"
