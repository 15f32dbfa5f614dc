"""Host environments against the numpy environments that they adapt."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.tasks.gymnasium_env import make_host_env
from rltransfer.tasks.host_env import HostVectorEnv, _Group
from rltransfer.tasks.task import Task
from rltransfer.tasks.vector_env import VectorEnv

CPU = torch.device("cpu")
SAME_STEP = {"autoreset_mode": AutoresetMode.SAME_STEP}


class Scripted(gymnasium.Env[Any, Any]):
    """Observes its seed and step; action 6 ends an episode at step 3, others are cut short at 4."""

    def __init__(self, bad: str = "", kind: str = "dict") -> None:
        self.bad = bad
        box = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = {
            "dict": spaces.Dict({"policy": box, "room": spaces.Discrete(3, start=1)}),
            "box": box,
            "bool": spaces.Box(0, 1, (2,), np.bool_),
            "scalar": spaces.Box(0.0, 9.0, (), np.float64),
            "tuple": spaces.Tuple((box, box)),
        }[kind]
        self.action_space = spaces.MultiBinary(2) if kind == "bool" else spaces.Discrete(2, start=5)
        if kind == "scalar":
            self.action_space = spaces.Box(-1.0, 1.0, (2, 2), np.float64)
        self.kind = kind
        self.number = 0.0
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.number = self.number + 1 if seed is None else float(seed)
        self.steps = 0
        self.last_action = None
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.last_action = action
        self.steps += 1
        bad_now = self.steps == 2 and self.number == 11.0
        reward = float("nan") if bad_now and self.bad == "reward" else 0.5 * self.steps
        terminated = self.kind == "dict" and self.steps == 3 and int(action) == 6
        return self.observe(), reward, terminated, self.steps == 4, {}

    def observe(self) -> Any:
        policy = np.array([self.number, self.steps], np.float64)
        if self.number == 11.0 and (self.bad, self.steps) in (("observation", 2), ("final", 4)):
            policy[1] = np.inf
        if self.bad == "large" and self.steps == 1:
            policy[1] = 1e300
        room = np.int64(1 + self.steps % 3)
        return {
            "dict": {"policy": policy, "room": room},
            "box": policy,
            "bool": policy > 0,
            "scalar": np.float64(self.steps),
            "tuple": (policy, policy),
        }[self.kind]


gymnasium.register("host-test/Scripted-v0", Scripted)


def scripted(num_envs: int = 3, **kwargs: Any) -> HostVectorEnv:
    env = make_host_env(Task("host-test/Scripted-v0", kwargs), num_envs, CPU)
    assert isinstance(env, HostVectorEnv)
    return env


def assert_equals_bare(
    task: Task, bare: Any, actions: np.ndarray, sent: np.ndarray, least_ends: int
) -> None:
    """Steps both from the same seed: all that they return is the same, bit for bit."""
    env = make_host_env(task, bare.num_envs, CPU)
    expected, _ = bare.reset(seed=3)
    observation, _ = env.reset(seed=3)
    assert np.array_equal(observation.numpy(), expected.astype(np.float32))
    ends = 0
    for time_step in range(len(actions)):
        expected, rewards, terminations, truncations, infos = bare.step(actions[time_step])
        step = env.step(torch.from_numpy(sent[time_step]))
        observation, reward, terminated, truncated, info = step
        assert observation.dtype == torch.float32 and reward.dtype == torch.float32
        assert terminated.dtype == torch.bool and truncated.dtype == torch.bool
        assert np.array_equal(observation.numpy(), expected.astype(np.float32))
        assert np.array_equal(reward.numpy(), rewards.astype(np.float32))
        assert np.array_equal(terminated.numpy(), terminations)
        assert np.array_equal(truncated.numpy(), truncations)
        rows = np.flatnonzero(terminations | truncations)
        ends += len(rows)
        assert ("final_obs" in info) == (len(rows) > 0)
        for row in rows:
            last = infos["final_obs"][row].astype(np.float32)
            assert np.array_equal(info["final_obs"][row].numpy(), last)
    assert ends >= least_ends
    env.close()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_cartpole_equals_the_bare_environment(mode: str) -> None:
    bare = gymnasium.make_vec("CartPole-v1", 5, "sync", SAME_STEP)
    actions = np.random.default_rng(0).integers(0, 2, (300, 5))
    # A random policy's episodes last 22 steps: 5 * 300 / 22 = 68 ends.
    task = Task("CartPole-v1", {"vectorization_mode": mode})
    assert_equals_bare(task, bare, actions, actions, least_ends=40)


def test_pendulum_equals_the_bare_environment_with_clipped_actions() -> None:
    bare = gymnasium.make_vec("Pendulum-v1", 4, "sync", SAME_STEP)
    sent = np.random.default_rng(0).uniform(-5, 5, (410, 4, 1)).astype(np.float32)
    # Torques are bounded by 2; every episode is cut short after 200 steps: 4 * 2 ends.
    assert_equals_bare(Task("Pendulum-v1"), bare, sent.clip(-2, 2), sent, least_ends=8)


def test_half_cheetah_equals_the_bare_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mujoco")
    pytest.importorskip("imageio")
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its log where it is run
    kwargs = {"max_episode_steps": 30}
    bare = gymnasium.make_vec("HalfCheetah-v5", 2, "sync", SAME_STEP, **kwargs)
    actions = np.random.default_rng(0).uniform(-1, 1, (70, 2, 6)).astype(np.float32)
    assert_equals_bare(Task("HalfCheetah-v5", kwargs), bare, actions, actions, least_ends=4)


def test_seed_decides_the_episodes() -> None:
    env = make_host_env(Task("CartPole-v1"), 3, CPU)
    first = env.reset(seed=1)[0].clone()
    other = env.reset(seed=2)[0].clone()
    assert torch.equal(env.reset(seed=1)[0], first)
    # Environment i is seeded with seed + i.
    assert torch.equal(other[:2], first[1:])
    assert not torch.equal(other, first)


def test_dictionary_observations_become_groups() -> None:
    env = scripted()
    space = env.single_observation_space
    assert isinstance(space, spaces.Dict)
    assert space["policy"] == spaces.Box(-np.inf, np.inf, (2,), np.float32)
    assert space["room"] == spaces.Box(0.0, 1.0, (3,), np.float32)
    assert env.single_action_space == spaces.Discrete(2)
    observation, _ = env.reset(seed=10)
    # Environment i observes its seed 10 + i and step 0; room 1, the first of 1 to 3.
    assert torch.equal(observation["policy"], torch.tensor([[10.0, 0.0], [11.0, 0.0], [12.0, 0.0]]))
    assert torch.equal(observation["room"], torch.tensor([[1.0, 0.0, 0.0]]).expand(3, 3))
    actions = torch.tensor([0, 1, 0])
    for _ in range(2):
        _, _, terminated, truncated, info = env.step(actions)
        assert not (terminated | truncated).any() and "final_obs" not in info
    observation, reward, terminated, truncated, info = env.step(actions)
    # The second environment took action 1, which is the environment's 6: it ends at step 3.
    assert terminated.tolist() == [False, True, False]
    assert truncated.tolist() == [False, False, False]
    assert reward.tolist() == [1.5, 1.5, 1.5]
    assert info["final_obs"]["policy"][1].tolist() == [11.0, 3.0]
    # Step 3: room 1 + 3 % 3 = 1, the first.
    assert info["final_obs"]["room"][1].tolist() == [1.0, 0.0, 0.0]
    # The next episode's number is one higher, its step 0; the others go on in room 1.
    assert observation["policy"].tolist() == [[10.0, 3.0], [12.0, 0.0], [12.0, 3.0]]
    _, _, terminated, truncated, info = env.step(actions)
    assert truncated.tolist() == [True, False, True]
    assert info["final_obs"]["policy"][0].tolist() == [10.0, 4.0]
    assert info["final_obs"]["policy"][2].tolist() == [12.0, 4.0]
    # Step 4: room 1 + 4 % 3 = 2, the second of three.
    assert info["final_obs"]["room"][2].tolist() == [0.0, 1.0, 0.0]


def test_actions_reach_the_environment_in_its_own_shape_type_and_bounds() -> None:
    env = scripted(2, kind="scalar")
    assert env.single_action_space == spaces.Box(-1.0, 1.0, (4,), np.float32)
    env.reset(seed=0)
    observation = env.step(torch.tensor([[0.5, 3.0, -0.25, -7.0], [0.0, 0.0, 0.0, 1.0]]))[0]
    action = env.env.envs[0].unwrapped.last_action  # type: ignore[attr-defined]
    assert action.dtype == np.float64
    assert action.tolist() == [[0.5, 1.0], [-0.25, -1.0]]
    # A number without a shape becomes a vector of one.
    assert env.single_observation_space.shape == (1,)
    assert observation.tolist() == [[1.0], [1.0]]


def test_held_actions_are_a_copy() -> None:
    env = scripted(1)
    env.reset(seed=0)
    actions = torch.tensor([1])
    env.send(actions)
    actions.zero_()
    env.recv()
    assert env.env.envs[0].unwrapped.last_action == 6  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("bad", "kind", "steps", "sentence"),
    [
        ("reward", "box", 2, r"a reward that is not finite \(nan\) in environment 1 at step 2"),
        ("observation", "box", 2, r"an observation that is not finite \(inf\) in environment 1"),
        ("observation", "dict", 2, r"an observation 'policy' that is not finite \(inf\) in envir"),
        ("final", "dict", 4, r"a final observation 'policy' .* in environment 1 at step 4"),
        ("large", "box", 1, r"an observation that is not finite \(inf\) in environment 0"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_not_finite_is_named(bad: str, kind: str, steps: int, sentence: str) -> None:
    env = scripted(3, bad=bad, kind=kind)
    env.reset(seed=10)
    actions = torch.zeros(3, dtype=torch.int64)
    for _ in range(steps - 1):
        env.step(actions)
    with pytest.raises(InputError, match=f"host-test/Scripted-v0' returned {sentence}"):
        env.step(actions)


def test_the_environment_of_a_final_observation_is_named_among_others() -> None:
    # The first two environments end their episodes at step 3, the last one alone at step 4.
    env = scripted(3, bad="final")
    env.reset(seed=9)
    actions = torch.tensor([1, 1, 0])
    for _ in range(3):
        env.step(actions)
    with pytest.raises(InputError, match=r"a final observation .* environment 2 at step 4"):
        env.step(actions)


@pytest.mark.parametrize(
    ("actions", "sentence"),
    [
        (torch.tensor([0, 2, 0]), "The action 2 for environment 1 of .* 2 actions, 0 to 1"),
        (torch.tensor([0, 0, -1]), "The action -1 for environment 2 of .* 2 actions, 0 to 1"),
        (torch.tensor([0, 1]), r"int64 \[2\]: they must be integers of shape \[3\]"),
        (torch.tensor([0.0, 1.0, 0.0]), r"float32 \[3\]: they must be integers"),
    ],
)
def test_action_out_of_range_is_refused_before_the_environment_sees_it(
    actions: Tensor, sentence: str
) -> None:
    env = scripted()
    env.reset(seed=0)
    with pytest.raises(InputError, match=sentence):
        env.step(actions)
    assert all(one.unwrapped.steps == 0 for one in env.env.envs)  # type: ignore[attr-defined]
    env.step(torch.tensor([0, 1, 0]))


def test_action_that_is_not_finite_is_refused() -> None:
    env = make_host_env(Task("Pendulum-v1"), 2, CPU)
    env.reset(seed=0)
    with pytest.raises(InputError, match=r"The action \[nan\] for environment 1 of 'Pendulum-v1'"):
        env.step(torch.tensor([[0.0], [float("nan")]]))


class Halves(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Steps in a thread that sleeps; every step ends the episode; final_obs comes stacked."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}
    seconds = 0.3
    tells_final = True

    def __init__(self, num_envs: int = 2, groups: bool = False) -> None:
        self.num_envs = num_envs
        self.groups = groups
        box = spaces.Box(0.0, 99.0, (1,), np.float32)
        self.single_observation_space = spaces.Dict({"seen": box}) if groups else box
        self.single_action_space = spaces.Discrete(3)
        self.steps = 0

    def observed(self, value: float) -> Any:
        self.array = np.full((self.num_envs, 1), value, np.float32)
        return {"seen": self.array} if self.groups else self.array

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observed(0.0), {}

    def step_async(self, actions: Any) -> None:
        self.thread = threading.Thread(target=time.sleep, args=(self.seconds,))
        self.thread.start()

    def step_wait(self) -> Any:
        self.thread.join()
        self.steps += 1
        no = np.zeros(self.num_envs, np.bool_)
        info = {"final_obs": self.observed(50.0 + self.steps), "lives": no}
        done = (self.observed(self.steps), np.ones(self.num_envs), no, ~no)
        return *done, info if self.tells_final else {}


def test_send_returns_while_the_step_goes_on() -> None:
    env = HostVectorEnv(Halves(), CPU, name="halves")
    assert env.overlaps
    env.reset()
    begin = time.perf_counter()
    env.send(torch.tensor([0, 2]))
    sent = time.perf_counter() - begin
    observation, _, _, truncated, info = env.recv()
    whole = time.perf_counter() - begin
    assert sent < Halves.seconds / 2
    assert whole >= Halves.seconds
    assert observation.tolist() == [[1.0], [1.0]] and truncated.all()
    assert info["final_obs"].tolist() == [[51.0], [51.0]]
    # What else the environment tells is handed on.
    assert set(info) == {"final_obs", "lives"}


def test_environment_without_halves_does_not_overlap() -> None:
    assert not make_host_env(Task("CartPole-v1"), 1, CPU).overlaps


def test_tensors_share_the_environments_memory() -> None:
    bare = Halves()
    observation, _ = HostVectorEnv(bare, CPU, name="halves").reset()
    bare.array[:] = 7.0
    assert observation.tolist() == [[7.0], [7.0]]


def test_stacked_final_observations_may_be_grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Halves, "seconds", 0.0)
    env = HostVectorEnv(Halves(groups=True), CPU, name="halves")
    env.reset()
    info = env.step(torch.tensor([0, 0]))[-1]
    assert info["final_obs"]["seen"].tolist() == [[51.0], [51.0]]


def test_missing_final_observation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Halves, "seconds", 0.0)
    monkeypatch.setattr(Halves, "tells_final", False)
    env = HostVectorEnv(Halves(), CPU, name="halves")
    env.reset()
    with pytest.raises(InputError, match=r"'halves' ended an episode without info\['final_obs'\]"):
        env.step(torch.tensor([0, 0]))


def test_halves_are_used_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Halves, "seconds", 0.0)
    bare = Halves()
    env = HostVectorEnv(bare, CPU, name="halves")
    env.reset()
    with pytest.raises(RuntimeError, match="without send"):
        env.recv()
    env.send(torch.tensor([0, 0]))
    with pytest.raises(RuntimeError, match="send\\(\\) was called twice"):
        env.send(torch.tensor([0, 0]))
    # A reset gives the step up, after it has ended.
    env.reset()
    assert bare.steps == 1
    with pytest.raises(RuntimeError, match="without send"):
        env.recv()


def test_environment_that_resets_in_the_next_step_is_refused() -> None:
    bare = gymnasium.make_vec("CartPole-v1", 2, "sync")
    with pytest.raises(InputError, match="'CartPole-v1' resets in the step after"):
        HostVectorEnv(bare, CPU, name="CartPole-v1")


def test_episodes_of_gymnasium_may_be_truncated() -> None:
    assert make_host_env(Task("CartPole-v1"), 1, CPU).truncates


class Native(VectorEnv):
    """A device environment of somebody else's."""

    def __init__(self, num_envs: int, device: torch.device, size: int = 1) -> None:
        self.num_envs, self.device, self.size = num_envs, device, size

    def send(self, actions: Tensor) -> None:
        raise NotImplementedError

    def recv(self) -> Any:
        raise NotImplementedError


