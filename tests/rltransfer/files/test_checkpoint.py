"""Checkpoints: whole or not at all, bitwise the same, and only the newest two."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rltransfer.errors import InputError
from rltransfer.files.atomic import save_tensors, write_text_whole, written_whole
from rltransfer.files.atomic import write_bytes_whole as save
from rltransfer.files.checkpoint import (
    checkpoint_folder,
    checkpoints,
    is_whole,
    load_state,
    newest_checkpoint,
    remove_old,
    save_state,
    write_hashes,
)


def test_folder_appears_when_it_is_whole(tmp_path: Path):
    target = tmp_path / "deep" / "step"
    with written_whole(target) as folder:
        (folder / "a").write_text("one")
        (folder / "sub").mkdir()
        (folder / "sub" / "b").write_text("two")
        assert not target.exists()
    assert (target / "a").read_text() == "one" and (target / "sub" / "b").read_text() == "two"
    assert [path.name for path in target.parent.iterdir()] == ["step"]


def test_error_leaves_nothing(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "step") as folder:
        (folder / "a").write_text("half of it")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_error_leaves_an_older_folder_as_it_was(tmp_path: Path):
    target = tmp_path / "step"
    with written_whole(target) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(OSError, match="disk full"), written_whole(target) as folder:
        (folder / "a").write_text("new")
        raise OSError("disk full")
    assert [path.name for path in tmp_path.iterdir()] == ["step"]
    assert (target / "a").read_text() == "old"


def test_failed_rename_brings_the_older_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "step"
    with written_whole(target) as folder:
        (folder / "a").write_text("old")
    rename = Path.rename

    def refused(path: Path, to: Path) -> Path:
        if path.name == ".step.partial":
            raise OSError("no")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="no"), written_whole(target) as folder:
        (folder / "a").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["step"]
    assert (target / "a").read_text() == "old"


def test_older_folder_is_replaced_and_leftovers_are_not_kept(tmp_path: Path):
    target = tmp_path / "step"
    with written_whole(target) as folder:
        (folder / "old").touch()
    # What a killed process leaves.
    for name in (".step.partial", ".step.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    with written_whole(target) as folder:
        (folder / "new").touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_text_is_written_whole(tmp_path: Path):
    path = tmp_path / "result.json"
    write_text_whole(path, "old")
    write_text_whole(path, "new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_tree_round_trip_is_bitwise(tmp_path: Path):
    torch.manual_seed(0)
    shared = torch.randn(4, 6)
    generator = torch.Generator().manual_seed(3)
    state: dict[str, Any] = {
        "step": 12_345_678_901,
        "seconds": 0.1 + 0.2,
        "name": "grün",
        "none": None,
        "yes": True,
        "list": [1, 2.5, "x"],
        "empty": {},
        "agent": {
            "policy": {"encoder.layers.0.weight": shared, "same.memory": shared[1:3]},
            "turned": shared.T,
            "scalar": torch.tensor(1 / 3, dtype=torch.float64),
            "frames": torch.randint(0, 256, (2, 3), dtype=torch.uint8),
            "flags": torch.tensor([True, False]),
            "half": torch.randn(3).bfloat16(),
            "nothing": torch.zeros(0, 3),
            "special": torch.tensor([float("nan"), float("inf"), -0.0]),
            "generator": generator.get_state(),
            "gradient": torch.ones(2, requires_grad=True),
        },
    }
    save_state(tmp_path, state)
    assert {path.name for path in tmp_path.iterdir()} == {"state.json", "state.safetensors"}
    loaded = load_state(tmp_path)
    _assert_same(state, loaded)
    again = torch.Generator()
    again.set_state(loaded["agent"]["generator"])
    assert torch.equal(torch.rand(5, generator=again), torch.rand(5, generator=generator))


def _assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            _assert_same(one[name], other[name])
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and one.shape == other.shape
        # Bytes, as NaN does not equal itself and -0 equals 0.
        before, after = (t.detach().contiguous().flatten().view(torch.uint8) for t in (one, other))
        assert torch.equal(before, after)
    else:
        assert one == other


def test_tree_without_tensors(tmp_path: Path):
    save_state(tmp_path, {"a": 1})
    assert load_state(tmp_path) == {"a": 1}


@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("size", [None, 0, 20])
def test_damaged_state(name: str, size: int | None, tmp_path: Path):
    save_state(tmp_path, {"weights": torch.arange(100.0), "step": 7})
    path = tmp_path / name
    if size is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError) as caught:
        load_state(tmp_path)
    assert (
        str(caught.value)
        == f"{tmp_path} is not a complete checkpoint: one of its files is damaged."
    )


def test_newest_checkpoint_is_the_one_of_the_most_steps(tmp_path: Path):
    # By number and not by name: 9 comes before 10.
    for step in (9, 100_000_000_000, 10):
        whole(checkpoint_folder(tmp_path, step))
    steps = [int(path.name.split("-")[1]) for path in checkpoints(tmp_path)]
    assert steps == [9, 10, 100_000_000_000]
    assert newest_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 100_000_000_000)


def test_checkpoints_that_are_not_whole_do_not_count(tmp_path: Path):
    whole(checkpoint_folder(tmp_path, 1))
    with written_whole(checkpoint_folder(tmp_path, 2)):
        assert newest_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 1)
    whole(checkpoint_folder(tmp_path, 2))
    assert newest_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 2)


def test_no_checkpoint(tmp_path: Path):
    assert checkpoints(tmp_path) == []
    with pytest.raises(InputError, match="contains no checkpoint"):
        newest_checkpoint(tmp_path)


def test_the_newest_two_are_kept(tmp_path: Path):
    for step in (1, 2, 3, 4):
        remove_old(tmp_path, whole(checkpoint_folder(tmp_path, step)))
    assert checkpoints(tmp_path) == [checkpoint_folder(tmp_path, step) for step in (3, 4)]


def whole(folder: Path) -> Path:
    """A checkpoint with a policy and a state."""
    with written_whole(folder) as partial:
        for name in ("policy", "state"):
            save_tensors({"w": torch.arange(1000.0)}, partial / f"{name}.safetensors")
            (partial / f"{name}.json").write_text('{"steps": 1}')
        write_hashes(partial)
    return folder


def flip(path: Path, place: int = -1000) -> None:
    """Changes one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    old, new = (whole(checkpoint_folder(tmp_path, step)) for step in (1, 2))
    assert newest_checkpoint(tmp_path, "") == new and capsys.readouterr().err == ""
    flip(new / "state.safetensors")
    # Whoever needs the policy alone uses the newest.
    assert newest_checkpoint(tmp_path, "policy") == new and capsys.readouterr().err == ""
    assert newest_checkpoint(tmp_path, "") == newest_checkpoint(tmp_path, "state") == old
    flip(new / "policy.safetensors")
    capsys.readouterr()
    assert newest_checkpoint(tmp_path) == old
    assert capsys.readouterr().err == (
        f"{new} is damaged: step-000000000001, the newest whole one, is used.\n"
    )
    flip(old / "policy.json", 3)
    with pytest.raises(InputError, match="step-000000000002 is not a complete checkpoint"):
        newest_checkpoint(tmp_path)


