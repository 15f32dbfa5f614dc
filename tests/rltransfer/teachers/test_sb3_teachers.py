"""Policies that others trained years ago reach their published returns."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rltransfer.importers.sb3_zip import load_zip
from rltransfer.tasks.action import action_size

FOLDER = os.environ.get("RLTRANSFER_TEACHERS")

pytestmark = pytest.mark.skipif(
    FOLDER is None, reason="RLTRANSFER_TEACHERS names no folder of policies that others trained"
)


@dataclass(frozen=True)
class Published:
    """What is known of a file."""

    task: str
    """The id under which today's Gymnasium has its task."""
    mean: float
    """Mean return of the deterministic policy, as published."""
    spread: float
    """Standard deviation of the return over episodes, as published."""
    episodes: int
    """Episodes that the test plays."""
    needs: tuple[str, ...] = ()
    """Modules that the task needs."""


BOX2D = ("Box2D", "pygame")
MUJOCO = ("mujoco", "imageio")
PUBLISHED = {
    "dqn-CartPole-v1": Published("CartPole-v1", 500.0, 0.0, 20),
    "ppo-CartPole-v1": Published("CartPole-v1", 500.0, 0.0, 20),
    "dqn-LunarLander-v2": Published("LunarLander-v3", 154.4, 79.2, 20, BOX2D),
    "a2c-Acrobot-v1": Published("Acrobot-v1", -83.4, 17.2, 50),
    "ppo-HalfCheetah-v3": Published("HalfCheetah-v4", 5819.0, 664.0, 5, MUJOCO),
    "sac-Walker2d-v3": Published("Walker2d-v4", 3863.0, 254.0, 10, MUJOCO),
    "sac-Pendulum-v1": Published("Pendulum-v1", -157.0, 88.7, 50),
}


def mean_return(name: str, *, normalized: bool) -> float:
    """Returns the mean return of a file's policy over one episode in each of its environments.

    Args:
        name: The file, without its suffix.
        normalized: Whether it is given the statistics that lie beside it.
    """
    assert FOLDER is not None
    path = Path(FOLDER) / f"{name}.zip"
    statistics = path.with_name(f"{name}.vecnormalize.pkl") if normalized else None
    published = PUBLISHED[name]
    for module in published.needs:
        pytest.importorskip(module)
    make = [lambda: gymnasium.make(published.task)] * published.episodes
    envs = gymnasium.vector.SyncVectorEnv(make)
    observed = spaces.Dict(policy=envs.single_observation_space)
    loaded = load_zip(path, statistics).fitted(published.task, observed, envs.single_action_space)

    returns, alive = np.zeros(published.episodes), np.ones(published.episodes, bool)
    observation, _ = envs.reset(seed=0)
    while alive.any():
        action = loaded({"policy": torch.from_numpy(observation)}).greedy().numpy()
        observation, reward, terminated, truncated, _ = envs.step(action)
        returns += reward * alive
        alive &= ~(terminated | truncated)
    envs.close()
    return float(returns.mean())


@pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning")
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_policy_reaches_its_published_return(name: str) -> None:
    published = PUBLISHED[name]
    normalized = name in ("a2c-Acrobot-v1", "ppo-HalfCheetah-v3")
    reached = mean_return(name, normalized=normalized)
    # Better than published is no fault of the reader.
    assert reached >= published.mean - published.spread
    assert reached <= published.mean + 2 * published.spread


@pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning")
def test_without_its_statistics_a_policy_fails() -> None:
    published = PUBLISHED["ppo-HalfCheetah-v3"]
    reached = mean_return("ppo-HalfCheetah-v3", normalized=False)
    assert reached < published.mean - 5 * published.spread


def test_the_files_say_their_algorithm_and_shapes() -> None:
    assert FOLDER is not None
    loaded = {name: load_zip(Path(FOLDER) / f"{name}.zip") for name in PUBLISHED}
    said = {
        name: (policy.settings.algorithm, policy.inputs.shape, action_size(policy.actions))
        for name, policy in loaded.items()
    }
    assert said == {
        "dqn-CartPole-v1": ("DQN", (4,), 2),
        "ppo-CartPole-v1": ("PPO", (4,), 2),
        "dqn-LunarLander-v2": ("DQN", (8,), 4),
        "a2c-Acrobot-v1": ("A2C", (6,), 3),
        "ppo-HalfCheetah-v3": ("PPO", (17,), 6),
        "sac-Walker2d-v3": ("SAC", (17,), 6),
        "sac-Pendulum-v1": ("SAC", (3,), 1),
    }
    discrete = {name for name, one in loaded.items() if isinstance(one.actions, spaces.Discrete)}
    assert discrete == {name for name in PUBLISHED if "CartPole" in name or "Lander" in name} | {
        "a2c-Acrobot-v1"
    }
    assert loaded["sac-Pendulum-v1"].actions.high.tolist() == [2.0]
