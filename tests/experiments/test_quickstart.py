"""The first run, shortened: every game is distilled from the zoo and shown in one table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rltransfer.cli.main import main


@pytest.mark.usefixtures("in_this_process")
def test_two_games(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "experiment run quickstart --games Breakout Asterix --steps 8192 --episodes 4 --out run"
    assert main(words.split()) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    out = capsys.readouterr().out
    assert out.index("MinAtar-Asterix-v0") < out.index("MinAtar-Breakout-v0")
    for game in ("Asterix", "Breakout"):
        result = json.loads((tmp_path / "run" / game / "result.json").read_text())
        # Half of the width is a quarter of the parameters.
        fraction = result["student_parameters"] / result["teacher_parameters"]
        assert 0.24 < fraction < 0.26
