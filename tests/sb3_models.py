"""Models of Stable-Baselines3 and sb3-contrib, and the zips that they save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from rltransfer.importers.sb3_zip import ZipPolicy
from rltransfer.tasks.observation import Observation

TOLERANCE = 1e-5
"""Both compute in float32, but sum in different orders: the last digits of long sums differ."""

VECTOR = spaces.Box(-3.0, 3.0, (5,), np.float32)
LAST = spaces.Box(0, 255, (40, 36, 1), np.uint8)
FIRST = spaces.Box(0, 255, (2, 36, 36), np.uint8)
FLOATS = spaces.Box(-1.0, 1.0, (2, 36, 36), np.float32)
MOVES = spaces.Box(np.array([-1.0, -0.125], np.float32), np.array([0.3, 2.5], np.float32))
THREE = spaces.Discrete(3)


class Noise(gymnasium.Env[Any, Any]):
    """Shows random observations."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]):
        self.observation_space = observation_space
        self.action_space = action_space

    def action_masks(self) -> NDArray[np.bool_]:
        """Every action is available."""
        assert isinstance(self.action_space, spaces.Discrete)
        return np.ones(int(self.action_space.n), bool)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


def trained(
    algorithm: type[BaseAlgorithm],
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    policy: str = "MlpPolicy",
    use_sde: bool = False,
    steps: int = 0,
    statistics: bool = False,
    **kwargs: Any,
) -> BaseAlgorithm:
    """Returns a model that learned for some steps, and whose weights are then all moved a little.

    Args:
        algorithm: Its class.
        observation_space: What it observes.
        action_space: What it does.
        policy: The name of its policy.
        use_sde: Whether it explores with gSDE.
        steps: For how many steps it learns.
        statistics: Whether it observes by VecNormalize.
        kwargs: The arguments of its policy.
    """
    options: dict[str, Any] = {"device": "cpu", "seed": 0, "policy_kwargs": kwargs}
    if issubclass(algorithm, OffPolicyAlgorithm):
        options["buffer_size"] = 10
        options["learning_starts"] = 4
    elif issubclass(algorithm, OnPolicyAlgorithm):
        options["n_steps"] = 128
    if use_sde:
        options["use_sde"] = True
    env: Any = TimeLimit(Noise(observation_space, action_space), 10)
    if statistics:
        env = VecNormalize(DummyVecEnv([lambda: Monitor(env)]), clip_obs=1.5)
    model = algorithm(policy, env, **options)
    if steps:
        model.learn(steps)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def saved(model: BaseAlgorithm, folder: Path) -> Path:
    """Writes a model and returns where it is."""
    path = folder / "model.zip"
    model.save(path)
    return path


def observations(space: spaces.Space[Any], count: int = 32) -> NDArray[Any]:
    """Returns random observations, the same at each call.    (count, *shape)"""
    space.seed(7)
    return np.stack([space.sample() for _ in range(count)])


def shown(space: spaces.Space[Any], seen: NDArray[Any]) -> Observation:
    """Returns observations as tasks show them: numbers as one-hot vectors.    (count, ...)"""
    tensor = torch.from_numpy(seen)
    if isinstance(space, spaces.Discrete):
        tensor = nn.functional.one_hot(tensor, int(space.n)).float()
    return {"policy": tensor}


def fitted(policy: ZipPolicy, observed: spaces.Space[Any], acted: spaces.Space[Any]) -> ZipPolicy:
    """Returns a policy that is fitted to a task with these spaces."""
    return policy.fitted("a task", spaces.Dict(policy=observed), acted)


def close(ours: torch.Tensor | None, theirs: torch.Tensor | NDArray[Any]) -> None:
    """Checks that two tensors are the same to within the tolerance."""
    assert ours is not None
    expected = torch.as_tensor(theirs)
    torch.testing.assert_close(ours, expected, rtol=TOLERANCE, atol=TOLERANCE)


NATURE = {"policy": "CnnPolicy", "features_extractor_kwargs": {"features_dim": 16}}
