"""A run with `until` stops when its student is surely as good as that, and not before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from toy import TASK

import rltransfer as rt
from rltransfer.errors import InputError
from rltransfer.rollouts.evaluation import Evaluation
from rltransfer.runs.reaching import FURTHER, confirmed, is_sure, is_there

METHOD: dict[str, Any] = {
    "num_envs": 16, "rollout_length": 10, "batch_size": 80, "epochs": 4, "learning_rate": 3e-3,
    "memory_steps": 5_000, "student": rt.policies.mlp(hidden=(16,)),
}  # fmt: skip


def played(*returns: float) -> dict[str, Evaluation]:
    return {TASK: Evaluation(returns, (1,) * len(returns))}


def test_the_fraction_by_hand() -> None:
    # Random play earns 2, the teacher 12: half of the way is 7.
    teacher, random = played(12, 12), played(2, 2)
    assert is_there(played(7, 7), teacher, random, 0.5)
    assert not is_there(played(7, 6.9), teacher, random, 0.5)
    # Returns that do not vary are sure at once.
    assert is_sure(played(7, 7), teacher, random, 0.5)
    # A teacher that earns less than random play has nothing to keep.
    assert not is_there(played(3, 3), played(1, 1), random, 0.5)


def test_the_confidence_is_that_of_students_t() -> None:
    teacher, random = played(*[12.0] * 9), played(*[2.0] * 9)
    student = np.linspace(-1, 1, 9)
    half = stats.t.ppf(0.95, 8) * stats.sem(student)
    for shift, sure in ((1e-6, True), (-1e-6, False)):
        assert is_sure(played(*(student + 11 + half + shift)), teacher, random, 0.9) is sure
    # The teacher's episodes count with the square of the fraction, random play's with the rest.
    half = stats.t.ppf(0.95, 8) * stats.sem(student) * np.sqrt(0.9**2 + 0.1**2)
    teacher, random = played(*(12 + student)), played(*(2 - student))
    for shift, sure in ((1e-6, True), (-1e-6, False)):
        alike = played(*[11 + half + shift] * 9)
        assert is_sure(alike, teacher, random, 0.9) is sure


def test_further_episodes_are_played_while_it_is_in_doubt() -> None:
    asked: list[tuple[int, int]] = []

    def play(student: float) -> Any:
        def more(episodes: int, batch: int) -> Any:
            asked.append((episodes, batch))
            one = [student - 1, student + 1] * (episodes // 2)
            return played(*one), played(*[11, 13] * (episodes // 2))

        return more

    start = played(5, 9), played(11, 13), played(*[2] * 20)
    found, teacher = confirmed(*start, 0.5, play(7.25))
    assert found and asked == [(FURTHER[0], 0), (FURTHER[1], 1)]
    assert len(teacher[TASK].returns) == 2 + FURTHER[0] + FURTHER[1]
    asked.clear()
    assert not confirmed(*start, 0.5, play(6.0))[0] and len(asked) == 1
    asked.clear()
    assert not confirmed(*start, 0.5, play(7.0))[0] and len(asked) == len(FURTHER)


def taught(run_dir: Path, resume: bool = False, **options: Any) -> rt.Run:
    def teach(seen: rt.Observation, task: torch.Tensor) -> rt.PolicyOutput:
        return rt.PolicyOutput(logits=3.4 * seen["policy"])

    return rt.train(
        rt.agents.PolicyDistillation(teacher=rt.CallableTeacher(teach), **METHOD),
        suite=TASK, run_dir=run_dir, resume=resume, quiet=True,
        **{"total_steps": 8_000, "episodes": 16, "evaluate_every": 160, **options},
    )  # fmt: skip


def test_a_run_stops_when_its_student_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = taught(tmp_path / "run", until=0.95)
    reached = run.result["reached"]
    assert 160 <= reached == run.result["env_steps"] < 8_000
    tasks = run.result["tasks"][TASK]
    assert tasks["return_mean"] > 9.5 and tasks["teacher_return_mean"] == 10
    # It is finished; with another fraction, or without one, it goes on.
    again = taught(tmp_path / "run", resume=True, until=0.95)
    assert again.result == json.loads((tmp_path / "run" / "result.json").read_text())
    on = taught(tmp_path / "run", resume=True, total_steps=1_600)
    assert on.result["env_steps"] == 1_600 and "reached" not in on.result


def test_a_student_that_is_not_there_goes_on_to_the_end(tmp_path: Path) -> None:
    run = taught(tmp_path / "run", until=1.01, total_steps=1_600)
    assert run.result["reached"] is None and run.result["env_steps"] == 1_600


def test_a_student_is_looked_at_more_often_if_it_may_stop(tmp_path: Path) -> None:
    looks: dict[float, list[int]] = {0.0: [], 1.01: []}
    for until, steps in looks.items():

        def look(event: rt.RunEvent, steps: list[int] = steps) -> None:
            if event.kind == "evaluation":
                steps.append(event.step)

        taught(tmp_path / f"{until}", evaluate_every=0, until=until, callbacks=[look])
    assert len(looks[0.0]) <= 10 < len(looks[1.01]) <= 100
    assert looks[1.01][0] < looks[0.0][0]


def test_what_cannot_be_reached_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"evaluations tell when the student is there"):
        taught(tmp_path / "run", until=0.9, evaluate_episodes=0)
    with pytest.raises(InputError, match=r"until is -1.0: it must be finite and at least 0"):
        taught(tmp_path / "run", until=-1.0)
    with pytest.raises(InputError, match=r"until is 95, .* a fraction, e.g. 0.95 for 95 %"):
        taught(tmp_path / "run", until=95.0)
    with pytest.raises(InputError, match="ppo has no teacher to compare with"):
        rt.train(rt.agents.PPO(), suite=TASK, run_dir=tmp_path / "run", until=0.9, quiet=True)
    assert not (tmp_path / "run").exists()
