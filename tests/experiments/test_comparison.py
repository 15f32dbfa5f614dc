"""Comparisons: policies are evaluated once, and again only if weights or episodes changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fitting import fitted_teacher
from in_turn import one_by_one

import rltransfer as rt
from rltransfer.experiments.common import comparison
from rltransfer.experiments.common.comparison import RANDOM, TEACHER, Comparison, compare
from rltransfer.rollouts.evaluation import (
    Evaluation,
    evaluate_random,
    evaluate_teacher,
)

TASK = "CartPole-v1"


def trained(folder: Path, seed: int) -> str:
    rt.train(
        rt.agents.PPO(num_envs=2, rollout_length=8),
        suite=TASK,
        run_dir=folder,
        total_steps=16,
        seed=seed,
        episodes=1,
        evaluate_episodes=0,
        quiet=True,
    )
    return str(folder)


@pytest.fixture
def players(tmp_path: Path) -> Comparison:
    a, b = (trained(tmp_path / f"run-{seed}", seed) for seed in (0, 1))
    return Comparison(
        path=tmp_path / "comparison.json", task=TASK, episodes=20, seed=5,
        players={RANDOM: RANDOM, TEACHER: a, "both": f"Ensemble({a!r}, {b!r})"},
    )  # fmt: skip


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The policies that have been evaluated since, in order."""
    names: list[str] = []

    def random_policy(*given: object, **options: object) -> dict[str, Evaluation]:
        names.append(RANDOM)
        return evaluate_random(*given, **options)

    def taught(teacher: rt.Teacher, *given: object, **options: object) -> dict[str, Evaluation]:
        names.append(type(teacher).__name__)
        return evaluate_teacher(teacher, *given, **options)

    monkeypatch.setattr(comparison, "evaluate_random", random_policy)
    monkeypatch.setattr(comparison, "evaluate_teacher", taught)
    monkeypatch.setattr(comparison, "run_parallel", one_by_one)
    return names


def test_every_policy_is_evaluated_once(players: Comparison, played: list[str]) -> None:
    assert players.stored() is None
    returns = compare({"a": players})["a"]
    assert played == [RANDOM, "PolicyTeacher", "Ensemble"]
    assert list(returns) == [RANDOM, TEACHER, "both"]
    # All on the episodes of one seed, as in a separate evaluation.
    suite, cpu = rt.Suite.of(TASK), torch.device("cpu")
    assert returns[RANDOM] == evaluate_random(suite, 20, seed=5, device=cpu)[TASK].mean
    for name in (TEACHER, "both"):
        teacher = fitted_teacher(rt.load_teacher(players.players[name]), suite, cpu)
        assert returns[name] == evaluate_teacher(teacher, suite, 20, seed=5, device=cpu)[TASK].mean
    played.clear()
    assert compare({"a": players})["a"] == returns == players.stored()
    assert not played


def test_new_and_changed_policies_are_evaluated(
    players: Comparison, played: list[str], tmp_path: Path
) -> None:
    returns = players.play()
    moved = Path(players.players[TEACHER]).rename(tmp_path / "moved")
    played.clear()
    other = {RANDOM: RANDOM, TEACHER: str(moved), "another": trained(tmp_path / "new", 2)}
    found = replace(players, players=other).play()
    assert played == ["PolicyTeacher"]
    assert found[TEACHER] == returns[TEACHER]
    # Policies that are not part of this comparison stay stored.
    stored = json.loads(players.path.read_text())["players"]
    assert set(stored) == {RANDOM, TEACHER, "both", "another"}

    played.clear()
    replace(players, players={**other, TEACHER: other["another"]}).play()
    assert played == ["PolicyTeacher"]


def test_an_ensemble_with_other_members_or_weights_is_another(
    players: Comparison, played: list[str]
) -> None:
    players.play()
    text = players.players["both"]
    for now in (text.replace(")", ", weights=(1, 3))"), text.replace("run-1", "run-0")):
        assert replace(players, players={**players.players, "both": now}).stored() is None


@pytest.mark.parametrize("change", [{"episodes": 21}, {"seed": 6}])
def test_other_episodes_are_evaluated_again(
    players: Comparison, played: list[str], change: dict[str, int]
) -> None:
    players.play()
    played.clear()
    assert replace(players, **change).stored() is None
    replace(players, **change).play()
    assert len(played) == 3
