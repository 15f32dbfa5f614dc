"""What makes a comparison unfair is said, and nothing is said where all is alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_runs import begun_with, make_run

import rltransfer as rt
from rltransfer.reports.sections import sections

LIKE = "b of a kind"


def pair(folder: Path, seeds: int = 2, **other: Any) -> tuple[str, ...]:
    """The warnings about two groups, of which the second has other settings."""
    for seed in range(2):
        make_run(folder / f"a{seed}", seed=seed, agent="a")
    for seed in range(seeds):
        make_run(folder / f"b{seed}", seed=seed, **{"agent": LIKE, **other})
    return rt.report(folder, baseline="a").warnings


def test_like_groups_need_no_warning(tmp_path: Path) -> None:
    assert pair(tmp_path) == ()
    (section,) = (one for one in sections(rt.report(tmp_path)) if one.title == "Before you compare")
    assert section.notes == ("Budgets, networks, seeds and evaluations are alike.",)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            {"total_steps": 2_000},
            f"Budgets differ: {LIKE} trains for 2,000 steps, a for 1,000. Curves are compared over "
            "the steps that both cover; final returns are not.",
        ),
        (
            {"parameters": 7_000},
            f"Networks differ: {LIKE} has 7,000 parameters on CartPole-v1, a 100.",
        ),
        (
            {"tasks": ["CartPole-v1", "Acrobot-v1"]},
            f"Numbers of tasks differ: {LIKE} learns 2 tasks at once, a one task. Steps count over "
            "all tasks of a run.",
        ),
        (
            {"seeds": 3},
            f"Numbers of seeds differ: {LIKE} has 3 seeds on CartPole-v1, a 2 seeds.",
        ),
        (
            {"episodes": 7},
            "Evaluations differ: the episodes of the final evaluation are 7 of "
            f"{LIKE}, 100 of a.",
        ),
        (
            {"evaluate_every": 5},
            f"Evaluations differ: the steps between evaluations are 5 of {LIKE}, 0 of a.",
        ),
        (
            {"changes": begun_with("x.zip")},
            f"The steps of the source are not counted: {LIKE}. Add them where a source was trained "
            "for the sake of the transfer.",
        ),
        (
            {"finished": False},
            f"Cut short, or still training: 2 of 2 runs of {LIKE}. They count for the steps to the "
            "threshold alone.",
        ),
    ],
)  # fmt: skip
def test_what_differs_is_said(tmp_path: Path, other: dict[str, Any], sentence: str) -> None:
    assert pair(tmp_path, **other) == (sentence,)


def test_steps_of_a_source_are_no_difference_if_the_baseline_has_a_source_too(
    tmp_path: Path,
) -> None:
    for seed in range(2):
        for name in "ab":
            make_run(
                tmp_path / f"{name}{seed}", seed=seed, agent=name,
                changes=begun_with(f"{name}.zip"),
            )  # fmt: skip
    assert rt.report(tmp_path, baseline="a").warnings == ()


def test_one_seed_is_said(tmp_path: Path) -> None:
    found = pair(tmp_path, seeds=1)
    assert found == (
        f"One seed: {LIKE}. There is no interval, and any difference may be chance.",
        f"Numbers of seeds differ: {LIKE} has 1 seed on CartPole-v1, a 2 seeds.",
    )


def test_groups_with_the_same_fault_are_in_one_sentence(tmp_path: Path) -> None:
    for name in "abc":
        make_run(tmp_path / name, agent=name, total_steps=2_000 if name == "c" else 1_000)
    make_run(tmp_path / "d", agent="d", total_steps=3_000)
    found = rt.report(tmp_path, baseline="a").warnings
    assert found == (
        "One seed: a; b; c; d. There is no interval, and any difference may be chance.",
        "Budgets differ: c trains for 2,000 steps, a for 1,000; d trains for 3,000 steps, a for "
        "1,000. Curves are compared over the steps that both cover; final returns are not.",
    )


def test_groups_that_share_no_task_are_not_compared(tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path / f"a{seed}", seed=seed, agent="a")
        make_run(
            tmp_path / f"b{seed}", seed=seed, agent="b", tasks=["Acrobot-v1"], total_steps=9,
            parameters=7,
        )  # fmt: skip
    assert rt.report(tmp_path).warnings == ()


def test_a_repeated_seed_is_said(tmp_path: Path) -> None:
    pair(tmp_path)
    make_run(tmp_path / "copy", agent="a")
    (found,) = rt.report(tmp_path).warnings
    assert found == (
        f"Repeated seeds: {tmp_path}/copy of a. They are not counted: equal seeds are not "
        "independent."
    )


def test_settings_that_differ_are_listed(tmp_path: Path) -> None:
    small = rt.agents.PPO(network=rt.policies.mlp(hidden=(8,)))
    make_run(tmp_path / "a", method=small)
    make_run(tmp_path / "b", method=rt.agents.PPO(network=rt.policies.mlp(hidden=(16,))))
    make_run(tmp_path / "c", method=small, changes=begun_with("x.zip"))
    found = {one.setting: one.values for one in rt.report(tmp_path).differences}
    assert found.keys() == {"network.hidden", "init_from"}
    assert sorted(found["network.hidden"].values()) == ["[16]", "[8]", "[8]"]
    assert list(found["init_from"].values()) == ["x.zip"]


def test_an_option_of_one_method_is_not_a_difference(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", agent="pqn", method=rt.agents.PQN())
    found = {one.setting for one in rt.report(tmp_path).differences}
    assert "agent" in found and "clip_range" not in found and "exploration" not in found
