"""Transfer matrices: rows of sources, columns of tasks."""

from __future__ import annotations

from pathlib import Path

from fake_runs import begun_with, distillation, make_run, taught_by

import rltransfer as rt

TASKS = ("CartPole-v1", "Acrobot-v1")


def test_runs_that_begin_with_others(tmp_path: Path) -> None:
    finals = {("CartPole-v1", "Acrobot-v1"): 3, ("Acrobot-v1", "CartPole-v1"): 5}
    for seed in range(2):
        for task in TASKS:
            make_run(tmp_path / f"{task}{seed}", tasks=[task], seed=seed, weights=f"{task}{seed}")
        for (source, task), final in finals.items():
            make_run(
                tmp_path / f"{source}-{task}{seed}", tasks=[task], seed=seed, final=final + seed,
                changes=begun_with(f"old/{source}", f"{source}{seed}"),
                finished=(task, seed) != (TASKS[0], 1),
            )  # fmt: skip
    (found,) = rt.report(tmp_path).matrices
    assert found.method == "ppo"
    # In the order in which the runs have the tasks.
    assert found.sources == ("none", "CartPole-v1", "Acrobot-v1")
    assert found.tasks == ("CartPole-v1", "Acrobot-v1")
    cells = found.cells
    assert cells["CartPole-v1"].keys() == {"Acrobot-v1"}
    cell = cells["CartPole-v1"]["Acrobot-v1"]
    assert cell.final_return is not None and cell.final_return.estimate == 3.5
    # The curves are those of the baseline.
    assert cell.area_ratio is not None and cell.area_ratio.estimate == 1
    other = cells["Acrobot-v1"]["CartPole-v1"]
    assert other.final_return is not None and other.final_return.seeds == 1
    assert other.cut_short == 1
    scratch = cells["none"]["Acrobot-v1"]
    assert scratch.final_return is not None and scratch.final_return.estimate == 8
    assert scratch.area_ratio is None


def test_teachers_that_are_no_runs_keep_their_names(tmp_path: Path) -> None:
    for name, teacher in (("a", "zoo"), ("b", "zoo:Acrobot-v1"), ("c", "best.zip")):
        make_run(
            tmp_path / name, agent="policy-distillation", method=distillation(teacher),
            changes=taught_by(teacher),
        )  # fmt: skip
    make_run(tmp_path / "d", method=rt.agents.PPO())
    (found,) = rt.report(tmp_path).matrices
    assert found.method == "policy-distillation"
    assert found.sources == ("CartPole-v1", "Acrobot-v1", "best.zip")


def test_without_a_source_there_is_none(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", agent="b")
    assert rt.report(tmp_path).matrices == ()


def test_methods_with_other_settings_have_their_own(tmp_path: Path) -> None:
    for name, objective in (("a", "kl"), ("b", "nll")):
        make_run(
            tmp_path / name, agent="policy-distillation",
            method=distillation("zoo", objective=objective), changes=taught_by("zoo"),
        )  # fmt: skip
    methods = [one.method for one in rt.report(tmp_path).matrices]
    assert methods == ["policy-distillation objective=kl", "policy-distillation objective=nll"]
