"""Actions of Stable-Baselines3 zips in tasks whose spaces count or measure them differently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from sb3_models import saved, trained
from stable_baselines3 import DQN, PPO

import rltransfer as rt

SEEN = spaces.Box(-1.0, 1.0, (3,), np.float32)


class Recorder(gymnasium.Env[Any, Any]):
    """Rewards each action with its own value, so that the return shows what was played."""

    def __init__(self, start: int = 0) -> None:
        self.observation_space = SEEN
        self.action_space = spaces.Discrete(3, start=start)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.steps += 1
        return self._seen(), float(action), False, False, {}

    def _seen(self) -> Any:
        """The same in every episode, whatever its seed."""
        return np.sin([1.0 + self.steps, 3.0 * self.steps, 5.0 - self.steps]).astype(np.float32)


gymnasium.register("SB3Recorder-v0", Recorder, max_episode_steps=5)


@pytest.mark.parametrize(("own", "task"), [(0, 0), (0, 5), (-1, 0), (-1, 5), (5, 5)])
@pytest.mark.parametrize("algorithm", [DQN, PPO])
def test_the_first_action_of_a_zip_is_the_first_of_the_task(
    algorithm: Any, own: int, task: int, tmp_path: Path
) -> None:
    """Stable-Baselines3's `predict` counts from 0: the task gets its start plus that number."""
    model = trained(algorithm, SEEN, spaces.Discrete(3, start=own), net_arch=[8])
    env, total = Recorder(), 0.0
    seen, _ = env.reset()
    for _ in range(5):
        action, _ = model.predict(seen, deterministic=True)
        assert 0 <= action < 3
        seen, *_ = env.step(int(action))
        total += float(action) + task
    path = saved(model, tmp_path)
    found = rt.evaluate(
        path, rt.Task("SB3Recorder-v0", {"start": task}), episodes=1, num_envs=1, device="cpu"
    )
    (one,) = found.values()
    assert one.returns == (total,)
    notes = " ".join(rt.load_teacher(path).notes())
    assert ("counts actions from 0" in notes) == bool(own)
