"""The teachers of the time to the teacher: published zips, as Stable-Baselines3 loads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rltransfer.errors import InputError, unknown
from rltransfer.importers.sb3_vecnormalize import ObservationStatistics, load_vecnormalize
from rltransfer.tasks.observation import DEFAULT_GROUP

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

Act = Callable[[NDArray[Any]], NDArray[Any]]
"""The actions for a batch of observations, as the task outputs them."""
FOLDER = "RLTRANSFER_TEACHERS"
"""The environment variable that names the folder of the teachers' zips."""


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
    def statistics(self) -> ObservationStatistics | None:
        """The observation statistics; None if the zip needs none."""
        path = self.path.with_suffix(".vecnormalize.pkl")
        return load_vecnormalize(path) if path.is_file() else None

    @property
    def normalize(self) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
        """What the zip expects done to a batch of observations."""
        found = self.statistics
        if found is None:
            return lambda observation: np.asarray(observation, np.float32)
        moments, clip = found.groups[DEFAULT_GROUP], found.clip_obs
        mean, deviation = moments.mean, np.sqrt(moments.var + found.epsilon)
        return lambda observation: np.clip((observation - mean) / deviation, -clip, clip).astype(
            np.float32
        )

    def load(self) -> BaseAlgorithm:
        """The zip as Stable-Baselines3 loads it, on the CPU."""
        import stable_baselines3  # takes seconds, and the list of pairs does not need it

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
        InputError: The name is unknown.
    """
    if name not in EXPERTS:
        raise unknown("expert", name, list(EXPERTS))
    return EXPERTS[name]


def _zero(_: float) -> float:
    return 0.0
