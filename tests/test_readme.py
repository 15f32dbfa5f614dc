"""What the README shows works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rltransfer

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_python_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for example in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        exec(compile(example, "README.md", "exec"), {})
    assert "return_mean" in capsys.readouterr().out
    for run in ("breakout-student", "breakout-smaller"):
        assert (tmp_path / "runs" / run / "result.json").exists()


def test_no_place_is_left_to_fill() -> None:
    assert "@@" not in README


def test_the_packages_example_names_what_there_is() -> None:
    assert rltransfer.__doc__ is not None
    for name in re.findall(r"rt\.([a-z_]+)", rltransfer.__doc__):
        assert hasattr(rltransfer, name)
