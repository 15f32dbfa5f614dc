"""`rltransfer report`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import rltransfer as rt
from rltransfer.cli.main import main

sys.path.append(str(Path(__file__).parents[1] / "reports"))
from fake_runs import make_run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        make_run(Path("runs") / f"a{seed}", seed=seed)
        make_run(Path("runs") / f"b{seed}", agent="b", seed=seed, finished=seed == 0)
    return Path("runs")


def test_it_writes_a_page_and_shows_the_comparison(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bokeh")
    assert main(["report", "runs"]) == 0
    printed = capsys.readouterr().out
    assert "CartPole-v1" in printed and "1 + 1 cut short" in printed
    assert "- Cut short, or still training: 1 of 2 runs of b." in printed
    assert printed.endswith("written: report.html\n")
    assert "Transfer report" in Path("report.html").read_text()


def test_json_is_what_python_returns(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--out", "r.md", "--baseline", "b", "--threshold", "0.5", "--json"]
    assert main(["report", "runs/a0", "runs/b0", *words]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data == rt.report("runs/a0", "runs/b0", baseline="b", threshold=0.5).to_json()
    assert data["baseline"] == "b" and data["folders"] == ["runs/a0", "runs/b0"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "DIR is missing; see `rltransfer report --help`."),
        ("nowhere", "There is no folder nowhere: pass run directories, or their parent."),
        ("empty", "empty contains no run: pass folders with runs of `rltransfer train`."),
        ("runs --out x.pdf", "x.pdf has no ending that a report can have: use .html, or .md for"),
        ("runs --baseline c --out x.md", "There is no group of runs 'c': there are b, ppo."),
        ("runs --out mine.md", "mine.md already exists and is not an earlier report: use another"),
    ],
)
def test_what_is_refused(
    runs: Path, words: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    Path("mine.md").write_text("mine")
    before = sorted(Path().iterdir())
    assert main(["report", *words.split()]) == 2
    refusal = capsys.readouterr().err
    assert refusal.startswith(sentence) and refusal.count("\n") == 1
    assert sorted(Path().iterdir()) == before and Path("mine.md").read_text() == "mine"
