"""MuJoCo's messages: warnings, once for each kind, and no file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rltransfer.tasks.gymnasium_env import make_host_env
from rltransfer.tasks.task import Task

mujoco: Any = pytest.importorskip("mujoco")

CPU = torch.device("cpu")
BALL = "<mujoco><worldbody><body><freejoint/><geom size='.1' mass='1'/></body></worldbody></mujoco>"


class Explodes(gymnasium.Env[Any, Any]):
    """A ball whose speed is not a number from time to time; an episode has three steps."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_string(BALL)
        self.data = mujoco.MjData(self.model)
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.data.time = self.steps
        # At the third step, an episode ends.
        self.data.qvel[self.steps % 2] = np.nan if self.steps % 3 == 0 else 0.0
        mujoco.mj_step(self.model, self.data)
        return np.zeros(1, np.float32), 0.0, self.steps % 3 == 0, False, {}


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_unstable_simulation_gives_one_warning_of_each_kind_and_no_file(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"mujoco-test/Explodes{mode}-v0"
    gymnasium.register(name, Explodes)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        env = make_host_env(Task(name, {"vectorization_mode": mode}), 3, CPU)
        env.reset(seed=0)
        for _ in range(12):
            env.send(torch.zeros(3, dtype=torch.int64))
            env.recv()
        env.close()
    said = [str(one.message) for one in found]
    assert len(said) == 1
    assert said[0].startswith(f"{name}: MuJoCo: ") and "unstable" in said[0]
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""
