"""Options of experiments: wrong ones are refused before anything runs or is written."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from rltransfer.cli.experiment import Experiment, experiment_names, find_experiment
from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.experiments.common import trials
from rltransfer.experiments.common.checks import check_options, choice, page_folder
from rltransfer.experiments.common.experiment import PaperExperiment

TRAINING = {name: find_experiment(name) for name in experiment_names()
            if name not in ("benchmarks", "soups")}  # fmt: skip
"""Experiments that train."""

CHOICE = {
    "distral-two-rooms": ("--room", "-1"),
    "distral-mazes": ("--mazes", "-1"),
    "transferability": ("--far", "Pong"),
}
"""A wrong option of experiments without games."""

PAGES = [name for name, kind in TRAINING.items() if issubclass(kind, PaperExperiment)]
"""Experiments that write a page."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every kind."""

    seeds: int = 5
    jobs: int = 0
    beta: float = 1.0
    sizes: tuple[str, ...] = choice("size", ("25 %", "7 %"))
    betas: tuple[float, ...] = (1.0, 2.0)
    out: Path | None = None


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"seeds": 0}, "seeds is 0: it must be at least 1."),
        ({"seeds": 10**18}, "seeds is 1000000000000000000: it must be at most 10,000."),
        ({"seeds": 10_001}, "seeds is 10001: it must be at most 10,000."),
        ({"seeds": True}, "seeds is True: it must be a whole number."),
        ({"jobs": -1}, "jobs is -1: it must be at least 0."),
        ({"beta": 0.0}, "beta is 0: it must be a number above 0."),
        ({"beta": float("nan")}, "beta is nan: it must be a number above 0."),
        ({"sizes": ()}, "sizes is empty: give at least one value."),
        ({"sizes": ("7 %", "7 %")}, "sizes contains a value twice: give each value once."),
        ({"sizes": ("9 %",)}, "There is no size '9 %': did you mean '7 %'?"),
        ({"betas": (1.0, -1.0)}, "betas is -1: it must be a number above 0."),
    ],
)
def test_what_is_refused(wrong: dict[str, object], sentence: str) -> None:
    check_options(Options())
    with pytest.raises(InputError) as refused:
        check_options(Options(**wrong))
    assert str(refused.value) == sentence


@pytest.mark.parametrize("name", TRAINING)
def test_every_experiment_checks_its_options(name: str) -> None:
    kind: type[Experiment] = TRAINING[name]
    options = {field.name for field in dataclasses.fields(kind)}
    for option in options & {"seeds", "seed", "episodes", "steps", "jobs", "mazes", "generations"}:
        with pytest.raises(InputError, match=f"{option} is -1: it must be at least"):
            kind(**{option: -1})
    for option in options & {"games", "sizes", "losses", "learners", "betas"}:
        with pytest.raises(InputError, match=f"{option} is empty"):
            kind(**{option: ()})
    for option in options & {"games", "sizes", "losses", "learners"}:
        with pytest.raises(InputError, match=r"There is no \w+ '9 %': "):
            kind(**{option: ("9 %",)})


@pytest.mark.parametrize("name", TRAINING)
def test_nothing_is_written_when_an_option_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trials, "ProcessPoolExecutor", None)  # running anything fails
    assert main(["experiment", "run", name, *CHOICE.get(name, ("--games", "Nope"))]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_cannot_be_written_is_refused_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trials, "ProcessPoolExecutor", None)  # running anything fails
    Path("file").touch()
    assert main(["experiment", "run", name, "--results", "file/page"]) == 2
    assert capsys.readouterr().err == "file/page cannot be written: Not a directory.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_page_is_written_next_to_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert page_folder(None, Path("runs/one")) == Path("runs/one")
    assert page_folder(Path("page"), Path("runs/one")) == Path("page")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PAGES)
def test_names_and_folders_follow_the_command_line(name: str) -> None:
    kind = TRAINING[name]
    assert kind().command() == f"rltransfer experiment run {name}"
    # No page is published by accident: it goes to the folder of the runs.
    assert (kind.out, kind.results) == (Path("runs") / name, None)


def test_sixteen_experiments_write_a_page() -> None:
    assert len(PAGES) == 17


def test_the_list_contains_how_long_each_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "list"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    for name in TRAINING:
        line = lines[name]
        assert re.search(r" \d+ runs, .*(minutes|hours?) on .* CPU cores?\.$", line), line
