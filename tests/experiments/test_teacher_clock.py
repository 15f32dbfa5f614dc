"""The clock of the time to the teacher: when it stops, what it counts; the sides on CartPole."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from rltransfer.errors import InputError
from rltransfer.experiments.benchmarks import teacher_clock
from rltransfer.experiments.benchmarks.imitation_trainers import ImitationTrainers
from rltransfer.experiments.benchmarks.teacher_clock import (
    Act,
    Expert,
    TeacherClock,
    TrainingOver,
    find_expert,
)
from rltransfer.experiments.benchmarks.time_to_teacher import TimeToTeacher
from rltransfer.experiments.benchmarks.torch_dagger import TorchDagger

published = pytest.mark.skipif(
    "RLTRANSFER_TEACHERS" not in os.environ,
    reason="RLTRANSFER_TEACHERS names no folder of policies that others trained",
)


class Balancing(Expert):
    """A teacher of CartPole that needs no file: it pushes to where the pole falls."""

    def act(self) -> Act:
        return balance


def balance(observation: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (observation[:, 2] + 0.5 * observation[:, 3] > 0).astype(np.int64)


def left(observation: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.zeros(len(observation), np.int64)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> TeacherClock:
    monkeypatch.setattr(teacher_clock, "FIRST_SECONDS", 0.0)
    made = TeacherClock(Balancing("", "CartPole-v1"), 0.95, limit=60.0, episodes=3)
    made.start()
    return made


def test_the_teacher_itself_is_there_at_once_and_another_is_not(clock: TeacherClock) -> None:
    clock.look(left)
    assert not clock.reached and clock.looks[0][1] < 12
    time.sleep(clock._next + 0.01)
    with pytest.raises(TrainingOver):
        clock.look(balance)
    found = clock.result()
    assert found["reached"] and found["looks"][1][1] > 150
    # Both sets of episodes: the teacher's return is the mean of what its twin plays.
    assert found["teacher_return"] == pytest.approx(
        np.mean([clock._play(balance, k) for k in (0, 1)])
    )


def test_a_student_must_be_there_on_both_sets_of_episodes(
    clock: TeacherClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[int] = []

    def play(act: Act, look: int) -> float:
        played.append(look)
        return clock.targets[0] if look == 0 else clock.targets[1] - 0.1

    monkeypatch.setattr(clock, "_play", play)
    clock.look(balance)
    assert played == [0, 1] and not clock.reached


def test_playing_is_not_counted_and_the_limit_ends_the_measurement(
    clock: TeacherClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def play(act: Act, look: int) -> float:
        time.sleep(0.3)
        return 0.0

    monkeypatch.setattr(clock, "_play", play)
    clock.look(left)
    time.sleep(0.05)
    clock.look(left)
    assert 0.05 <= clock.seconds < 0.3
    clock.limit = 0.01
    with pytest.raises(TrainingOver):
        clock.look(left)
    assert not clock.result()["reached"]


def test_a_teacher_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    with pytest.raises(InputError, match="must be one of cartpole, lunarlander"):
        find_expert("pong")
    monkeypatch.setenv("RLTRANSFER_TEACHERS", str(tmp_path))
    with pytest.raises(InputError, match=r"a folder that contains ppo-CartPole-v1\.zip"):
        TorchDagger(expert="cartpole").run()
    monkeypatch.delenv("RLTRANSFER_TEACHERS")
    with pytest.raises(InputError, match="RLTRANSFER_TEACHERS must name a folder"):
        TimeToTeacher(expert="cartpole").run()


@published
@pytest.mark.parametrize("kind", [TimeToTeacher, TorchDagger])
def test_students_of_cartpole_reach_their_teacher(kind: Any) -> None:
    found = kind(expert="cartpole", limit=60.0, episodes=5).run()
    assert found["reached"] and found["teacher_return"] == 500
    assert 0 < found["seconds"] < 60 and found["env_steps"] < 100_000


@published
@pytest.mark.skipif(find_spec("imitation") is None, reason="imitation is not installed")
@pytest.mark.parametrize("trainer", ["dagger", "bc"])
def test_imitation_reaches_its_teacher(trainer: Any) -> None:
    found = ImitationTrainers(expert="cartpole", trainer=trainer, limit=60.0, episodes=5).run()
    assert found["reached"]
