"""Free memory: of machines and control groups, whose files are written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rltransfer.machine import free_memory
from rltransfer.machine.free_memory import GIB, existing, format_gib, free_disk

CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 GiB available, without control groups."""
    for name in ("MEMINFO", "OWN_GROUPS", "GROUPS"):
        monkeypatch.setattr(free_memory, name, tmp_path / name)
    lines = ("MemTotal: 16777216 kB", "MemFree: 1048576 kB", f"MemAvailable: {8 * 2**20} kB")
    (tmp_path / "MEMINFO").write_text("\n".join(lines))
    return tmp_path


def write_group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


def test_what_is_available_counts(machine: Path) -> None:
    assert free_memory.free_memory(CPU) == 8 * GIB


def test_the_limit_of_a_group_counts_without_cached_files(machine: Path) -> None:
    (machine / "OWN_GROUPS").write_text("0::/jobs/one\n")
    statistics = f"anon 5\ninactive_file {GIB}\n"
    group = machine / "GROUPS/jobs/one"
    # 5 - 4 + 1 GiB are left.
    sizes = {"memory__max": str(5 * GIB), "memory__current": str(4 * GIB)}
    write_group(group, **sizes, memory__stat=statistics)
    assert free_memory.free_memory(CPU) == 2 * GIB
    # A group without a limit, inside one that has used more than its own.
    (group / "memory.max").write_text("max\n")
    assert free_memory.free_memory(CPU) == 8 * GIB
    outer = {"memory.max": GIB, "memory.current": 2 * GIB, "memory.stat": "inactive_file 0\n"}
    for name, content in outer.items():
        (group.parent / name).write_text(str(content))
    assert free_memory.free_memory(CPU) == 0


def test_the_limit_of_a_group_of_the_first_version_counts(machine: Path) -> None:
    (machine / "OWN_GROUPS").write_text("3:cpu,cpuacct:/\n4:memory:/docker/abc\n0::/\n")
    # In a container, the group is at the root, whatever its place outside.
    write_group(
        machine / "GROUPS/memory",
        memory__limit_in_bytes=str(3 * GIB),
        memory__usage_in_bytes=str(GIB),
        memory__stat="total_inactive_file 0\n",
    )
    assert free_memory.free_memory(CPU) == 2 * GIB


def test_a_machine_without_these_files_has_all_its_memory(machine: Path) -> None:
    (machine / "MEMINFO").unlink()
    assert (free_memory.free_memory(CPU) or 0) > GIB / 4
    assert free_memory.free_memory(torch.device("meta")) is None


def test_the_disk_of_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    assert existing(tmp_path / "a/b") == tmp_path
    assert free_disk(tmp_path / "a/b") == pytest.approx(free_disk(tmp_path), rel=0.1)


def test_sizes_in_words() -> None:
    assert format_gib(19.06 * GIB) == "19.1 GiB" and format_gib(2000 * GIB) == "2,000.0 GiB"
