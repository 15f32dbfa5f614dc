"""Which group is the baseline, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_runs import begun_with, make_run, taught_by

import rltransfer as rt
from rltransfer.errors import InputError
from rltransfer.reports.baseline import Baseline, choose_baseline
from rltransfer.reports.grouping import Lineage, Names, group_runs
from rltransfer.reports.reading import find_runs


def chosen(folder: Path, wanted: str | None = None) -> Baseline:
    runs, _ = find_runs([folder])
    names = Names(runs)
    return choose_baseline(group_runs(runs, names, Lineage(runs)), wanted, names)


def test_the_only_group_from_scratch(tmp_path: Path) -> None:
    make_run(tmp_path / "a", agent="taught", changes=taught_by("zoo"))
    make_run(tmp_path / "b", agent="alone")
    make_run(tmp_path / "c", agent="begun", changes=begun_with("x"))
    found = chosen(tmp_path)
    assert found.group is not None and found.group.label == "alone"
    assert found.reason == "It is the only group that learns without a teacher or another run."


def test_of_several_the_one_with_most_common_tasks_then_most_runs(tmp_path: Path) -> None:
    make_run(tmp_path / "a", agent="taught", changes=taught_by("zoo"))
    make_run(tmp_path / "b", agent="few")
    for seed in range(2):
        make_run(tmp_path / f"c{seed}", agent="many", seed=seed)
        make_run(tmp_path / f"d{seed}", agent="elsewhere", seed=seed, tasks=["Acrobot-v1"])
        make_run(tmp_path / f"e{seed}", agent="unfinished", seed=seed, finished=False)
    found = chosen(tmp_path)
    assert found.group is not None and found.group.label == "many"
    assert found.reason.startswith("Of the 4 groups that learn without a teacher")


def test_without_one_from_scratch_all_are_compared(tmp_path: Path) -> None:
    make_run(tmp_path / "a", agent="one", changes=taught_by("zoo"), finished=False)
    make_run(tmp_path / "b", agent="two", changes=taught_by("zoo"))
    found = chosen(tmp_path)
    assert found.group is not None and found.group.label == "two"
    assert found.reason.startswith("Every group learns from a teacher or another run.")


def test_one_group_is_compared_with_nothing(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    assert chosen(tmp_path).group is None
    # Unless it is named.
    assert chosen(tmp_path, "ppo").group is not None


def test_a_baseline_is_named_by_its_label_or_by_a_folder(tmp_path: Path) -> None:
    make_run(tmp_path / "a" / "run", agent="one")
    make_run(tmp_path / "b" / "run", agent="one more")
    for wanted in ("one more", "more", str(tmp_path / "b"), str(tmp_path / "b" / "run")):
        found = chosen(tmp_path, wanted)
        assert found.group is not None and found.group.label == "one more"
        assert found.reason == "It was chosen with --baseline."
    # The whole label comes before a part of another.
    found = chosen(tmp_path, "one")
    assert found.group is not None and found.group.label == "one"
    for wanted, sentence in (
        ("on", "'on' is of several groups: use one of 'one', 'one more'."),
        (str(tmp_path), "is of several groups"),
        ("two", "There is no group of runs 'two': there are one, one more."),
    ):
        with pytest.raises(InputError, match=sentence):
            chosen(tmp_path, wanted)


def test_a_task_that_the_baseline_lacks_has_its_own(tmp_path: Path) -> None:
    for task, agents in (("CartPole-v1", "ab"), ("Acrobot-v1", "cd"), ("Pendulum-v1", "e")):
        for agent in agents:
            made = f"{agent}-{task}"
            make_run(
                tmp_path / made, agent=agent, tasks=[task],
                changes=taught_by("zoo") if agent == "c" else None,
            )  # fmt: skip
    found = {one.task: one for one in rt.report(tmp_path).tasks}
    assert {task: one.baseline for task, one in found.items()} == {
        "CartPole-v1": "a", "Acrobot-v1": "d", "Pendulum-v1": None,
    }  # fmt: skip
    assert found["Acrobot-v1"].notes[0] == (
        "The baseline has no run of this task, so d is the baseline here. It is the only group "
        "that learns without a teacher or another run."
    )
    assert found["Pendulum-v1"].notes[0] == "The baseline has no run of this task."
    # Unless the user chose it.
    asked = rt.report(tmp_path, baseline="a").tasks
    assert [one.baseline for one in asked].count(None) == 2
