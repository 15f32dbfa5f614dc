"""What a run advises at its end follows from what it saw."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy import TASK

import rltransfer as rt
from rltransfer.runs.advice import Advice


def figures(student: float, teacher: float = 12.0) -> dict[str, dict[str, float]]:
    one = {"return_mean": student, "teacher_return_mean": teacher, "random_return_mean": 2.0}
    return {"a": {**one, "return_mean": 12.0, "teacher_return_mean": 12.0}, "b": one}


def advised(losses: list[float], agreement: float | None = None, acts: bool = True) -> str:
    advice = Advice()
    for loss in losses:
        seen = {"train/loss": loss}
        advice.see(seen if agreement is None else {**seen, "train/agreement": agreement})
    return advice.sentence(figures(7.0), acts) or ""


FALLS, STAYS = [1 - 0.01 * step for step in range(60)], [1.0] * 60


@pytest.mark.parametrize(
    ("losses", "agreement", "acts", "words"),
    [
        (FALLS, 0.99, True, "its loss still falls, so that more --total-steps would help"),
        (FALLS[:19], 0.5, True, "the teacher's action in 50% of the states"),
        ([-2.0] * 54 + [-3.0] * 6, 0.99, True, "came to rest, so that more"),
        (STAYS, 0.5, True, "larger --size or --width, or more --epochs"),
        (STAYS, 0.99, False, "has only seen the teacher's states, so that --teacher-acts '1->0'"),
        (
            STAYS,
            0.99,
            True,
            "came to rest, so that more --total-steps, or a larger --size or --width,",
        ),
        (
            STAYS,
            None,
            True,
            "came to rest, so that more --total-steps, or a larger --size or --width,",
        ),
    ],
)
def test_what_would_help(
    losses: list[float], agreement: float | None, acts: bool, words: str
) -> None:
    found = advised(losses, agreement, acts)
    # Half of the way from random play to the teacher, on the worst task.
    assert found.startswith("keeps 50% of the teacher's return on b: ") and words in found


def test_nothing_is_said_of_a_good_student_or_without_a_teacher() -> None:
    advice = Advice()
    assert advice.sentence(figures(11.6), True) is None
    assert advice.sentence(figures(1.0, teacher=2.0), True) is None
    assert advice.sentence({"a": {"return_mean": 1.0, "random_return_mean": 2.0}}, True) is None
    assert advice.sentence({}, True) is None


def test_a_run_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def teach(seen: rt.Observation, task: torch.Tensor) -> rt.PolicyOutput:
        return rt.PolicyOutput(logits=3.4 * seen["policy"])

    method = rt.agents.PolicyDistillation(
        teacher=rt.CallableTeacher(teach), teacher_acts=1, learning_rate=0.0, epochs=1,
        num_envs=4, rollout_length=10, batch_size=40,
    )  # fmt: skip
    rt.train(
        method, suite=TASK, run_dir=tmp_path / "run", total_steps=40, episodes=64,
        evaluate_episodes=0,
    )  # fmt: skip
    said = capsys.readouterr().err
    assert f"of the teacher's return on {TASK}: it chooses the teacher's action in" in said
