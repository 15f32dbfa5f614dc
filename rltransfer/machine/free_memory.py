"""Free memory of the machine, of a GPU and of a disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

GIB = 2**30
MEMINFO = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
"""Where Linux describes its memory, the control groups of this process, and all control groups."""


def format_gib(num_bytes: float) -> str:
    """A size in GiB, e.g. "19.1 GiB"."""
    return f"{num_bytes / GIB:,.1f} GiB"


def free_memory(device: torch.device) -> int | None:
    """Bytes that tensors on a device may still take; None if unknown.

    On the CPU, the limits of control groups count, e.g. of containers and of jobs on a cluster.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch keeps for later tensors is free, too.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + kept)
    if device.type != "cpu":
        return None
    limits = [*_of_machine(), *_of_groups()]
    return max(min(limits), 0) if limits else None


def free_disk(folder: Path) -> int:
    """Bytes that are free on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(existing(folder)).free


def existing(folder: Path) -> Path:
    """A folder, or the nearest one that would contain it and exists."""
    folders = folder.absolute(), *folder.absolute().parents
    return next(one for one in folders if one.is_dir())


def _of_machine() -> Iterator[int]:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:  # not Linux: all memory, as what is free is unknown
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return
    yield from (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _of_groups() -> Iterator[int]:
    """What is left of the limit of each control group that contains this process."""
    for folder, limit, used, cache in _own_groups():
        try:
            left = int((folder / limit).read_text()) - int((folder / used).read_text())
            statistics = dict(line.split() for line in (folder / "memory.stat").open())
        except (OSError, ValueError):  # no limit is the word "max"
            continue
        # The system drops cached files when memory is needed.
        yield left + int(statistics.get(cache, 0))


def _own_groups() -> Iterator[tuple[Path, str, str, str]]:
    """The folders of the groups, with the names of their limit, their use and cached files."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        first = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        names = first if controllers else ("memory.max", "memory.current", "inactive_file")
        if controllers and "memory" not in controllers.split(","):
            continue
        root = GROUPS / controllers if controllers else GROUPS
        folder = root / place.lstrip("/")
        # In a container the place may be that outside, while the root shows its own group.
        for group in (folder, *folder.parents):
            yield (group, *names)
            if group == root:
                break
