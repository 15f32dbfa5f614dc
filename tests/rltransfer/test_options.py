"""Options become Python's own values when they are made, or are refused in a sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import rltransfer as rt
from rltransfer.files.serialization import to_json
from rltransfer.options import pack_tuples, unpack_tuples
from rltransfer.runs.generations import Chain

PPO, PQN, Distillation = rt.agents.PPO, rt.agents.PQN, rt.agents.PolicyDistillation


def function(observation: Any, task: Any) -> rt.PolicyOutput:
    return rt.PolicyOutput(logits=observation["policy"])


TEACHER = rt.CallableTeacher(function)


class Sized(gym.Env[np.ndarray, int]):
    """Observes as many numbers as its tuple says; a list in its place is an error."""

    def __init__(self, size: tuple[int, ...] = (2,), goal: float = 0) -> None:
        self.observation_space = spaces.Box(0, 1, (sum((*size, 1)),), np.float32)
        assert isinstance(size, tuple) and type(goal) in (int, float)
        self.action_space = spaces.Discrete(2)

    def reset(self, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 1.0, True, False, {}


@pytest.fixture(autouse=True)
def sized() -> None:
    if "tests/Sized-v0" not in gym.registry:
        gym.register("tests/Sized-v0", entry_point=Sized)


def kinds(value: Any) -> Any:
    """The types in a JSON value."""
    if isinstance(value, dict):
        return {name: kinds(part) for name, part in value.items()}
    return [kinds(part) for part in value] if isinstance(value, list | tuple) else type(value)


def test_numbers_of_numpy_and_torch_train_evaluate_and_resume(tmp_path: Path) -> None:
    method = PPO(
        num_envs=np.int64(2), rollout_length=16.0, learning_rate=np.float32(1e-3),
        epochs=2.0, batch_size=torch.tensor(16),
        network=rt.policies.mlp(hidden=np.array([8]), width=np.float32(0.5)),
    )  # fmt: skip
    task = rt.Task("tests/Sized-v0", {"size": (np.int64(2), 2), "goal": np.float32(3)})
    (seed,) = np.arange(7, 8)
    options: dict[str, Any] = {
        "seed": seed, "total_steps": 64.0, "episodes": np.int64(2), "device": torch.device("cpu"),
        "evaluate_episodes": 0, "quiet": True, "run_dir": tmp_path / "run",
    }  # fmt: skip
    rt.train(method, suite=task, **options)
    config = json.loads((tmp_path / "run/config.json").read_text())
    plain = PPO(num_envs=2, rollout_length=16, learning_rate=float(np.float32(1e-3)), epochs=2,
                batch_size=16, network=rt.policies.mlp(hidden=(4,), width=1.0))  # fmt: skip
    assert kinds(config["method"]) == kinds(to_json(plain))
    assert config["options"]["seed"] == 7 and config["method"]["epochs"] == 2
    assert rt.evaluate(tmp_path / "run", episodes=np.int64(2), seed=np.uint8(1))
    rt.train(method, suite=task, resume=True, **options)


def test_a_task_keeps_tuples_and_lists_apart() -> None:
    kwargs = {"a": (1, [2, (3,)]), "b": [4.0, None], "c": {"d": ("x",)}, "e": math.inf}
    task = rt.Task("x", kwargs)
    assert task.kwargs == kwargs
    again = rt.Task.from_json(json.loads(json.dumps(task.to_json())))
    assert again == task and kinds(again.kwargs) == kinds(kwargs)
    assert type(again.kwargs["a"]) is tuple and type(again.kwargs["a"][1]) is list
    assert unpack_tuples(pack_tuples(kwargs)) == kwargs
    # The shell's list means the tuple of a run that was started in Python.
    assert rt.Task("x", {"a": (1, 2)}) == rt.Task("x", {"a": [1, 2]})
    assert not rt.Task("x", {"a": (1, 2)}).contradicts(rt.Task("x", {"a": [1, 2]}))
    # What a user changes later does not change the task.
    kwargs["b"].append(5)  # type: ignore[attr-defined]
    assert task.kwargs["b"] == [4.0, None]


def test_a_run_of_an_earlier_version_stored_a_list(tmp_path: Path) -> None:
    task = rt.Task("tests/Sized-v0", {"size": (2, 2)})
    options: dict[str, Any] = {
        "suite": task, "run_dir": tmp_path, "total_steps": 32, "quiet": True,
        "episodes": 1, "evaluate_episodes": 0,
    }  # fmt: skip
    method = PPO(num_envs=2, rollout_length=16, batch_size=16)
    rt.train(method, **options)
    config = json.loads((tmp_path / "config.json").read_text())
    config["suite"]["tasks"][0]["kwargs"]["size"] = [2, 2]
    (tmp_path / "config.json").write_text(json.dumps(config))
    rt.train(method, resume=True, **options)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: rt.Task("x", {"goal": np.array([1.0])}), "'goal' of 'x' is array"),
        (lambda: rt.Task("x", {"goal": len}), "'goal' of 'x' is <built-in function len>: it must"),
        (lambda: rt.Task("x", {"goal": {1: 2}}), "'goal' of 'x' is {1: 2}: it must be None, a bo"),
        (lambda: rt.Task("x", {"goal": math.nan}), "'goal' of 'x' is nan"),
        (lambda: rt.Task("x", None), "arguments of 'x' are None: pass a dictionary"),
        (lambda: rt.Task(5), "5 is not a task: pass an id or a Task"),
        (lambda: rt.Suite.of("a", 5), "5 is not a task"),
        (lambda: rt.Suite("s", ["a"]), "The suite 's' contains 'a': pass a Task"),
        (lambda: rt.Suite("s", 5), "The tasks of the suite 's' are 5: pass Tasks"),
        (lambda: rt.Suite(5, [rt.Task("x")]), "The name of a suite is 5: it must be text"),
        (lambda: rt.Task("x", {}, math.nan), "The env_timeout of 'x' is nan: it must be finite"),
        (lambda: None * rt.KL(), "The factor of an objective is None: it must be a number"),
        (lambda: np.array([1.0]) * rt.KL(), r"The factor of an objective is \(1.0,\): it must be"),
        (lambda: rt.CallableTeacher(function, 5), "source of a CallableTeacher is 5: it must be t"),
        (lambda: rt.PerTask({1: TEACHER}), "PerTask names the task 1: use an id or a Task"),
        (lambda: rt.Ensemble([TEACHER], None, np.array([])), r"no mean of an Ensemble, '\[\]'"),
        (lambda: rt.Adapted(TEACHER, bounds=2), "There is no treatment of bounds '2'"),
        (lambda: rt.Adapted(TEACHER, b"2"), "The observation of Adapted is b'2': it must be inte"),
        (lambda: rt.Adapted(TEACHER, action=np.array(2)), "The action of Adapted is 2: it must be"),
        (lambda: rt.Schedule("a", "b"), "The start of a schedule is 'a': it must be a number"),
        (lambda: rt.Schedule(True, 0), "The start of a schedule is True: it must be a number"),
        (lambda: rt.policies.mlp(hidden=("a",)), "A value in hidden is 'a': it must be a whole"),
        (lambda: rt.policies.mlp(hidden=(True,)), "A value in hidden is True"),
        (lambda: rt.policies.mlp(hidden=(10**18,)), "more than 1,000,000,000 weights"),
        (lambda: rt.policies.mlp(hidden=(64,), width=1e9), "width is .*: it must be at most 10,0"),
        (lambda: rt.policies.mlp(hidden=(64, 64), width=1e4), "more than 1,000,000,000 weights"),
        (lambda: rt.policies.mlp(gru=1e6), "more than 1,000,000,000 weights"),
        (lambda: rt.policies.Network(groups=(3,)), "A value in groups is 3: it must be text"),
        (lambda: rt.policies.Network(layer_norm=1), "layer_norm is 1: it must be True or False"),
        (lambda: PPO(num_envs=True), "num_envs is True: it must be a whole number"),
        (lambda: PPO(num_envs=1e30), "num_envs is too large: the largest whole number is 1e18"),
        (lambda: PPO(num_envs=10**12), "num_envs is 1000000000000: it must be at most 1,000,000"),
        (lambda: PPO(num_envs=math.inf), "num_envs is inf: it must be a whole number"),
        (lambda: PPO(num_envs=np.array([2, 3])), r"num_envs is \(2, 3\): it must be a whole"),
        (lambda: PPO(batch_size=1e18), "batch_size is .*: it must be at most 10,000,000"),
        (lambda: PPO(epochs=1e9), "epochs is .*: it must be at most 10,000"),
        (lambda: PPO(learning_rate=math.nan), "learning_rate is nan: it must be finite"),
        (lambda: PPO(learning_rate=math.inf), "learning_rate is inf: it must be finite"),
        (lambda: PPO(learning_rate=True), "learning_rate is True: it must be a number"),
        (lambda: PPO(learning_rate=10**400), "learning_rate is too large"),
        (lambda: PPO(max_grad_norm=None), "max_grad_norm is None: it must be a number"),
        (lambda: PQN(epsilon=math.nan), "must be finite"),
        (lambda: Distillation(teacher="a", memory_dir=3), "memory_dir is 3: it must be a path"),
        (lambda: Distillation(teacher="a", memory_dir=""), "memory_dir is empty"),
        (lambda: Distillation(teacher="a", memory_dir="\0"), "memory_dir is .*: it must be UTF-8"),
        (lambda: Distillation(teacher="a", distillation_weight=math.inf), "must be finite"),
        (lambda: rt.RunOptions(seed=1e30), "seed is too large"),
        (lambda: rt.RunOptions(threads=10**9), "threads is .*: it must be at most 1,024"),
        (lambda: rt.RunOptions(compile=1), "compile is 1: it must be True or False"),
        (lambda: rt.RunOptions(device=None), "device is None: it must be text"),
        (lambda: rt.evaluate("zoo", "CartPole-v1", 1.5), "episodes is 1.5: it must be a whole"),
        (lambda: rt.evaluate("zoo", "CartPole-v1", seed="1"), "seed is '1': it must be a whole"),
        (lambda: rt.evaluate("zoo", "CartPole-v1", deterministic=1), "deterministic is 1: it must"),
        (lambda: Chain("", PPO(), None, None, None, generations=1e30), "generations is too large"),
    ],
)  # fmt: skip
def test_refusals(make: Any, sentence: str) -> None:
    with pytest.raises(rt.InputError, match=sentence):
        make()


def test_fields_have_their_types() -> None:
    method = Distillation(teacher=Path("runs/a"), memory_dir="m", teacher_acts=np.float32(0.5))
    assert method.teacher == "runs/a" and method.memory_dir == Path("m")
    assert type(method.teacher_acts) is float
    assert method.student.hidden == (64, 64) and type(method.epochs) is float
    assert rt.Schedule.of(np.float32(0.25)) == rt.Schedule(0.25, 0.25)
    assert rt.KL(temperature=np.float32(0.5)) == rt.KL(temperature=0.5)
