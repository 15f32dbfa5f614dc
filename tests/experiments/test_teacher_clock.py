"""The clock of the time to the teacher: when it stops, what it counts; the sides on CartPole."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecNormalize

from rltransfer.errors import InputError
from rltransfer.experiments.benchmarks import teacher_clock
from rltransfer.experiments.benchmarks.experts import EXPERTS, Act, Expert
from rltransfer.experiments.benchmarks.imitation_trainers import ImitationTrainers
from rltransfer.experiments.benchmarks.pairs import find_pairs
from rltransfer.experiments.benchmarks.teacher_clock import TeacherClock, TrainingOver
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
    found = clock.result()
    assert not found["reached"] and found["seconds"] == found["trained_seconds"] > 0.05
    # A run that ends by itself without being there has no credit for its early end.
    clock.limit = 60.0
    assert clock.result()["seconds"] == 60.0


def test_a_teacher_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    with pytest.raises(InputError, match="expert 'pong'"):
        TorchDagger(expert="pong")
    with pytest.raises(InputError, match="fraction is 0"):
        TorchDagger(expert="cartpole", fraction=0.0)
    monkeypatch.setenv("RLTRANSFER_TEACHERS", str(tmp_path))
    with pytest.raises(InputError, match=r"a folder that contains ppo-CartPole-v1\.zip"):
        TorchDagger(expert="cartpole").run()
    monkeypatch.delenv("RLTRANSFER_TEACHERS")
    with pytest.raises(InputError, match="RLTRANSFER_TEACHERS must name a folder"):
        TimeToTeacher(expert="cartpole").run()
    # A pair is refused before any is measured.
    with pytest.raises(InputError, match="RLTRANSFER_TEACHERS must name a folder"):
        find_pairs(["memory-atari", "time-to-teacher-cartpole-torch"])


@published
@pytest.mark.parametrize("kind", [TimeToTeacher, TorchDagger])
def test_students_of_cartpole_reach_their_teacher(kind: Any) -> None:
    found = kind(expert="cartpole", limit=60.0, episodes=5).run()
    assert found["reached"] and found["teacher_return"] == 500
    assert 0 < found["seconds"] < 60 and found["env_steps"] < 100_000


@published
def test_the_peers_students_see_what_the_zip_normalises() -> None:
    expert = EXPERTS["halfcheetah"]
    envs = ImitationTrainers(expert="halfcheetah", num_envs=2)._envs(expert)
    assert isinstance(envs, VecNormalize)
    shown = envs.reset()
    np.testing.assert_allclose(shown, expert.normalize(envs.get_original_obs()), rtol=1e-5)
    assert abs(shown - envs.get_original_obs()).max() > 0.1
    envs.close()
    assert EXPERTS["walker2d"].statistics is None


@published
@pytest.mark.skipif(find_spec("imitation") is None, reason="imitation is not installed")
@pytest.mark.parametrize("trainer", ["dagger", "bc"])
def test_imitation_reaches_its_teacher(trainer: Any) -> None:
    found = ImitationTrainers(expert="cartpole", trainer=trainer, limit=60.0, episodes=5).run()
    assert found["reached"]
