"""Scores over tasks, worked by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_runs import make_run, taught_by

from rltransfer.metrics import aggregate_intervals, improvement_interval
from rltransfer.reports.grouping import Group, Lineage, Names, group_runs
from rltransfer.reports.reading import find_runs
from rltransfer.reports.scores import Scores, compare_scores

TASKS = ("CartPole-v1", "Acrobot-v1")


def compared(folder: Path, baseline: str | None = "ppo") -> Scores:
    runs, _ = find_runs([folder])
    names = Names(runs)
    groups = group_runs(runs, names, Lineage(runs))
    chosen: Group | None = next((one for one in groups if one.label == baseline), None)
    return compare_scores(groups, chosen, names)


def test_scores_worked_by_hand(tmp_path: Path) -> None:
    # The random policy has 10 in the one task, -100 in the other; the baseline 30 and 0 on average.
    for task, random, finals in ((TASKS[0], 10.0, (20, 40)), (TASKS[1], -100.0, (-50, 50))):
        for seed, final in enumerate(finals):
            make_run(
                tmp_path / f"{task}-{seed}", tasks=[task], seed=seed, random=random, final=final
            )
            make_run(
                tmp_path / f"b-{task}-{seed}", tasks=[task], seed=seed, random=random,
                final=final + 20, agent="b",
            )  # fmt: skip
    found = compared(tmp_path)
    assert found.tasks == ("Acrobot-v1", "CartPole-v1")
    assert found.references == {"CartPole-v1": (10, 30), "Acrobot-v1": (-100, 0)}
    base, other = found.groups["ppo"], found.groups["b"]
    assert base.scores == ((0.5, 0.5), (1.5, 1.5)) and base.improvement is None
    # 20 more are a whole unit in the one task, a fifth in the other.
    assert other.scores == (pytest.approx((0.7, 1.5)), pytest.approx((1.7, 2.5)))
    assert other.aggregates == aggregate_intervals(other.scores)
    assert other.improvement == improvement_interval(other.scores, base.scores)
    # Of four scores, all are above 0; at 1.25, two of the baseline's are.
    assert found.thresholds[0] == 0 and found.thresholds[-1] == pytest.approx(2.5)
    assert [base.profile[0].estimate, base.profile[25].estimate] == [1, 0.5]


def test_a_run_of_several_tasks_has_a_score_on_each(tmp_path: Path) -> None:
    for seed in range(2):
        make_run(
            tmp_path / f"a{seed}",
            tasks=TASKS,
            seed=seed,
            final=dict(zip(TASKS, (4, 8), strict=True)),
        )
    found = compared(tmp_path)
    assert found.groups["ppo"].scores == ((1.0, 1.0), (1.0, 1.0))


def test_seeds_and_groups_that_are_not_finished_on_every_task_are_named(tmp_path: Path) -> None:
    for task in TASKS:
        for seed in range(3):
            make_run(
                tmp_path / f"{task}-{seed}", tasks=[task], seed=seed,
                finished=(task, seed) != (TASKS[0], 1),
            )  # fmt: skip
    make_run(tmp_path / "b", agent="b", tasks=TASKS[:1])
    found = compared(tmp_path)
    assert list(found.groups) == ["ppo"] and found.groups["ppo"].seeds == (0, 2)
    notes = " ".join(found.notes)
    assert "Of ppo, the seeds 1 are left out: they are not finished on every task." in notes
    assert "b is left out: no seed is finished on every task." in notes


def test_without_a_baseline_1_is_the_teacher(tmp_path: Path) -> None:
    make_run(tmp_path / "a", final=5.0, teacher=10.0, changes=taught_by("x"))
    found = compared(tmp_path, None)
    assert found.references == {"CartPole-v1": (0, 10)}
    assert found.groups["ppo"].scores == ((0.5,),)
    assert found.notes[0].endswith("1 is the teachers' mean return.")


def test_without_what_counts_as_1_there_are_no_scores(tmp_path: Path) -> None:
    make_run(tmp_path / "a", final=-1.0)
    make_run(tmp_path / "b", agent="b")
    # The baseline is worse than the random policy.
    found = compared(tmp_path)
    assert not found.groups and not found.tasks
    assert "CartPole-v1 is left out: what counts as 0 and as 1 is not known." in found.notes
