"""Zips of strangers: what they contain is bounded before it is read."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from rltransfer.errors import InputError
from rltransfer.files.untrusted import DAMAGE, LIMIT, MIB, LimitError
from rltransfer.importers.archive import MOST_FILES, names_of, unpacked

PATH = Path("model.zip")


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def test_only_what_is_wanted_is_read() -> None:
    content = zipped({"a": b"1", "b": b"2"}, zipfile.ZIP_DEFLATED)
    assert unpacked(content, PATH, lambda name: name == "b") == {"b": b"2"}


def test_a_table_of_too_many_files_is_not_read(tmp_path: Path) -> None:
    """Python makes an object of each entry, of a file that is as small as its names."""
    content = zipped({f"{number:x}": b"" for number in range(MOST_FILES + 1)})
    (tmp_path / "model.zip").write_bytes(content)
    tracemalloc.start()
    try:
        for read in (
            lambda: unpacked(content, PATH, lambda name: True),
            lambda: names_of(tmp_path / "model.zip"),
        ):
            with pytest.raises(LimitError, match="contains more than 20,000 files"):
                read()
        assert tracemalloc.get_traced_memory()[1] < 3 * len(content)
    finally:
        tracemalloc.stop()


def test_the_limit_is_of_all_files_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, "1")
    zeros = bytes(6 * MIB // 10)
    content = zipped({"a": zeros, "b": zeros}, zipfile.ZIP_DEFLATED)
    assert unpacked(content, PATH, lambda name: name == "a") == {"a": zeros}
    with pytest.raises(LimitError, match="more than the limit of 1"):
        unpacked(content, PATH, lambda name: True)


def test_no_more_is_unpacked_than_an_entry_declares() -> None:
    content = bytearray(zipped({"a": bytes(64 * MIB)}, zipfile.ZIP_DEFLATED))
    # The size is 24 bytes into the entry of the table at the end.
    struct.pack_into("<L", content, content.index(b"PK\x01\x02") + 24, 10)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="its 'a' is damaged"):
            unpacked(bytes(content), PATH, lambda name: True)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(method: int) -> None:
    with pytest.raises(InputError, match="its 'a' is damaged"):
        unpacked(zipped({"a": b"content"}, method), PATH, lambda name: True)


def test_names_that_differ_in_case_alone_are_refused() -> None:
    with pytest.raises(InputError, match="two files of one name"):
        unpacked(zipped({"a": b"", "A": b""}), PATH, lambda name: True)


def test_what_is_not_an_archive_has_no_names(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("PK text")
    for name in ("text", "missing", "."):
        assert names_of(tmp_path / name) == []
    with pytest.raises(DAMAGE):
        unpacked(b"PK text", PATH, lambda name: True)
