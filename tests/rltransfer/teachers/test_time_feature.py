"""Teachers that saw the remaining time of an episode play tasks that do not show it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib.common.wrappers import TimeFeatureWrapper
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm

import rltransfer as rt
from rltransfer.tasks.suite_spaces import SuiteSpaces, TaskSpaces
from rltransfer.teachers.time_feature import TimeFeature

LIMIT = 9
RETURN_TOLERANCE = 1e-4
"""The environments sum actions that differ in their last digits."""


class Walk(gymnasium.Env[Any, Any]):
    """Rewards the action; every third episode ends early, so that rows restart at other steps."""

    def __init__(self, has_goal: bool = False) -> None:
        self.has_goal = has_goal
        box = spaces.Box(-9.0, 9.0, (2,), np.float64)
        self.observation_space: spaces.Space[Any] = box
        if has_goal:
            self.observation_space = spaces.Dict(observation=box, desired_goal=box)
        self.action_space = spaces.Box(-9.0, 9.0, (1,), np.float32)
        self.episode = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.episode = 0, self.episode + 1
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        done = self.episode % 3 == 2 and self.steps == 4
        return self._seen(), float(action[0]), done, False, {}

    def _seen(self) -> Any:
        seen = np.array([float(self.episode % 3), 0.5])
        return {"observation": seen, "desired_goal": 2 * seen} if self.has_goal else seen


gymnasium.register("TimeWalk-v0", Walk, max_episode_steps=LIMIT)
gymnasium.register("TimeEndless-v0", Walk)


def trained(algorithm: Any, folder: Path, **kwargs: Any) -> tuple[BaseAlgorithm, Path]:
    """A model that saw the remaining time, and that depends on it, and its zip."""
    env = TimeFeatureWrapper(gymnasium.make("TimeWalk-v0", **kwargs))
    policy = "MultiInputPolicy" if kwargs else "MlpPolicy"
    model = algorithm(policy, env, seed=0, device="cpu", policy_kwargs={"net_arch": [16]})
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    path = folder / "walk.zip"
    model.save(path)
    return model, path


def played(model: BaseAlgorithm, episodes: int, **kwargs: Any) -> list[float]:
    """The returns of a model in the environment that shows the time."""
    env = TimeFeatureWrapper(gymnasium.make("TimeWalk-v0", **kwargs))
    returns = []
    for _ in range(episodes):
        (seen, _), total, done = env.reset(), 0.0, False
        while not done:
            action, _ = model.predict(seen, deterministic=True)
            seen, reward, terminated, truncated, _ = env.step(action)
            total, done = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


def timed(path: Path) -> str:
    return f"Adapted({str(path)!r}, observation='time_feature')"


@pytest.mark.parametrize("algorithm", [PPO, SAC])
@pytest.mark.parametrize("kwargs", [{}, {"has_goal": True}])
def test_it_plays_what_it_plays_with_the_wrapper(
    algorithm: Any, kwargs: dict[str, Any], tmp_path: Path
) -> None:
    model, path = trained(algorithm, tmp_path, **kwargs)
    task = rt.Task("TimeWalk-v0", kwargs)
    sentence = 'one value more is what TimeFeatureWrapper adds: use "Adapted('
    with pytest.raises(rt.InputError, match=re.escape(sentence)) as error:
        rt.evaluate(path, task, 1, num_envs=1, device="cpu")
    # The teacher that the refusal offers is the one that plays.
    offered = re.search(r'use "(Adapted\(.*?\))"', str(error.value))
    assert offered is not None and offered[1] == timed(path)
    (found,) = rt.evaluate(timed(path), task, 6, num_envs=1, device="cpu").values()
    assert list(found.returns) == pytest.approx(played(model, 6, **kwargs), rel=RETURN_TOLERANCE)


def fitted(path: Path, *tasks: str) -> rt.Teacher:
    """The teacher in some tasks that show what `Walk` shows."""
    own = TaskSpaces(spaces.Dict(policy=Walk().observation_space), Walk().action_space)
    suite = rt.Suite.of(*tasks)
    return rt.load_teacher(timed(path)).fitted(SuiteSpaces.of(suite, [own] * len(tasks)))


def test_each_row_counts_the_steps_of_its_own_episode(tmp_path: Path) -> None:
    """A row whose episode begins anew has all its time again, and a task without a limit 1000."""
    model, path = trained(PPO, tmp_path)
    teacher = fitted(path, "TimeWalk-v0", "TimeEndless-v0")
    seen, task = {"policy": torch.tensor([[1.0, 0.5]] * 3)}, torch.tensor([0, 0, 1])
    # After two steps the second row's episode ended: t = 0, 1, 0, 1 of it and 0, 1, 2, 3 of others.
    times = [(0, 0, 0), (1, 1, 1), (2, 0, 2), (3, 1, 3)]
    for t in times:
        teacher.begin_step(torch.tensor([one == 0 for one in t]), task)
        remaining = 1 - np.array(t) / [LIMIT, LIMIT, 1000]
        expected, _ = model.predict(
            np.array([[1.0, 0.5, left] for left in remaining]), deterministic=True
        )
        assert np.abs(np.diff(expected, axis=0)).max() > 1e-3 or t == (0, 0, 0)
        found = teacher(seen, task).greedy()
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
        # What is labelled outside of a step counts as an episode's beginning, and changes nothing.
        first, _ = model.predict(np.array([[1.0, 0.5, 1.0]]), deterministic=True)
        alone = teacher({"policy": seen["policy"][:1]}, task[:1]).greedy()
        np.testing.assert_allclose(alone.numpy(), first, rtol=1e-4, atol=1e-5)


def test_the_limit_is_that_of_the_tasks_options() -> None:
    """The option first, then the registered limit, then the 1000 steps of the wrapper."""
    own = TaskSpaces(spaces.Dict(policy=Walk().observation_space), Walk().action_space)
    suite = rt.Suite.of(
        rt.Task("TimeWalk-v0", {"max_episode_steps": 3}), "TimeWalk-v0", "TimeEndless-v0"
    )
    assert TimeFeature(SuiteSpaces.of(suite, [own] * 3)).limits.tolist() == [3.0, LIMIT, 1000.0]


def test_a_refusal_counts_the_value_that_is_appended(tmp_path: Path) -> None:
    _, path = trained(PPO, tmp_path)
    small = spaces.Dict(policy=spaces.Box(-9.0, 9.0, (1,), np.float32))
    own = SuiteSpaces.of(rt.Suite.of("TimeWalk-v0"), [TaskSpaces(small, Walk().action_space)])
    sentence = r"shows float32\[2\] .*, counting the value that 'time_feature' appends\.$"
    with pytest.raises(rt.InputError, match=sentence):
        rt.load_teacher(timed(path)).fitted(own)


def test_the_time_is_part_of_a_checkpoint(tmp_path: Path) -> None:
    _, path = trained(PPO, tmp_path)
    one, other = fitted(path, "TimeWalk-v0"), fitted(path, "TimeWalk-v0")
    seen, task = {"policy": torch.ones(2, 2)}, torch.zeros(2, dtype=torch.int64)
    for step in range(3):
        one.begin_step(torch.full((2,), step == 0), task)
        one(seen, task)
    other.load_label_state(one.label_state())
    labels = []
    for teacher in (one, other):
        teacher.begin_step(torch.zeros(2, dtype=torch.bool), task)
        labels.append(teacher(seen, task).greedy())
    assert torch.equal(*labels)


def test_a_student_learns_from_it_and_resumes(tmp_path: Path) -> None:
    _, path = trained(PPO, tmp_path)
    method = rt.agents.PolicyDistillation(teacher=timed(path), num_envs=4, batch_size=32)
    how: dict[str, Any] = {"evaluate_episodes": 0, "device": "cpu", "quiet": True, "episodes": 2}
    for steps in (512, 1024):
        rt.train(
            method, suite="TimeWalk-v0", total_steps=steps, run_dir=tmp_path / "run",
            resume=steps > 512, **how,
        )  # fmt: skip
    (found,) = rt.evaluate(tmp_path / "run", episodes=2, device="cpu").values()
    assert len(found.returns) == 2


REFUSED = {
    "no such group": (
        spaces.Dict(place=spaces.Box(-1, 1, (2,))),
        "'observation', but .* shows none",
    ),
    "an image": (spaces.Dict(policy=spaces.Box(0, 255, (3, 9, 9), np.uint8)), r"uint8\[3, 9, 9\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_tasks_without_a_vector_are_refused(case: str, tmp_path: Path) -> None:
    observed, sentence = REFUSED[case]
    _, path = trained(PPO, tmp_path)
    own = TaskSpaces(observed, Walk().action_space)
    with pytest.raises(rt.InputError, match=sentence):
        rt.load_teacher(timed(path)).fitted(SuiteSpaces.of(rt.Suite.of("TimeWalk-v0"), [own]))


def test_it_is_fitted_first_and_other_names_are_refused(tmp_path: Path) -> None:
    _, path = trained(PPO, tmp_path)
    with pytest.raises(rt.InputError, match="must be fitted to a task first"):
        rt.load_teacher(timed(path))(
            {"policy": torch.ones(1, 2)}, torch.zeros(1, dtype=torch.int64)
        )
    with pytest.raises(rt.InputError, match=r"is 'time': it must be .* or \"time_feature\""):
        rt.load_teacher(timed(path).replace("time_feature", "time"))
