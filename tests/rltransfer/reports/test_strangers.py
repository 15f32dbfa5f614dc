"""Runs whose files somebody changed: they are compared, or named in one sentence."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_runs import begun_with, distillation, make_run, taught_by

import rltransfer as rt
from rltransfer.errors import InputError
from rltransfer.reports import reading
from rltransfer.reports.markdown import markdown

CASES = 60
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, float("nan"), float("inf"), 10**300, "", "\0", "\ud800", "x" * 5_000,
    [], {}, [[]], {"source": "x"}, [{"id": "x", "kwargs": {}}], "<script>", "../..", "a|b\n# c",
    "\x1b[2J",
)  # fmt: skip
"""Values in the place of others."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all values within a value."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(part, (*path, name))


def change(draw: random.Random, data: Any) -> None:
    """Replaces or removes one value within a value, if there is one."""
    found = list(places(data))
    if not found:
        return
    *way, last = draw.choice(found)
    for name in way:
        data = data[name]
    if draw.random() < 0.2:
        del data[last]
    else:
        data[last] = copy.deepcopy(draw.choice(ODD))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "good")
    make_run(folder / "chain" / "generation-1", agent="b", teacher=9.0, changes=taught_by("zoo"))
    (folder / "chain" / "config.json").write_text('{"agent": "b", "generations": 1}')
    make_run(
        folder / "bad", agent="policy-distillation", method=distillation("Vote('a', 'b')"),
        weights="1", teacher=9.0,
        changes={
            **begun_with("good", "1"),
            "teacher": {"source": "x", "members": [taught_by("a", "1")["teacher"], {}]},
        },
    )  # fmt: skip
    return folder


def test_changed_files_are_compared_or_named(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Reading the same curves each time would take most of the time.
    points = {path: reading._points(runs / path) for path in ("good", "bad", "chain/generation-1")}
    monkeypatch.setattr(reading, "_points", lambda path: points[str(path.relative_to(runs))])
    files = (*["bad/config.json"] * 4, "bad/result.json", "chain/config.json",
             "bad/checkpoints/step-000000001000/sha256.json")  # fmt: skip
    before = {name: (runs / name).read_text() for name in files}
    outcomes = {"compared": 0, "named": 0}
    for case in range(CASES):
        draw = random.Random(case)
        name = draw.choice(files)
        data = json.loads(before[name])
        for _ in range(draw.choice((1, 1, 3))):
            change(draw, data)
        (runs / name).write_text(json.dumps(data))
        found = rt.report(runs)
        text = markdown(found)
        text.encode()
        json.dumps(found.to_json(), allow_nan=False)
        assert "<script>" not in text.replace(r"\<script\>", "")
        outcomes["named" if found.unreadable else "compared"] += 1
        (runs / name).write_text(before[name])
    assert all(outcomes.values()), outcomes


def test_changed_event_files_are_read_as_far_as_they_go(runs: Path) -> None:
    (path,) = (runs / "bad").glob("events*")
    before = path.read_bytes()
    for case in range(20):
        draw = random.Random(case)
        changed = bytearray(before)
        for _ in range(draw.choice((1, 5))):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        path.write_bytes(changed[: draw.randrange(len(changed))])
        markdown(rt.report(runs))
    path.write_bytes(before)


@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path, name: str) -> None:
    make_run(tmp_path / "good", seed=1)
    made = make_run(tmp_path / "bad")
    (made / name).unlink()
    os.mkfifo(made / name)
    found = rt.report(tmp_path)
    assert bool(found.unreadable) == (name == "config.json")
    if name == "config.json":
        with pytest.raises(InputError, match=r"bad is not a run: it has no config\.json"):
            rt.report(made)
    else:
        assert rt.report(made).runs[0].status.startswith("cut short")


def test_names_that_cannot_be_printed_are_replaced(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", agent="\x1b]0;x\x07 \ud800")
    made.rename(tmp_path / os.fsdecode(b"run-\xff-\x1b[2J"))
    found = rt.report(tmp_path)
    assert found.runs[0].path == f"{tmp_path}/run-\ufffd-\ufffd[2J"
    assert found.groups[0].label == "\ufffd]0;x\ufffd \ufffd"
    assert "\ufffd" in found.write(tmp_path / "report.md").read_text()
