"""The seconds until a student is as good as its teacher, measured alike for every library.

A clock runs while a library trains. At growing intervals it stops, and the student as it is plays
episodes, which no side is charged for. The measurement ends when the student keeps the fraction of
the teacher's return, random play being 0, twice: on the same episodes as the teacher, and
on as many others.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from rltransfer.errors import check_range

from .experts import Act, Expert, find_expert

FIRST_SECONDS, GROWTH = 1.0, 1.2
"""Seconds of training before the first look at a student, and the factor between looks."""
SEED = 100_000
"""Seed of the episodes; no training uses it."""


@dataclass(frozen=True, kw_only=True)
class TimedStudent:
    """The options of every side."""

    expert: str
    """The teacher: cartpole, lunarlander, halfcheetah or walker2d."""
    fraction: float = 0.95
    """What the student should keep of the teacher's return."""
    limit: float = 600.0
    """Seconds of training after which the measurement ends without success."""
    episodes: int = 20
    """Episodes of each look at the student."""
    seed: int = 0
    """Random seed."""

    def __post_init__(self) -> None:
        find_expert(self.expert)
        check_range(self, "finite and above 0", "fraction", "limit")
        check_range(self, "at least 1", "episodes")

    @property
    def teacher(self) -> Expert:
        """The teacher."""
        return find_expert(self.expert)

    def clock(self) -> TeacherClock:
        """A clock that does not run yet."""
        return TeacherClock(self.teacher, self.fraction, self.limit, self.episodes)


class TrainingOver(Exception):  # noqa: N818 - raised on success, too
    """The student is as good as it should be, or its time is over: training ends."""


class TeacherClock:
    """The clock of one measurement.

    Args:
        expert: The teacher.
        fraction: What the student should keep of the teacher's return.
        limit: Seconds of training after which the measurement ends without success.
        episodes: Episodes of each look.
    """

    def __init__(self, expert: Expert, fraction: float, limit: float, episodes: int) -> None:
        self.task, self.limit = expert.task, limit
        self.envs = gymnasium.make_vec(expert.task, num_envs=episodes, vectorization_mode="sync")
        teacher = [self._play(expert.act(), look) for look in range(2)]
        random = [self._play(None, look) for look in range(2)]
        self.targets = [r + fraction * (t - r) for t, r in zip(teacher, random, strict=True)]
        self.teacher, self.random = float(np.mean(teacher)), float(np.mean(random))
        self.looks: list[tuple[float, float]] = []
        self.reached = False
        self.seconds, self._next = 0.0, FIRST_SECONDS
        self._began = time.perf_counter()

    def start(self) -> None:
        """Starts the clock."""
        self._began = time.perf_counter()

    def look(self, student: Act) -> None:
        """Stops the clock, and plays with the student if it is time.

        Args:
            student: Its greedy actions.

        Raises:
            TrainingOver: The measurement is over.
        """
        now = time.perf_counter()
        self.seconds += now - self._began
        if self.seconds >= min(self._next, self.limit):
            self._next = self.seconds * GROWTH
            found = self._play(student, 0)
            self.looks.append((round(self.seconds, 2), round(found, 2)))
            self.reached = found >= self.targets[0] and self._play(student, 1) >= self.targets[1]
            if self.reached or self.seconds >= self.limit:
                raise TrainingOver
        self._began = time.perf_counter()

    def result(self) -> dict[str, Any]:
        """The measurement as JSON.

        A student that is never there counts as if it had taken all of its time.
        """
        return {
            "seconds": self.seconds if self.reached else max(self.seconds, self.limit),
            "trained_seconds": self.seconds,
            "reached": self.reached,
            "teacher_return": self.teacher,
            "random_return": self.random,
            "looks": self.looks,
        }

    def _play(self, act: Act | None, look: int) -> float:
        """The mean return of the first episode of each environment.

        Args:
            act: The actions; None plays at random.
            look: 0 or 1, two sets of episodes.
        """
        envs = self.envs
        observation, _ = envs.reset(seed=SEED + look * envs.num_envs)
        envs.action_space.seed(SEED + look)
        returns, playing = np.zeros(envs.num_envs), np.ones(envs.num_envs, bool)
        while playing.any():
            action = envs.action_space.sample() if act is None else act(observation)
            observation, reward, terminated, truncated, _ = envs.step(action)
            returns += reward * playing
            playing &= ~(terminated | truncated)
        return float(returns.mean())
