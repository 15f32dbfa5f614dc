"""The seconds until a student is as good as its teacher, measured alike for every library.

A clock runs while a library trains. At growing intervals it stops, and the student as it is plays
episodes, which no side is charged for. The measurement ends when the student keeps the fraction of
the teacher's return, random play being 0, twice in a row: on the same episodes as the teacher, and
on as many others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm

from rltransfer.errors import InputError
from rltransfer.importers.sb3_vecnormalize import load_vecnormalize
from rltransfer.tasks.observation import DEFAULT_GROUP

Act = Callable[[NDArray[Any]], NDArray[Any]]
"""The actions for a batch of observations, as the task outputs them."""
FOLDER = "RLTRANSFER_TEACHERS"
"""The environment variable that names the folder of the teachers' zips."""
FIRST_SECONDS, GROWTH = 1.0, 1.2
"""Seconds of training before the first look at a student, and the factor between looks."""
SEED = 100_000
"""Seed of the episodes; no training uses it."""


@dataclass(frozen=True)
class Expert:
    """A Stable-Baselines3 zip and the task that it teaches."""

    zip: str
    """Name of the file."""
    task: str
    """Gymnasium's id; the version with the zip's observations that still exists."""

    @property
    def path(self) -> Path:
        """The file.

        Raises:
            InputError: The folder is not named, or does not contain it.
        """
        path = Path(os.environ.get(FOLDER, "")) / self.zip
        if FOLDER not in os.environ or not path.is_file():
            raise InputError(f"{FOLDER} must name a folder that contains {self.zip}.")
        return path

    @property
    def statistics(self) -> Path | None:
        """The file of the observation statistics; None if the zip needs none."""
        path = self.path.with_suffix(".vecnormalize.pkl")
        return path if path.is_file() else None

    @property
    def normalize(self) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
        """What the zip expects done to a batch of observations."""
        if self.statistics is None:
            return lambda observation: np.asarray(observation, np.float32)
        found = load_vecnormalize(self.statistics)
        moments, clip = found.groups[DEFAULT_GROUP], found.clip_obs
        mean, deviation = moments.mean, np.sqrt(moments.var + found.epsilon)
        return lambda observation: np.clip((observation - mean) / deviation, -clip, clip).astype(
            np.float32
        )

    def load(self) -> BaseAlgorithm:
        """The zip as Stable-Baselines3 loads it, on the CPU."""
        with gymnasium.make(self.task) as env:
            replaced: dict[str, Any] = {
                # Pickled functions and spaces of older Python versions cannot be read.
                "observation_space": env.observation_space,
                "action_space": env.action_space,
                "lr_schedule": _zero,
                "clip_range": _zero,
                "exploration_schedule": _zero,
            }
        kind = getattr(stable_baselines3, self.zip.partition("-")[0].upper())
        # A replay buffer of a million steps is of no use here.
        small = {"buffer_size": 1} if self.zip.startswith(("dqn", "sac")) else {}
        model: BaseAlgorithm = kind.load(self.path, custom_objects=replaced, device="cpu", **small)
        return model

    def act(self) -> Act:
        """The zip's greedy actions."""
        model, normalize = self.load(), self.normalize
        return lambda observation: model.predict(normalize(observation), deterministic=True)[0]

    @property
    def hidden(self) -> tuple[int, ...]:
        """The hidden units of the zip's policy: those of every student."""
        layers: Any = self.load().policy.net_arch
        return tuple(layers["pi"] if isinstance(layers, dict) else layers)


EXPERTS = {
    "cartpole": Expert("ppo-CartPole-v1.zip", "CartPole-v1"),
    "lunarlander": Expert("dqn-LunarLander-v2.zip", "LunarLander-v3"),
    "halfcheetah": Expert("ppo-HalfCheetah-v3.zip", "HalfCheetah-v4"),
    "walker2d": Expert("sac-Walker2d-v3.zip", "Walker2d-v4"),
}
"""The teachers by the names of their pairs."""


def find_expert(name: str) -> Expert:
    """The teacher of a name.

    Raises:
        InputError: There is no such teacher.
    """
    if name not in EXPERTS:
        raise InputError(f"expert is {name!r}: it must be one of {', '.join(EXPERTS)}.")
    return EXPERTS[name]


class TrainingOver(Exception):  # noqa: N818 - it is no error
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
        """The measurement as JSON."""
        return {
            "seconds": self.seconds,
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


def _zero(_: float) -> float:
    return 0.0
