"""The zoo's teachers match their cards, and the experiment that trains them runs."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import fitted_teacher

import rltransfer as rt
from rltransfer.aliases import with_current_names
from rltransfer.experiments.zoo.experiment import (
    EPISODES,
    GAMES,
    STEPS,
    VALUE_STEPS,
    VALUES,
    Zoo,
    recipe,
)
from rltransfer.experiments.zoo.folder import FOLDER
from rltransfer.files.serialization import to_json
from rltransfer.rollouts.evaluation import evaluate_teacher
from rltransfer.tasks.families import find_suite
from rltransfer.teachers.zoo import zoo_cards

BARS = {"Asterix": 12, "Breakout": 15, "Freeway": 50, "Seaquest": 15, "SpaceInvaders": 100}
"""The smallest returns that the teachers may have."""


def plain(data: Any) -> Any:
    """Data after a round trip through JSON."""
    return json.loads(json.dumps(data))


def completed(method: Any, stored: dict[str, Any]) -> dict[str, Any]:
    """A card's recipe, completed with the defaults of options that were added later."""
    fields = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    return {
        name: completed(value, stored.get(name, {}))
        if dataclasses.is_dataclass(value) and isinstance(stored.get(name, {}), dict)
        else stored.get(name, plain(to_json(value)) if _is_default(method, name) else None)
        for name, value in fields.items()
    }


def _is_default(method: Any, name: str) -> bool:
    (field,) = (field for field in dataclasses.fields(method) if field.name == name)
    return bool(getattr(method, name) == field.default)


@pytest.mark.parametrize("game", GAMES)
def test_the_card_contains_how_the_teacher_was_trained(game: str) -> None:
    card = with_current_names(json.loads((FOLDER / f"MinAtar-{game}-v0.card.json").read_text()))
    assert card["return_mean"] - card["return_ci95"] > BARS[game]
    assert card["episodes"] == EPISODES
    method, taught = recipe(game), card["recipe"].get("teacher")
    # The teacher's folder differs between machines.
    made = {**plain(to_json(method)), "teacher": ""}
    assert {**completed(method, card["recipe"]), "teacher": ""} == made
    if game in VALUE_STEPS:
        assert completed(VALUES, taught["method"]) == plain(to_json(VALUES))
        assert taught["options"]["total_steps"] == VALUE_STEPS[game]
    assert card["env_steps"] >= STEPS[game]
    assert {"seed", "hardware", "wall_seconds", "torch"} <= set(card)


@pytest.mark.parametrize("game", GAMES)
def test_the_teacher_earns_the_return_on_its_card(game: str) -> None:
    suite = rt.Suite.of(f"rltransfer/MinAtar-{game}-v0")
    cpu = torch.device("cpu")
    teacher = fitted_teacher(rt.load_teacher("zoo", suite=suite), suite, cpu)
    (found,) = evaluate_teacher(teacher, suite, 48, seed=77, device=cpu, num_envs=48).values()
    card = next(card for card in zoo_cards() if card.task == suite.tasks[0])
    # Two means differ by less than four of their standard errors (ci95 is two).
    assert abs(found.mean - card.data["return_mean"]) < 2 * (found.ci95 + card.data["return_ci95"])
    assert found.mean > BARS[game]


def test_looking_for_the_zoo_imports_no_method() -> None:
    code = (
        "import sys, rltransfer; from rltransfer.teachers.zoo import zoo_cards; "
        "assert zoo_cards(); sys.exit('rltransfer.agents' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_zoo_for_the_whole_suite() -> None:
    suite = find_suite("minatar")
    teacher = rt.load_teacher("zoo", suite=suite)
    assert isinstance(teacher, rt.PerTask)
    assert set(teacher.teachers) == {task.id for task in suite}


def test_the_experiment_trains_writes_and_resumes(tmp_path: Path) -> None:
    options = {"games": ("Breakout",), "steps": 20_000, "out": tmp_path}
    # What a process leaves if it is killed before it writes the configuration.
    (tmp_path / "Breakout-0").mkdir()
    Zoo(**options).run()
    stem = tmp_path / "teachers" / "MinAtar-Breakout-v0"
    card = json.loads(stem.with_name(stem.name + ".card.json").read_text())
    assert card["env_steps"] >= 20_000
    before = stem.with_suffix(".safetensors").read_bytes()
    Zoo(**options).run()
    assert stem.with_suffix(".safetensors").read_bytes() == before