@pytest.mark.parametrize("content", ["[]", "3", '{"policy.json": 1}', "[" * 10_000, "", None])
def test_hashes_that_are_none_are_damage(content: str | None, tmp_path: Path):
    old, new = (whole(checkpoint_folder(tmp_path, step)) for step in (1, 2))
    path = new / "sha256.json"
    path.unlink() if content is None else path.write_text(content)
    # Earlier versions wrote none.
    assert newest_checkpoint(tmp_path, "") == (new if content is None else old)


@pytest.mark.parametrize("name", ["policy.json", "policy.safetensors", "state.json"])
@pytest.mark.parametrize("size", [None, 0, 9])
def test_checkpoints_of_earlier_versions_fall_back_too(name: str, size: int | None, tmp_path: Path):
    old, new = (whole(checkpoint_folder(tmp_path, step)) for step in (1, 2))
    for folder in (old, new):
        (folder / "sha256.json").unlink()
    if size is None:
        (new / name).unlink()
    else:
        (new / name).write_bytes((new / name).read_bytes()[:size])
    assert newest_checkpoint(tmp_path, "") == old


def test_damaged_checkpoints_after_the_one_resumed_are_replaced(tmp_path: Path):
    for step in (1, 2, 5):
        whole(checkpoint_folder(tmp_path, step))
    remove_old(tmp_path, checkpoint_folder(tmp_path, 2))
    assert checkpoints(tmp_path) == [checkpoint_folder(tmp_path, step) for step in (1, 2)]