gymnasium.register("host-test/Native-v0", vector_entry_point=Native)
gymnasium.register("host-test/Halves-v0", Scripted, vector_entry_point=Halves)


def test_environment_of_tensors_is_returned_as_it_is() -> None:
    env = make_host_env(Task("host-test/Native-v0", {"size": 3}), 4, CPU)
    assert isinstance(env, Native)
    assert (env.num_envs, env.device, env.size) == (4, CPU, 3)


def test_vector_entry_point_is_taken_if_it_resets_in_the_same_step() -> None:
    env = make_host_env(Task("host-test/Halves-v0"), 4, CPU)
    assert isinstance(env, HostVectorEnv) and isinstance(env.env, Halves)
    # CartPole's own vector environment resets in the next step.
    env = make_host_env(Task("CartPole-v1"), 4, CPU)
    assert isinstance(env, HostVectorEnv)
    assert isinstance(env.env, gymnasium.vector.SyncVectorEnv)


def test_module_before_the_id_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "host_test_module", ModuleType("host_test_module"))
    assert make_host_env(Task("host_test_module:CartPole-v1"), 1, CPU).num_envs == 1


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (Task("CartPol-v1"), "no environment 'CartPol-v1': did you mean 'CartPole-v1'"),
        (Task("CartPole-v7"), "no environment 'CartPole-v7': the latest version is 'CartPole-v1'"),
        (Task("CartPole"), "no environment 'CartPole': the latest version is 'CartPole-v1'"),
        (Task("no_such_module:CartPole-v1"), "No module named 'no_such_module'; set PYTHONPATH"),
        (Task("CartPole-v1", {"gravity": 9}), "with {'gravity': 9}: .* keyword argument 'gravity'"),
        (Task("CartPole-v1", {"num_envs": 9}), "takes no keyword argument 'num_envs'"),
        (Task("CartPole-v1", {"vectorization_mode": "threads"}), "must be 'sync' or 'async'"),
        (
            Task("FrozenLake-v1", {"map_name": "9x9"}),
            r"with {'map_name': '9x9'}: KeyError\('9x9'\) in .*frozen_lake.py, line \d+\.$",
        ),
        # No hint at a later version where it is the latest.
        (Task("sys:CartPole-v1", {"gravity": 9}), "unexpected keyword argument 'gravity'.$"),
        (Task("HalfCheetah-v2"), "the latest version is 'HalfCheetah-v5'"),
        (
            Task("Blackjack-v1"),
            "'Blackjack-v1' observes a Tuple space: supported are Box, Discrete",
        ),
        (
            Task("host-test/Scripted-v0", {"kind": "bool"}),
            "a MultiBinary action space of type int8: supported are Discrete and Box",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*out of date")
def test_what_cannot_be_made_is_refused_in_one_sentence(task: Task, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as refusal:
        make_host_env(task, 2, CPU)
    assert "\n" not in str(refusal.value)


def test_what_a_discrete_space_does_not_hold_is_refused() -> None:
    room = _Group.of(spaces.Discrete(3, start=1), "rooms")
    assert room.to_numpy(np.array([1, 3])).tolist() == [[1, 0, 0], [0, 0, 1]]
    for number in (0, 4):
        with pytest.raises(
            InputError, match=rf"observation {number}, outside its observation space"
        ):
            room.to_numpy(np.array([1, number]))


def test_missing_package_is_named_with_the_extra_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium.envs.mujoco.reacher_v5", None)
    with pytest.raises(InputError, match=r"'Reacher-v5' needs the package .*gymnasium\[mujoco\]"):
        make_host_env(Task("Reacher-v5"), 1, CPU)


def test_booleans_become_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "MultiBinary", lambda n: spaces.Discrete(n))
    env = scripted(2, kind="bool")
    assert env.single_observation_space == spaces.Box(0, 1, (2,), np.uint8)
    env.reset(seed=0)
    observation = env.step(torch.zeros(2, dtype=torch.int64))[0]
    # The numbers are 0 and 1, the step is 1: which of them are above 0?
    assert observation.dtype == torch.uint8
    assert observation.tolist() == [[0, 1], [1, 1]]


def test_discrete_observation_is_one_hot() -> None:
    env = make_host_env(Task("FrozenLake-v1", {"is_slippery": False}), 2, CPU)
    assert env.single_observation_space == spaces.Box(0.0, 1.0, (16,), np.float32)
    env.reset(seed=0)
    # From field 0 of 4 x 4, 1 leads down to field 4 and 2 right to field 1.
    observation = env.step(torch.tensor([1, 2]))[0]
    assert observation.argmax(-1).tolist() == [4, 1]
    assert observation.sum(-1).tolist() == [1.0, 1.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_gives_what_the_cpu_gives() -> None:
    cuda = torch.device("cuda")
    here = make_host_env(Task("CartPole-v1"), 4, CPU)
    there = make_host_env(Task("CartPole-v1"), 4, cuda)
    assert torch.equal(there.reset(seed=5)[0].cpu(), here.reset(seed=5)[0])
    actions = torch.randint(0, 2, (100, 4), generator=torch.Generator().manual_seed(0))
    for action in actions:
        expected, got = here.step(action), there.step(action.to(cuda))
        assert got[0].device.type == "cuda"
        assert all(torch.equal(g.cpu(), e) for g, e in zip(got[:4], expected[:4], strict=True))
        assert ("final_obs" in got[4]) == ("final_obs" in expected[4])
        if "final_obs" in expected[4]:
            assert torch.equal(got[4]["final_obs"].cpu(), expected[4]["final_obs"])
