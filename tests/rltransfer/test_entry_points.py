"""Entry points: descriptions without imports."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from rltransfer.entry_points import entries, load_entry, summarize
from rltransfer.errors import InputError


@pytest.mark.parametrize("group", ["rltransfer.agents", "rltransfer.experiments"])
def test_summary_is_that_of_the_loaded_class(group: str) -> None:
    for entry in entries(group):
        assert summarize(entry) == load_entry(entry).__doc__.partition("\n")[0]


def test_summary_of_a_class_in_a_package_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "summarized").mkdir()
    (tmp_path / "summarized/__init__.py").write_text("raise AssertionError('imported')")
    (tmp_path / "summarized/one.py").write_text('class One:\n    """The one.\n\n    More."""\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert summarize(EntryPoint("one", "summarized.one:One", "group")) == "The one."
    assert "summarized" not in sys.modules


def test_summary_of_a_class_from_elsewhere_is_that_of_the_loaded_class() -> None:
    json = EntryPoint("json", "json:JSONEncoder", "group")
    assert (
        summarize(json) == "Extensible JSON <https://json.org> encoder for Python data structures."
    )
    with pytest.raises(InputError, match="The entry point three = 'no_such_module:Three'"):
        summarize(EntryPoint("three", "no_such_module:Three", "group"))
