"""Episodes of Gymnasium environments under way are continued when a run resumes."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import rltransfer as rt
from rltransfer.errors import EnvironmentFailureError
from rltransfer.files.checkpoint import load_state, newest_checkpoint
from rltransfer.runs.run import Run
from rltransfer.tasks import async_envs, episode_replay, host_env
from rltransfer.tasks.gymnasium_env import make_host_env
from rltransfer.tasks.vector_env import LostEpisodeError, VectorEnv

CPU = torch.device("cpu")


class Wandering(gymnasium.Env[Any, Any]):
    """Walks at random, as its own generator or those of its spaces say, or as no seed does."""

    def __init__(self, source: str = "own", flat: bool = True) -> None:
        self.source, self.flat = source, flat
        box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = box if flat else spaces.Dict({"a|b": box, "c/d": box})
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self.noise = spaces.Box(-1, 1, (2,), np.float32)

    def _look(self) -> Any:
        return self.place if self.flat else {"a|b": self.place, "c/d": -self.place}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps, self.length = 0, int(self.np_random.integers(5, 30))
        self.place = np.zeros(2, np.float32)
        return self._look(), {}

    def step(self, action: Any) -> Any:
        draw = {
            "own": lambda: self.np_random.uniform(-1, 1, 2),
            "space": self.action_space.sample,
            "unseeded": lambda: np.random.default_rng().uniform(-1, 1, 2),
        }[self.source]
        self.place = self.place + np.float32(action) + np.float32(draw())
        self.steps += 1
        return self._look(), float(self.place[0]), False, self.steps >= self.length, {}


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    gymnasium.register("tests/Wandering-v0", Wandering)
    yield
    del gymnasium.registry["tests/Wandering-v0"]


def task(name: str, **kwargs: Any) -> rt.Task:
    return rt.Task(name, kwargs)


def acted(env: VectorEnv, steps: int, generator: torch.Generator) -> list[torch.Tensor]:
    """What is seen, earned and ended in some random steps."""
    seen = []
    for _ in range(steps):
        space = env.single_action_space
        if isinstance(space, spaces.Discrete):
            action = torch.randint(int(space.n), (env.num_envs,), generator=generator)
        else:
            action = torch.rand(env.num_envs, *(space.shape or ()), generator=generator) * 2 - 1
        observation, *rest, _ = env.step(action)
        groups = observation if isinstance(observation, dict) else {"": observation}
        seen += [tensor.clone() for tensor in (*groups.values(), *rest)]
    return seen


@pytest.mark.parametrize(
    "played",
    [
        task("CartPole-v1"),
        task("CartPole-v1", vectorization_mode="async"),
        task("HalfCheetah-v5", max_episode_steps=20),
        task("LunarLander-v3"),
        task("tests/Wandering-v0"),
        task("tests/Wandering-v0", source="space"),
        task("tests/Wandering-v0", flat=False),
    ],
    ids=str,
)
@pytest.mark.parametrize("steps", [0, 7, 45])
def test_an_episode_is_continued_exactly(played: rt.Task, steps: int) -> None:
    env, other = (make_host_env(played, 3, CPU) for _ in range(2))
    try:
        env.reset(seed=5)
        other.reset(seed=6)
        acted(env, steps, torch.Generator().manual_seed(0))
        state = env.state_dict()
        assert state is not None
        other.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
        # The same again from the restored environment's own state.
        again = other.state_dict()
        assert again is not None and torch.equal(again["actions"], state["actions"])
        one, two = (acted(each, 60, torch.Generator().manual_seed(1)) for each in (env, other))
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    finally:
        env.close()
        other.close()


def test_what_depends_on_more_than_seed_and_actions_is_lost() -> None:
    env = make_host_env(task("tests/Wandering-v0", source="unseeded"), 2, CPU)
    env.reset(seed=0)
    acted(env, 4, torch.Generator().manual_seed(0))
    state = env.state_dict()
    assert state is not None
    with pytest.raises(LostEpisodeError, match="does not depend on its seed and actions alone"):
        env.load_state_dict(state)


def test_long_and_slow_episodes_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_host_env(task("CartPole-v1"), 2, CPU)
    env.reset(seed=0)
    acted(env, 5, torch.Generator().manual_seed(0))
    state = env.state_dict()
    assert state is not None
    monkeypatch.setattr(host_env, "SECONDS", -1.0)
    with pytest.raises(LostEpisodeError, match="takes too long"):
        env.load_state_dict(state)
    monkeypatch.undo()
    acted(env, 5, torch.Generator().manual_seed(0))
    monkeypatch.setattr(episode_replay, "LONGEST", 4)
    state = env.state_dict()
    assert state is not None and not len(state["actions"])
    with pytest.raises(LostEpisodeError):
        env.load_state_dict(state)


@pytest.mark.parametrize(("mode", "seconds"), [("sync", 2.0), ("async", 8.0)])
def test_environments_in_one_process_share_the_time(
    mode: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 8 seconds for four environments, one after the other or all at once.
    env = make_host_env(task("CartPole-v1", vectorization_mode=mode), 4, CPU)
    assert isinstance(env, host_env.HostVectorEnv)
    env.reset(seed=0)
    state = env.state_dict()
    assert state is not None
    limits: list[float] = []
    set_attr = env.env.set_attr

    def recorded(name: str, values: Any) -> None:
        limits.extend(limit for _, limit in values)
        set_attr(name, values)

    monkeypatch.setattr(env.env, "set_attr", recorded)
    monkeypatch.setattr(host_env, "SECONDS", 8.0)
    env.load_state_dict(state)
    env.close()
    assert limits == [seconds] * 4


def stopped_and_resumed(folder: Path, suite: Any) -> tuple[Run, Run]:
    """A run that ended, and the same one that was stopped in its seventh rollout and resumed."""
    method = rt.agents.PPO(num_envs=4, rollout_length=10, batch_size=40)
    options: dict[str, Any] = {
        "suite": suite, "total_steps": 400, "checkpoint_every": 120, "episodes": 0,
        "evaluate_episodes": 0, "quiet": True,
    }  # fmt: skip
    whole = rt.train(method, run_dir=folder / "whole", **options)
    numbers, iterate = itertools.count(1), Run.iterate

    def stop(run: Run) -> dict[str, float]:
        if next(numbers) == 7:
            raise KeyboardInterrupt
        return iterate(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "iterate", stop)
        with pytest.raises(KeyboardInterrupt):
            rt.train(method, run_dir=folder / "broken", **options)
    return whole, rt.train(method, run_dir=folder / "broken", resume=True, **options)


def same(one: Run, two: Run) -> bool:
    pairs = zip(one.agent.policy.parameters(), two.agent.policy.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", ["CartPole-v1", "tests/Wandering-v0"])
def test_a_resumed_run_equals_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    assert same(*stopped_and_resumed(tmp_path, name))


def test_a_run_says_what_it_loses_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = rt.agents.PPO(num_envs=4, rollout_length=10, batch_size=40)
    options: dict[str, Any] = {
        "suite": task("tests/Wandering-v0", source="unseeded"), "episodes": 0,
        "evaluate_episodes": 0, "run_dir": tmp_path / "run",
    }  # fmt: skip
    rt.train(method, total_steps=120, **options)
    capsys.readouterr()
    resumed = rt.train(method, total_steps=240, resume=True, **options)
    printed = " ".join(capsys.readouterr().err.split())
    assert "cannot be played again" in printed and "new episodes begin" in printed
    assert resumed.env_steps == 240
    state = load_state(newest_checkpoint(tmp_path / "run"))["engine"]
    assert "env-0" in state


def test_a_damaged_state_is_one_sentence(tmp_path: Path) -> None:
    env = make_host_env(task("CartPole-v1"), 2, CPU)
    env.reset(seed=0)
    state = env.state_dict()
    assert state is not None
    texts = ["[]", "[1, 2]", "{", '[{"length": 99}, {"length": 1}]']
    for text in texts:
        state["episodes"] = torch.tensor(list(text.encode()), dtype=torch.uint8)
        with pytest.raises((ValueError, LookupError, TypeError)):
            env.load_state_dict(state)


def test_a_long_episode_keeps_no_more_actions_than_can_be_played(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(episode_replay, "LONGEST", 5)
    for played in (task("CartPole-v1"), task("tests/Wandering-v0")):
        env = make_host_env(played, 1, CPU)
        env.reset(seed=0)
        replay = env.env.envs[0]._replay  # type: ignore[attr-defined]
        for _ in range(40):
            replay.record(env.env.single_action_space.sample())  # type: ignore[attr-defined]
        assert len(replay._actions) == 6
        assert replay.episode(np.zeros(2)).actions is None


class Halving(Wandering):
    """Halves the action that it is given, in place, before it is used."""

    def step(self, action: Any) -> Any:
        action *= 0.5
        return super().step(action)


def test_actions_that_an_environment_changes_are_kept_as_they_were() -> None:
    gymnasium.register("tests/Halving-v0", Halving)
    env, other = (make_host_env(task("tests/Halving-v0"), 2, CPU) for _ in range(2))
    env.reset(seed=5)
    other.reset(seed=6)
    acted(env, 4, torch.Generator().manual_seed(0))
    state = env.state_dict()
    assert state is not None
    other.load_state_dict(state)
    one, two = (acted(each, 9, torch.Generator().manual_seed(1)) for each in (env, other))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


class Sleeping(Wandering):
    """Sleeps at a step once a file is there."""

    def __init__(self, sleeps: str) -> None:
        super().__init__()
        self.sleeps = Path(sleeps)

    def step(self, action: Any) -> Any:
        if self.sleeps.exists():
            time.sleep(60)
        return super().step(action)


def test_a_worker_that_ends_or_hangs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gymnasium.register("tests/Sleeping-v0", Sleeping)
    monkeypatch.setattr(async_envs, "SECONDS", 0.5)
    kwargs = {"sleeps": str(tmp_path / "sleep"), "vectorization_mode": "async"}
    env = make_host_env(rt.Task("tests/Sleeping-v0", kwargs, env_timeout=0.5), 2, CPU)
    env.reset(seed=0)
    acted(env, 3, torch.Generator().manual_seed(0))
    state = env.state_dict()
    assert state is not None
    (tmp_path / "sleep").touch()
    began = time.monotonic()
    with pytest.raises(EnvironmentFailureError, match=r"did not answer within 0\.5 seconds"):
        env.load_state_dict(state)
    assert time.monotonic() - began < 20
    env.close()

    env = make_host_env(task("CartPole-v1", vectorization_mode="async"), 2, CPU)
    env.reset(seed=0)
    os.kill(env.env.processes[1].pid, signal.SIGKILL)  # type: ignore[attr-defined]
    env.env.processes[1].join()  # type: ignore[attr-defined]
    with pytest.raises(EnvironmentFailureError, match=r"exit code -9 in environment 1 at its res"):
        env.state_dict()
    env.close()
