"""The layer around each environment, with environments that do what people's environments do."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rltransfer.errors import EnvironmentFailureError, InputError
from rltransfer.machine.generators import global_state, seed_global_generators, set_global_state
from rltransfer.machine.threads import restored
from rltransfer.tasks.gymnasium_env import make_host_env
from rltransfer.tasks.task import Task
from rltransfer.tasks.vector_env import VectorEnv

CPU = torch.device("cpu")
FLOATS = spaces.Box(-np.inf, np.inf, (2,), np.float32)
BYTES = spaces.Box(0, 255, (2,), np.uint8)
MODES = pytest.mark.parametrize("mode", ["sync", "async"])


class Odd(gymnasium.Env[Any, Any]):
    """Counts its steps; the third one is as `does` says, and the fifth ends the episode."""

    def __init__(self, does: str = "") -> None:
        self.does = does
        self.observation_space = BYTES if "byte" in does else FLOATS
        if does == "group":
            self.observation_space = spaces.Dict({"policy": FLOATS, "other": FLOATS})
        if does == "empty":
            self.observation_space = spaces.Box(0.0, 1.0, (0,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.buffer = np.zeros(2, np.float32)

    def observe(self) -> Any:
        self.buffer[:] = self.steps
        if self.does == "show threads":
            self.buffer[:] = torch.get_num_threads()
        if self.does == "bytes as int64":
            return np.array([self.steps, 255], np.int64)
        if self.steps == 3 and self.does in WRONG:
            return WRONG[self.does]
        return (
            {"policy": self.buffer, "other": self.buffer} if self.does == "group" else self.buffer
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        if self.does == "raise in reset":
            raise ZeroDivisionError("no reset")
        return self.observe(), {"key": "text"}

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == 3 and self.does == "raise":
            raise ZeroDivisionError("the third step")
        if self.steps == 3 and self.does == "end":
            import os

            os._exit(7)
        if self.steps == 3 and (self.does == "hang" or (self.does == "hang if 1" and action == 1)):
            import time

            time.sleep(60)
        reward: Any = np.array([0.5]) if self.does == "array" else 0.5
        if self.steps == 3 and self.does == "reward":
            reward = None
        done: Any = self.steps == 5
        # Of other types and lengths each time, as no training reads them.
        info = {"key": [1.0, None, "text", np.zeros(self.steps)][self.steps % 4]}
        return (
            self.observe(),
            reward,
            np.array([done]) if self.does == "array" else done,
            False,
            info,
        )


WRONG: dict[str, Any] = {
    "shape": np.zeros(3, np.float32),
    "scalar": 1.0,
    "text": "text",
    "byte too large": np.array([256, 0]),
    "byte with a fraction": np.array([0.5, 0.0]),
    "group": {"policy": np.zeros(2, np.float32)},
}

gymnasium.register("layer-test/Odd-v0", Odd)


def odd(does: str, mode: str = "sync", num_envs: int = 2, timeout: float = 0.0) -> VectorEnv:
    kwargs = {"does": does, "vectorization_mode": mode}
    task = Task("layer-test/Odd-v0", kwargs, env_timeout=timeout)
    return make_host_env(task, num_envs, CPU)


def stepped(env: VectorEnv, count: int) -> Any:
    env.reset(seed=0)
    for _ in range(count):
        step = env.step(torch.zeros(env.num_envs, dtype=torch.int64))
    return step


@MODES
def test_last_observation_is_not_that_of_the_next_episode(mode: str) -> None:
    env = odd("", mode)
    observation, reward, terminated, _, info = stepped(env, 5)
    # The environment returns one array each time, and has filled it with zeros since.
    assert info["final_obs"].tolist() == [[5.0, 5.0]] * 2
    assert observation.tolist() == [[0.0, 0.0]] * 2
    assert reward.tolist() == [0.5, 0.5] and terminated.all()
    # Infos of any kind are dropped before they are merged, those of the last step too.
    assert not info.get("final_info") and "key" not in info
    assert stepped(env, 2)[-1] == {}
    env.close()


@MODES
@pytest.mark.parametrize("does", ["array", "bytes as int64"])
def test_what_has_another_type_or_shape_is_cast(does: str, mode: str) -> None:
    env = odd(does, mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        observation, reward, terminated, _, _ = stepped(env, 4)
    # float32 [4, 4] each; bytes [4, 255] from int64.
    assert observation.tolist() == [[4, 255] if does == "bytes as int64" else [4.0, 4.0]] * 2
    assert observation.dtype == (torch.uint8 if does == "bytes as int64" else torch.float32)
    assert reward.tolist() == [0.5, 0.5] and not terminated.any()
    env.close()


@pytest.mark.parametrize(
    ("does", "sentence"),
    [
        ("shape", r"returned an observation of the shape \[3\] in .*: .* is float32\[2\]\.$"),
        ("scalar", r"returned an observation of the shape \[\] in .*: .* is float32\[2\]\.$"),
        ("text", r"returned an observation of the type str in "),
        ("byte too large", r"returned an observation with the value 256 in .* is uint8\[2\]\.$"),
        ("byte with a fraction", r"returned an observation with the value 0.5 in "),
        ("group", r"returned an observation with \['policy'\] in .*: .* dictionary with "),
        ("reward", r"returned a reward that is not a number \(None\) in "),
        ("raise", r"raised ZeroDivisionError \(the third step; test_env_layer.py, line \d+\) in "),
    ],
)
def test_what_is_wrong_is_named_with_task_environment_and_step(does: str, sentence: str) -> None:
    env = odd(does)
    match = rf"^The environment 'layer-test/Odd-v0' {sentence}"
    with pytest.raises(EnvironmentFailureError, match=match) as failure:
        stepped(env, 3)
    assert "in environment 0 at step 3: " in str(failure.value)
    assert ("in step\n    raise ZeroDivisionError" in failure.value.trace) == (does == "raise")


@MODES
def test_a_worker_computes_with_one_thread(mode: str) -> None:
    with restored():
        torch.set_num_threads(3)
        env = odd("show threads", mode)
        observation = stepped(env, 1)[0]
        env.close()
    assert observation.unique().tolist() == ([1] if mode == "async" else [3])


def test_error_in_another_process_is_the_same() -> None:
    env = odd("raise", "async")
    env.first_index = 4
    with pytest.raises(EnvironmentFailureError, match="in environment 4 at step 3") as failure:
        stepped(env, 3)
    assert "raise ZeroDivisionError" in failure.value.trace
    env.close()


@MODES
def test_error_in_reset_is_named(mode: str) -> None:
    env = odd("raise in reset", mode)
    with pytest.raises(EnvironmentFailureError, match=r"\(no reset; .* 0 at its reset"):
        env.reset(seed=0)
    env.close()


def test_process_that_ends_is_named() -> None:
    env = odd("end", "async")
    with pytest.raises(EnvironmentFailureError, match="ended its process with the exit code 7 in"):
        stepped(env, 3)
    env.close()


def test_environment_that_hangs_is_named_and_killed() -> None:
    env = odd("hang", "async", timeout=0.5)
    with pytest.raises(EnvironmentFailureError, match=r"within 0.5 seconds in environment 0 at st"):
        stepped(env, 3)
    env.close()  # the test would take a minute if it waited for the step


def test_the_environment_that_hangs_is_named_among_others() -> None:
    env = odd("hang if 1", "async", num_envs=3, timeout=0.5)
    env.reset(seed=0)
    with pytest.raises(EnvironmentFailureError, match=r"in environment 1 at step 3"):
        for _ in range(3):
            env.step(torch.tensor([0, 1, 0]))
    env.close()


def test_empty_observation_is_refused() -> None:
    with pytest.raises(InputError, match=r"a Box of the shape \[0\], which holds no number"):
        odd("empty")


class WithoutOptions(Odd):
    def reset(self, seed: int | None = None) -> Any:  # type: ignore[override]
        return super().reset(seed=seed)


gymnasium.register("layer-test/WithoutOptions-v0", WithoutOptions)


def test_reset_without_options_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match=r"cannot be made: its `reset` does not take .*options"):
        make_host_env(Task("layer-test/WithoutOptions-v0"), 1, CPU)


class Dice(gymnasium.Env[Any, Any]):
    """Shows what it draws from every generator that it may draw from."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0.0, 1.0, (5,), np.float32)
        self.action_space = spaces.Box(0.0, 1.0, (1,), np.float32)

    def draw(self) -> Any:
        drawn = [self.np_random.random(), random.random(), np.random.random()]
        drawn += [self.observation_space.sample()[0], self.action_space.sample()[0]]
        return np.array(drawn, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.draw(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.draw(), 0.0, False, False, {}


gymnasium.register("layer-test/Dice-v0", Dice)


class UnspeakableError(Exception):
    """An error that cannot tell what it is about."""

    def __str__(self) -> str:
        raise RuntimeError("str fails")


ERRORS: dict[str, Callable[[], BaseException]] = {
    "FileNotFoundError (No such file: map.xml)": lambda: FileNotFoundError("No such file: map.xml"),
    "RuntimeError (port in use)": lambda: RuntimeError("port in use"),
    "ZeroDivisionError": ZeroDivisionError,
    "EOFError (at the end)": lambda: EOFError("at the end"),
    "SystemExit (robot off)": lambda: SystemExit("robot off"),
    "UnspeakableError": UnspeakableError,
    "KeyboardInterrupt": KeyboardInterrupt,
}
"""What an environment may raise, by how it is told."""


class Refuses(Dice):
    """Raises an error when it is made, stepped or closed, or at its second time."""

    open_ports: ClassVar[set[int]] = set()

    def __init__(self, error: str, when: str) -> None:
        super().__init__()
        self.error, self.when = error, when
        self.port = len(self.open_ports)
        if when == "made" or (when == "made twice" and self.port):
            raise ERRORS[error]()
        self.open_ports.add(self.port)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.when == "stepped":
            raise ERRORS[self.error]()
        return super().step(action)

    def close(self) -> None:
        self.open_ports.discard(self.port)
        if self.when == "closed":
            raise ERRORS[self.error]()


gymnasium.register("layer-test/Refuses-v0", Refuses)


def refusing(error: str, when: str, mode: str, num_envs: int = 1) -> VectorEnv:
    kwargs = {"error": error, "when": when, "vectorization_mode": mode}
    return make_host_env(Task("layer-test/Refuses-v0", kwargs), num_envs, CPU)


@MODES
@pytest.mark.parametrize("error", [name for name in ERRORS if name != "KeyboardInterrupt"])
def test_error_of_the_constructor_is_one_sentence(error: str, mode: str) -> None:
    with pytest.raises(InputError, match="he environment 'layer-test/Refuses-v0'") as failure:
        refusing(error, "made", mode)
    assert ("ended before" in str(failure.value)) or f": {error}." in str(failure.value)


def test_environments_that_were_made_are_closed_if_another_cannot_be() -> None:
    with pytest.raises(InputError, match=r"RuntimeError \(port in use\)"):
        refusing("RuntimeError (port in use)", "made twice", "sync", 2)
    assert not Refuses.open_ports


@MODES
@pytest.mark.parametrize("error", ["RuntimeError (port in use)", "UnspeakableError"])
def test_error_of_closing_is_a_warning(error: str, mode: str) -> None:
    with pytest.warns(UserWarning, match="While it closed, an environment raised"):
        env = refusing(error, "closed", mode)
        env.reset(seed=0)
        env.close()


@MODES
@pytest.mark.parametrize("error", ["SystemExit (robot off)", "UnspeakableError"])
def test_errors_of_every_kind_are_those_of_a_step(error: str, mode: str) -> None:
    env = refusing(error, "stepped", mode)
    env.reset(seed=0)
    with pytest.raises(EnvironmentFailureError, match=rf"raised {error.partition(' ')[0]} "):
        env.step(torch.zeros(1, 1))
    env.close()


def test_interrupt_that_a_worker_raises_is_its_own() -> None:
    env = refusing("KeyboardInterrupt", "stepped", "async")
    env.reset(seed=0)
    with pytest.raises(EnvironmentFailureError, match="raised KeyboardInterrupt"):
        env.step(torch.zeros(1, 1))
    env.close()


@MODES
def test_seed_reaches_every_generator(mode: str) -> None:
    def drawn(seed: int) -> torch.Tensor:
        seed_global_generators(seed)  # as a run does in its own process
        env = make_host_env(Task("layer-test/Dice-v0", {"vectorization_mode": mode}), 2, CPU)
        env.reset(seed=seed)
        observation = env.step(torch.zeros(2, 1))[0].clone()
        env.close()
        return observation

    first = drawn(3)
    assert torch.equal(first, drawn(3))
    # All numbers are different: no two generators are in one state, in no two environments.
    assert len(first.unique()) == first.numel()
    assert not (first == drawn(9)).any()


def test_state_of_the_global_generators_is_restored() -> None:
    seed_global_generators(5)
    state = global_state()
    expected = [random.random(), np.random.random(), torch.rand(1).item()]
    set_global_state(state)
    assert [random.random(), np.random.random(), torch.rand(1).item()] == expected


def test_mujoco_writes_no_file_and_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mujoco")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        make_host_env(Task("HalfCheetah-v5"), 2, CPU).reset(seed=0)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_wide_bounds_give_no_warning() -> None:
    class Wide(Dice):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Box(-1e300, 1e300, (5,), np.float64)

    gymnasium.register("layer-test/Wide-v0", Wide)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        make_host_env(Task("layer-test/Wide-v0"), 1, CPU)


class Unspecified(Dice):
    """Shows a dictionary without a name that is text, or has no space at all."""

    def __init__(self, space: str) -> None:
        super().__init__()
        if space == "none":
            del self.observation_space
        else:
            parts = {5: spaces.Box(0, 1, (2,))} if space == "numbers" else {}
            self.observation_space = spaces.Dict(parts)  # type: ignore[arg-type]


gymnasium.register("layer-test/Unspecified-v0", Unspecified)


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ("none", r"cannot be made with .*: it has no `observation_space`: set it in `__init__`"),
        ("numbers", r"a dictionary with the keys \[5\]: it needs at least one, and each must be t"),
        ("empty", r"a dictionary with the keys \[\]: it needs at least one"),
    ],
)
def test_spaces_that_say_too_little(space: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make_host_env(Task("layer-test/Unspecified-v0", {"space": space}), 1, CPU)
