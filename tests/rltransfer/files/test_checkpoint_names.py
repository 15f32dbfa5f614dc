"""Checkpoints by the names that users give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rltransfer.errors import InputError
from rltransfer.files.atomic import save_tensors
from rltransfer.files.checkpoint import best_folder, checkpoint_folder, write_hashes
from rltransfer.files.checkpoint_names import find_checkpoint


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "policy.json").write_text("{}")
    save_tensors({}, folder / "policy.safetensors")
    write_hashes(folder)
    return folder


@pytest.mark.parametrize("name", [2000, "2000", "2_000", "2e3", 2000.0, np.int64(2000)])
def test_steps_may_be_written_in_any_way(name: Any, tmp_path: Path) -> None:
    folder = write(checkpoint_folder(tmp_path, 2000))
    write(checkpoint_folder(tmp_path, 3000))
    assert find_checkpoint(tmp_path, name) == folder


def test_final_is_the_newest(tmp_path: Path) -> None:
    write(best_folder(tmp_path))
    write(checkpoint_folder(tmp_path, 2000))
    newest = write(checkpoint_folder(tmp_path, 10_000))
    assert find_checkpoint(tmp_path) == find_checkpoint(tmp_path, "final") == newest
    assert find_checkpoint(tmp_path, "best") == best_folder(tmp_path)


@pytest.mark.parametrize("name", ["Best", "20000", 0, -5, "nan", "inf", "1e400", "", "../x", None])
def test_an_unknown_name_lists_those_that_there_are(name: Any, tmp_path: Path) -> None:
    write(best_folder(tmp_path))
    for step in (2000, 10_000):
        write(checkpoint_folder(tmp_path, step))
    (tmp_path / "checkpoints" / "step-x").mkdir()
    with pytest.raises(InputError) as refused:
        find_checkpoint(tmp_path, name)
    assert str(refused.value) == (
        f"There is no checkpoint {str(name)!r} in {tmp_path}: there are best, 2000, 10000 (final)."
    )


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it has none yet"):
        find_checkpoint(tmp_path, "best")
    with pytest.raises(InputError, match="contains no checkpoint"):
        find_checkpoint(tmp_path)
    write(best_folder(tmp_path))
    with pytest.raises(InputError, match="there are best"):
        find_checkpoint(tmp_path, 5)


def test_a_damaged_checkpoint_is_refused_and_not_replaced_by_another(tmp_path: Path) -> None:
    folder = write(checkpoint_folder(tmp_path, 2000))
    write(checkpoint_folder(tmp_path, 1000))
    (folder / "policy.safetensors").write_text("other")
    with pytest.raises(InputError, match=r"step-000000002000 is not a complete checkpoint"):
        find_checkpoint(tmp_path, 2000)
