"""The report as data, and where it is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_runs import make_run

import rltransfer as rt
from rltransfer.errors import InputError


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed in range(2):
        make_run(tmp_path / "runs" / f"a{seed}", seed=seed)
        make_run(tmp_path / "runs" / f"b{seed}", agent="b", seed=seed, returns=(1, 4, 7, 8, 8))
    return tmp_path / "runs"


def test_the_data_are_json(runs: Path) -> None:
    report = rt.report(runs)
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["baseline"] == "ppo" == report.baseline
    assert [group["label"] for group in data["groups"]] == ["ppo", "b"]
    measures = data["tasks"][0]["measures"]["b"]
    final = json.loads((runs / "b0" / "result.json").read_text())["tasks"]["CartPole-v1"]
    assert measures["final_return"]["estimate"] == final["return_mean"] == 8
    # Areas of 22.5 / 4 and 16 / 4.
    assert measures["area_ratio"]["estimate"] == pytest.approx(5.875 / 4)
    one = rt.report(runs / "a0").to_json()["tasks"][0]["measures"]["ppo"]["final_return"]
    assert one == {"estimate": 8.0, "low": None, "high": None, "seeds": 1}


def test_the_same_runs_give_the_same_data(runs: Path) -> None:
    assert rt.report(runs).to_json() == rt.report(runs).to_json()


def test_a_baseline_can_be_chosen(runs: Path) -> None:
    report = rt.report(runs, baseline=runs / "b1")
    assert report.baseline == "b" and report.groups[0].label == "b"


def test_what_is_refused(runs: Path) -> None:
    with pytest.raises(InputError, match="No folder is given"):
        rt.report()
    with pytest.raises(InputError, match="threshold is -1"):
        rt.report(runs, threshold=-1)
    with pytest.raises(InputError, match="There is no curve 'train': did you mean 'training'"):
        rt.report(runs, curve="train")  # type: ignore[arg-type]


def test_an_earlier_report_is_replaced_and_nothing_else(runs: Path, tmp_path: Path) -> None:
    report = rt.report(runs)
    for name in ("report.md", "report.html"):
        path = tmp_path / name
        if name.endswith(".html"):
            pytest.importorskip("bokeh")
        report.write(path)
        path.write_text(path.read_text() + "old")
        assert report.write(path) == path and not path.read_text().endswith("old")
        path.write_text("a page of my own")
        with pytest.raises(InputError, match="already exists and is not an earlier report"):
            report.write(path)
        assert path.read_text() == "a page of my own"
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "link.md").symlink_to(tmp_path / "nowhere")
    for name, sentence in (
        ("folder.md", "already exists"),
        ("link.md", "already exists"),
        ("report.pdf", "has no ending that a report can have: use .html, or .md for Markdown"),
        ("report", "has no ending"),
        ("none/report.md", "there is no folder"),
    ):
        with pytest.raises(InputError, match=sentence):
            report.write(tmp_path / name)
