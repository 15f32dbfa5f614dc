"""Atari, shortened: teachers, then their students, then the page; each part separately."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_turn import one_by_one

from rltransfer.aliases import with_current_names
from rltransfer.cli.main import main
from rltransfer.envs import atari as emulator
from rltransfer.errors import InputError
from rltransfer.experiments.atari import experiment as atari
from rltransfer.experiments.atari import teachers
from rltransfer.experiments.common import comparison, experiment
from rltransfer.experiments.common.trials import Trial, finished_results, run_trial
from rltransfer.experiments.zoo import experiment as zoo
from rltransfer.experiments.zoo.folder import FOLDER
from rltransfer.files.serialization import to_json
from rltransfer.policies.saving import load_policy
from rltransfer.runs import teacher_check
from rltransfer.runs.folder import difference

WORDS = (
    "experiment run atari --seeds 1 --steps 256 --teacher-steps 128 --episodes 1 --out runs "
    "--results page"
)


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens games and rollouts, runs in this process, hides the zoo's Atari teachers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(emulator._DEFAULTS, "max_num_frames_per_episode", 400)
    monkeypatch.setitem(emulator._DEFAULTS, "noop_max", 1)
    # Each emulator takes a quarter of a second to start.
    for module, name in (
        (zoo, "EPISODES"), (teachers, "TEACHER_EPISODES"), (teacher_check, "CHECK_EPISODES"),
        (teacher_check, "MAX_EPISODES"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, 1)
    brief = {"num_envs": 2, "rollout_length": 32, "epochs": 1, "batch_size": 64}
    taught, distilled = teachers.teacher_recipe, atari.distilled
    monkeypatch.setattr(teachers, "teacher_recipe", lambda game: replace(taught(game), **brief))
    monkeypatch.setattr(atari, "distilled", lambda *given: replace(distilled(*given), **brief))
    monkeypatch.setattr(teachers, "zoo_cards", list)

    def in_turn(trials: Sequence[Trial], folder: Path, jobs: int) -> None:
        done = finished_results(trials, folder)
        for trial in trials:
            if trial.name not in done:
                run_trial(trial, folder)

    monkeypatch.setattr(experiment, "run_trials", in_turn)
    for module in (teachers, comparison):
        monkeypatch.setattr(module, "run_parallel", one_by_one)


def run(part: str, *games: str) -> dict[str, Any]:
    """Runs a part of the experiment and returns the page's figures, if there is a page."""
    words = [*WORDS.split(), "--part", part, "--games", *games, "--sizes", "7 %"]
    assert main(words) == 0
    page = Path("page/results.json")
    return json.loads(page.read_text()) if page.exists() else {}


@pytest.mark.usefixtures("short")
def test_part_by_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not run("teachers", "Pong", "Boxing")
    written = tmp_path / "runs" / "teachers" / "ALE-Pong-v5"
    card = json.loads(written.with_name("ALE-Pong-v5.card.json").read_text())
    assert card["task"] == {"id": "ALE/Pong-v5", "kwargs": {}}
    assert card["agent"] == "ppo" and card["env_steps"] == 128
    # Half of the bytes of float32, and still readable.
    weights = written.with_suffix(".safetensors")
    assert weights.stat().st_size < 4_000_000
    assert load_policy(written).num_acting_parameters() == 1_687_206

    # A teacher with other settings is refused.
    other = WORDS.replace("--teacher-steps 128", "--teacher-steps 256 --part teachers --games Pong")
    assert main(other.split()) == 2
    assert (
        "Pong-teacher contains a run with another total_steps (128, not" in capsys.readouterr().err
    )

    before = weights.stat().st_mtime_ns
    data = run("students", "Pong")
    assert list(data["table"]) == ["7 %"] and list(data["trials"]) == ["Pong-7-0"]
    assert weights.stat().st_mtime_ns == before
    trial = data["trials"]["Pong-7-0"]
    # 8, 17, 17 channels and 133 units, a quarter and a bit of 32, 64, 64 and 512; six actions.
    trunk = 8 * (4 * 64 + 1) + 17 * (8 * 16 + 1) + 17 * (17 * 9 + 1) + 133 * (17 * 49 + 1)
    assert trial["student_parameters"] == trunk + 6 * 134
    assert round(100 * trial["student_parameters"] / trial["teacher_parameters"]) == 7
    # Negative returns are counted from the random policy.
    returns = data["returns"]["Pong-0"]
    random = returns["random"]
    assert random < 0
    gap = returns["teacher"] - random
    assert data["shares"]["7 %"]["Pong"] == [(returns["7 %"] - random) / gap if gap else 0]

    # So are students with other settings, even of a part that is not requested.
    other = WORDS.replace("--steps 256", "--steps 512 --part multitask --games Pong Boxing")
    assert main(other.split()) == 2
    assert "Pong-7-0 contains a run with another total_steps (256, not" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/together-*"))
    # The student of Boxing is missing: the page covers the students of both games alone.
    data = run("multitask", "Pong", "Boxing")
    assert list(data["table"]) == ["one for all"]
    assert list(data["returns"]) == ["Pong-0", "Boxing-0"]
    assert list(data["returns"]["Boxing-0"]) == ["random", "teacher", "one for all"]
    # The student of two games is evaluated in each, with that game's actions and spaces.
    assert data["returns"]["Pong-0"]["teacher"] == returns["teacher"]
    assert list(data["table"]["one for all"]) == ["all games", "Pong", "Boxing"]
    # Students of two games do not prevent those of one.
    assert list(run("students", "Pong")["table"]) == ["7 %"]
    run("multitask", "Pong", "Boxing")
    page = (tmp_path / "page" / "RESULTS.md").read_text()
    # Nature's trunk with 18 outputs for each of two games.
    assert "| one for all | 1,702,596 |" in page and "| 128 |" in page
    assert (tmp_path / "page" / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_students_need_a_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "zoo_cards", list)
    students = atari.AtariDistillation(part="students", out=tmp_path)
    with pytest.raises(InputError, match="contains a teacher of Pong: run"):
        students.run()


def test_teachers_in_the_zoo_are_what_the_experiment_makes() -> None:
    for path in FOLDER.glob("ALE-*.card.json"):
        card = with_current_names(json.loads(path.read_text()))
        game = path.name.removeprefix("ALE-").removesuffix("-v5.card.json")
        recipe = replace(teachers.teacher_recipe(game), precision=card["recipe"]["precision"])
        assert card["env_steps"] >= teachers.STEPS[game]
        # As when a run resumes: an option that was added later and is unused is no difference.
        made = json.loads(json.dumps(to_json(recipe)))
        assert difference(card["recipe"], made, "recipe", known_only=True) == ""
        weights = path.with_name(path.name.replace(".card.json", ".safetensors"))
        assert weights.stat().st_size < 4_000_000