def test_files_have_the_permissions_of_new_files(tmp_path: Path):
    (tmp_path / "file").touch()
    for path in whole(tmp_path / "step").iterdir():
        assert path.stat().st_mode == (tmp_path / "file").stat().st_mode


@pytest.mark.parametrize("content", ["[]", "3", "null", '{"processes": []}', "[" * 10_000])
def test_an_odd_state_is_damage(content: str, tmp_path: Path):
    save_state(tmp_path, {"step": 7})
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(InputError, match=r"damaged|processes"):
        load_state(tmp_path)


@pytest.mark.parametrize("name", ["policy.json", "state.json", "state.safetensors"])
def test_a_file_without_content_of_any_size_is_not_hashed(name: str, tmp_path: Path) -> None:
    """Such a file takes no room on the disk, but minutes to read."""
    folder = checkpoint_folder(tmp_path, 1)
    folder.mkdir(parents=True)
    for one in ("policy", "state"):
        save_tensors({"w": torch.zeros(3)}, folder / f"{one}.safetensors")
        (folder / f"{one}.json").write_text("{}")
    write_hashes(folder)
    assert newest_checkpoint(tmp_path, part="") == folder
    with (folder / name).open("r+b") as file:
        file.truncate(2**38)
    began = time.monotonic()
    with pytest.raises(InputError):
        newest_checkpoint(tmp_path, part="")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("name", ["policy.json", "policy.safetensors"])
def test_a_pipe_in_a_checkpoint_is_not_waited_for(name: str, tmp_path: Path) -> None:
    folder = checkpoint_folder(tmp_path, 1)
    folder.mkdir(parents=True)
    save_tensors({"w": torch.zeros(3)}, folder / "policy.safetensors")
    (folder / "policy.json").write_text("{}")
    write_hashes(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match="damaged"):
        newest_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["policy/../policy.json", "../other.json"])
def test_hashes_of_files_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    folder = whole(checkpoint_folder(tmp_path, 1))
    for path in (folder / "policy.json", folder.parent / "other.json"):
        path.write_text("{}")
    write_hashes(folder)
    (folder / "policy").mkdir()
    assert is_whole(folder, "")
    # The right hash of a file that can be read, under a name that leads out of the folder.
    hashes = json.loads((folder / "sha256.json").read_text())
    hashes[name] = hashes["policy.json"]
    (folder / "sha256.json").write_text(json.dumps(hashes))
    assert (folder / name).read_text() == "{}"
    assert not is_whole(folder, "")


def test_a_file_without_a_hash_is_not_whole_where_others_have_one(tmp_path: Path) -> None:
    folder = whole(checkpoint_folder(tmp_path, 1))
    (folder / "evaluation.json").write_text("{}")
    assert is_whole(folder, "policy") and not is_whole(folder, "evaluation.json")
    write_hashes(folder)
    assert is_whole(folder, "evaluation.json")
    (folder / "evaluation.json").write_text("[]")
    assert not is_whole(folder, "evaluation.json")
    (folder / "sha256.json").unlink()  # as in earlier versions
    assert is_whole(folder, "evaluation.json")


@pytest.mark.parametrize("write", [write_text_whole, lambda path, text: save(path, text.encode())])
def test_what_is_left_at_a_partial_file_is_not_followed(write: Any, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / ".result.json.partial").symlink_to(victim)
    write(tmp_path / "result.json", "new")
    assert victim.read_text() == "kept" and (tmp_path / "result.json").read_text() == "new"
    assert not (tmp_path / "result.json").is_symlink()
