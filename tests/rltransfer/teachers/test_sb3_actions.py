"""Actions of Stable-Baselines3 zips in tasks whose spaces count or measure them differently."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_models import close, saved, trained
from stable_baselines3 import DQN, PPO, SAC, TD3

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.tasks.suite_spaces import (
    SuiteSpaces,
    TaskSpaces,
    check_bounds,
    describe_bounds,
)

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


SMALL = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 2.0], np.float32))
LARGE = spaces.Box(np.array([-100.0, -2.0], np.float32), np.array([100.0, 8.0], np.float32))
"""Both boxes of IsaacLab's kind: of another size, and with another middle."""


class Mover(gymnasium.Env[Any, Any]):
    """Rewards the sum of an action that is within its bounds."""

    def __init__(self, size: float = 1.0, unbounded: bool = False) -> None:
        self.observation_space = SEEN
        high = np.inf if unbounded else size
        self.action_space = spaces.Box(-high, high, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.steps += 1
        seen = np.full(3, np.cos(self.steps), np.float32)
        return seen, float(action.sum()), False, False, {}


gymnasium.register("SB3Mover-v0", Mover, max_episode_steps=5)


def mover(algorithm: Any, folder: Path, high: float = 1.0) -> Path:
    """A zip of a policy with the actions [-high, high], of which PPO leaves some."""
    path = saved(trained(algorithm, SEEN, spaces.Box(-high, high, (2,)), net_arch=[8]), folder)
    return path


def fitted(teacher: rt.Teacher, acted: spaces.Box) -> rt.Teacher:
    """The teacher in a task with these actions."""
    own = TaskSpaces(spaces.Dict(policy=SEEN), acted)
    return teacher.fitted(SuiteSpaces.of(rt.Suite.of("a-task"), [own]))


@pytest.mark.parametrize("algorithm", [PPO, SAC, TD3])
@pytest.mark.parametrize(("own", "task"), [(SMALL, LARGE), (LARGE, SMALL)])
def test_other_bounds_are_refused_or_rescaled(
    algorithm: Any, own: spaces.Box, task: spaces.Box, tmp_path: Path
) -> None:
    """Every action keeps its place between its bounds; none is clipped to those of the task."""
    model = trained(algorithm, SEEN, own, net_arch=[8])
    path = saved(model, tmp_path)
    sentence = (
        f"does not fit the task 'a-task': it acts in {describe_bounds(own)}, but the actions of "
        f"the task are in {describe_bounds(task)}; use --rescale-actions or "
    )
    with pytest.raises(rt.InputError, match=re.escape(sentence)):
        fitted(rt.load_teacher(path), task)
    teacher = fitted(rt.load_teacher(path, rescale_actions=True), task)
    seen = 9 * torch.randn(64, 3)  # so that some of PPO's actions are clipped to its own bounds
    expected, _ = model.predict(seen.numpy(), deterministic=True)
    place = (expected - own.low) / (own.high - own.low)
    found = teacher({"policy": seen}, torch.zeros(64, dtype=torch.int64)).greedy()
    close((found - torch.tensor(task.low)) / torch.tensor(task.high - task.low), place)


def test_bounds_of_one_side_alone_cannot_be_rescaled(tmp_path: Path) -> None:
    """Nothing maps a box onto all numbers, or all numbers onto a box."""
    path, acted = mover(PPO, tmp_path), spaces.Box(-np.inf, np.inf, (2,))
    with pytest.raises(rt.InputError, match=r"acts in \[-inf, inf\], but .* are in \[-1, 1\]; use"):
        check_bounds("The policy", "'RUN'", acted, "a-task", spaces.Box(-1.0, 1.0, (2,)))
    with pytest.raises(rt.InputError, match=r"acts in \[-.*bounds='keep'\)\" to leave the actions"):
        fitted(rt.load_teacher(path), acted)
    with pytest.raises(rt.InputError, match="only actions with bounds in both can be scaled"):
        fitted(rt.load_teacher(path, rescale_actions=True), acted)
    kept = fitted(rt.Adapted(rt.load_teacher(path), bounds="keep"), acted)
    assert kept({"policy": torch.ones(1, 3)}, torch.zeros(1, dtype=torch.int64)).mean is not None


def test_actions_of_other_sizes_cannot_be_rescaled(tmp_path: Path) -> None:
    teacher = rt.load_teacher(mover(TD3, tmp_path), rescale_actions=True)
    with pytest.raises(rt.InputError, match="have 2 dimensions, but those of the task 'a-task' 3"):
        fitted(teacher, spaces.Box(-9.0, 9.0, (3,)))


def test_each_teacher_of_several_tasks_is_rescaled_from_its_own_bounds(tmp_path: Path) -> None:
    path = mover(TD3, tmp_path)
    text = f"PerTask({{'a-task': {str(path)!r}}})"
    both = fitted(rt.load_teacher(text, rescale_actions=True), LARGE)
    alone = fitted(rt.load_teacher(path, rescale_actions=True), LARGE)
    seen, task = {"policy": torch.randn(4, 3)}, torch.zeros(4, dtype=torch.int64)
    assert torch.equal(both(seen, task).greedy(), alone(seen, task).greedy())
    known = rt.Ensemble([rt.load_teacher(path)])
    with pytest.raises(rt.InputError, match="or leave out --rescale-actions"):
        fitted(rt.load_teacher(known, rescale_actions=True), LARGE)


QUIET: dict[str, Any] = {"evaluate_episodes": 0, "device": "cpu", "quiet": True, "episodes": 2}


def test_a_run_with_rescaled_actions_is_evaluated_and_resumed(tmp_path: Path) -> None:
    path, task = mover(TD3, tmp_path), rt.Task("SB3Mover-v0", {"size": 50.0})
    with pytest.raises(rt.InputError, match=r"acts in \[-1, 1\].* are in \[-50, 50\]; use --resc"):
        rt.evaluate(path, task, 1, num_envs=1, device="cpu")
    own = rt.evaluate(path, "SB3Mover-v0", 1, num_envs=1, device="cpu")["SB3Mover-v0"]
    (found,) = rt.evaluate(path, task, 1, num_envs=1, device="cpu", rescale_actions=True).values()
    assert found.mean == pytest.approx(50 * own.mean, rel=1e-4)
    method = rt.agents.PolicyDistillation(
        teacher=str(path), rescale_actions=True, num_envs=4, batch_size=32
    )
    run = tmp_path / "run"
    rt.train(method, suite=task, total_steps=512, run_dir=run, **QUIET)
    config = json.loads((run / "config.json").read_text())
    assert config["method"]["rescale_actions"] is True
    rt.train(method, suite=task, total_steps=1024, run_dir=run, resume=True, **QUIET)
    other = dataclasses.replace(method, rescale_actions=False)
    with pytest.raises(rt.InputError, match="use --rescale-actions"):
        rt.train(other, suite=task, total_steps=2048, run_dir=run, resume=True, **QUIET)
    # The run is a teacher of the first task in turn.
    (back,) = rt.evaluate(
        run, "SB3Mover-v0", 1, num_envs=1, device="cpu", rescale_actions=True
    ).values()
    assert abs(back.mean) <= 10


def test_the_command_that_is_advised_rescales(tmp_path: Path) -> None:
    task = rt.Task("SB3Mover-v0", {"size": 50.0})
    found = rt.summarize_teacher(
        mover(TD3, tmp_path), task, 2, num_envs=2, device="cpu", rescale_actions=True
    )
    assert "--rescale-actions" in found.command


def test_the_commands_take_the_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(mover(TD3, tmp_path))
    words = ["--task", "SB3Mover-v0", "--task-option", "size=50", "--episodes", "1"]
    assert main(["evaluate", path, *words]) == 2
    assert "--rescale-actions" in capsys.readouterr().err
    assert main(["evaluate", path, *words, "--rescale-actions", "--device", "cpu"]) == 0
    assert main(["teachers", "check", path, *words, "--rescale-actions", "--device", "cpu"]) == 0
    train = ["train", "policy-distillation", "--teacher", path, *words, "--rescale-actions"]
    quick = ["--run-dir", str(tmp_path / "run"), "--total-steps", "64", "--device", "cpu"]
    assert main([*train, *quick, "--quiet", "--num-envs", "4"]) == 0
