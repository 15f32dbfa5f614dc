"""Born-again networks: a short experiment writes its page and repeats nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.experiments.born_again.experiment import BornAgain
from rltransfer.experiments.common.intervals import MIN_RATIO

WORDS = (
    "experiment run born-again --games Asterix --seeds 1 --generations 2 --steps 4096 "
    "--episodes 2 --out runs --results page"
)


@pytest.mark.usefixtures("in_this_process")
def test_it_writes_its_page_and_does_not_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(WORDS.split()) == 0
    data = json.loads((tmp_path / "page" / "results.json").read_text())
    assert list(data["table"]) == ["1", "2", "ensemble"]
    chain = data["chains"]["Asterix-0"]
    returns = chain["returns"]
    assert list(returns) == ["teacher", "1", "2", "ensemble"]
    # The zoo's teacher earns some 50, students after 4096 steps close to nothing.
    assert returns["teacher"] > 10 > returns["1"]
    for name in ("1", "2", "ensemble"):
        ratio = max(returns[name] / returns["teacher"], MIN_RATIO)
        assert data["table"][name]["mean"] == pytest.approx(ratio)
    # The teacher's width, and a weight and a bias of LayerNorm for each channel and unit.
    assert chain["student_parameters"] - chain["teacher_parameters"] == 2 * (24 + 192)
    page = (tmp_path / "page" / "RESULTS.md").read_text()
    assert "| ensemble |" in page and "| Asterix |" in page and "\n2 runs, " in page
    assert (tmp_path / "page" / "picture.png").read_bytes().startswith(b"\x89PNG")

    # Again: no run starts and nothing is evaluated, as a changed return shows.
    path = tmp_path / "runs" / "Asterix-0" / "comparison.json"
    stored = json.loads(path.read_text())
    stored["players"]["ensemble"]["return_mean"] = 2 * returns["teacher"]
    path.write_text(json.dumps(stored))
    capsys.readouterr()
    assert main(WORDS.split()) == 0
    assert "trials already finished: 1 of 1" in capsys.readouterr().out
    again = json.loads((tmp_path / "page" / "results.json").read_text())
    assert again["table"]["ensemble"]["mean"] == pytest.approx(2)
    # Returns over other episodes do not count.
    other = BornAgain(seeds=1, generations=2, episodes=3, out=tmp_path / "runs").comparisons()
    assert other["Asterix-0"].stored() is None


def test_bad_numbers_are_refused() -> None:
    for name in ("generations", "seeds", "episodes"):
        with pytest.raises(InputError, match=f"{name} is 0"):
            BornAgain(**{name: 0})
