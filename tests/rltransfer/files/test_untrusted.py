"""Files of strangers: regular ones only, within a limit, and damage in one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rltransfer.errors import InputError
from rltransfer.files.untrusted import (
    LIMIT,
    MIB,
    LimitError,
    check_size,
    damage_refused,
    parse_json,
    read_json,
    read_regular,
)


def test_pipes_devices_and_folders_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # a plain open would wait for ever
    (tmp_path / "zero").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "zero", tmp_path):
        with pytest.raises(OSError):
            read_regular(path)
    (tmp_path / "file").write_bytes(b"content")
    assert read_regular(tmp_path / "file") == b"content"


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(LimitError, match=rf"takes 1,048,576 MiB, .* set {LIMIT} above 512"):
        read_regular(path)


def test_a_variable_raises_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("model.zip")
    with pytest.raises(LimitError):
        check_size(600 * MIB, path)
    monkeypatch.setenv(LIMIT, "600")
    check_size(600 * MIB, path)
    for wrong in ("0", "-1", "many", "", "٣"):
        monkeypatch.setenv(LIMIT, wrong)
        with pytest.raises(InputError, match=f"{LIMIT} is .*at least 1"):
            check_size(1, path)


def test_the_limit_of_json_is_a_sixteenth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, "16")
    path = tmp_path / "large.json"
    path.write_text('"' + "a" * (MIB - 2) + '"')
    assert read_json(path) == "a" * (MIB - 2)
    path.write_text('"' + "a" * (MIB - 1) + '"')
    with pytest.raises(LimitError, match=rf"more than the limit of 1: .* set {LIMIT} above 16"):
        read_json(path)
    assert len(read_regular(path)) == MIB + 1


def test_deep_json_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="too deeply"):
        parse_json("[" * 100_000 + "]" * 100_000)
    assert parse_json(b'{"a": [1]}') == {"a": [1]}


def test_damage_becomes_the_sentence_and_other_sentences_stay() -> None:
    for error in (KeyError("x"), RecursionError(), MemoryError(), OverflowError()):
        with pytest.raises(InputError, match=r"^x is damaged\.$"), damage_refused("x is damaged."):
            raise error
    with pytest.raises(InputError, match="itself"), damage_refused("x is damaged."):
        raise InputError("It says so itself.")


def test_a_long_value_does_not_fill_the_screen() -> None:
    sentence = str(InputError(f"The task {'a' * 100_000!r} is unknown."))
    assert len(sentence) < 5_000
    assert sentence.startswith("The task 'aaa") and sentence.endswith("aaa' is unknown.")
