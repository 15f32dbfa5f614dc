"""The layer around each Gymnasium environment.

It casts and checks what the environment returns, copies the last observation of an episode, drops
`info`, and seeds what the environment may draw from. An error does not leave the layer as an
exception, which may not survive the way out of another process: `step` and `reset` return zeros,
and `info` contains the `Failure`.
"""

from __future__ import annotations

import copy
import inspect
import os
import signal
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector.utils import create_empty_array
from numpy.typing import NDArray

from rltransfer.errors import InputError
from rltransfer.machine.generators import seed_global_generators
from rltransfer.tasks import mujoco_messages
from rltransfer.tasks.episode_replay import Episode, EpisodeReplay
from rltransfer.tasks.mujoco_messages import MESSAGE

FAILURE = "rltransfer_failure"
"""The key of a `Failure` in `info`."""

LONGEST_TEXT = 1_000
"""Characters of an environment's message that are shown."""

_FLAGS = (bool, np.bool_)


@dataclass(frozen=True)
class Failure:
    """What an environment did wrong."""

    did: str
    """The predicate of a sentence about the environment, e.g. "raised ValueError"."""
    remedy: str
    """What would be right."""
    trace: str = ""
    """The traceback of an error that the environment raised."""


class _WrongValueError(Exception):
    """The environment returned a wrong value; the arguments are those of a `Failure`."""


@dataclass(frozen=True)
class EnvMaker:
    """Makes one environment in its layer, in this process or in a worker."""

    spec: EnvSpec
    kwargs: Mapping[str, Any]
    parent: int
    """The process that workers belong to."""

    def __call__(self) -> gymnasium.Env[Any, Any]:
        """The environment.

        Raises:
            Exception: Whatever the environment raises when it is made.
        """
        in_worker = os.getpid() != self.parent
        if in_worker:
            # A terminal sends them to every process of a group; the parent ends the workers.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            torch.set_num_threads(1)  # there are as many workers as environments
        if self.spec.entry_point is not None and not callable(self.spec.entry_point):
            load_env_creator(self.spec.entry_point)  # so that MuJoCo is loaded if it is needed
        mujoco_messages.collect()
        # The layer checks more, and each time.
        kwargs = {"disable_env_checker": True, **self.kwargs}
        spec = copy.copy(self.spec)
        spec.order_enforce = False  # the engine keeps the order
        made = gymnasium.make(spec, **kwargs)
        mujoco_messages.collect()  # where only the environment's constructor loads MuJoCo
        return EnvLayer(made, seeds_process=in_worker)


class EnvLayer(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose observations have the type and shape of its space.

    The next step may overwrite an observation, unless it is the last one of its episode.
    `info` is empty, except for a `Failure` under the key `FAILURE` and a message of MuJoCo.

    Args:
        env: The environment.
        seeds_process: Whether seeds are also those of Python's, NumPy's and torch's global
            generators, as is right for the only environment of a process.

    Raises:
        InputError: `reset` does not take the arguments of Gymnasium's.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], seeds_process: bool = False) -> None:
        super().__init__(env)
        for name in ("observation_space", "action_space"):
            if not isinstance(getattr(env, name, None), spaces.Space):
                raise InputError(
                    f"it has no `{name}`: set it in `__init__` to a space of Gymnasium"
                )
        self._seeds_process = seeds_process
        # In the training's own process, KeyboardInterrupt may be the user's.
        self._raised = BaseException if seeds_process else (Exception, SystemExit)
        self._read = _reader(env.observation_space)
        self._replay = EpisodeReplay(env)
        self._record = self._replay.record
        self._last: Any = None
        # What `play_again` plays: a vector environment sets attributes of each environment, and
        # calls methods of all with the same arguments.
        self.again: tuple[Episode, float] | None = None
        try:
            inspect.signature(env.unwrapped.reset).bind(seed=0, options=None)
        except TypeError as error:
            raise InputError(
                f"its `reset` does not take Gymnasium's arguments ({error}): define it as "
                "`reset(self, *, seed=None, options=None)`"
            ) from error
        except ValueError:
            pass  # a C function without a signature

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins an episode; a seed is also that of the action and observation spaces."""
        try:
            self._replay.begin(seed)
            if seed is not None:
                self._seed(seed)
            observation, _ = self.env.reset(seed=seed, options=options)
            self._last = self._read(observation)
            return self._last, _messages()
        except self._raised as error:
            return self._empty(), {FAILURE: _failure(error)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps the environment."""
        try:
            self._record(action)
            observation, reward, terminated, truncated, _ = self.env.step(action)
            if type(reward) is not float:
                reward = _number(reward)
            if type(terminated) not in _FLAGS or type(truncated) not in _FLAGS:
                terminated, truncated = _flag(terminated), _flag(truncated)
            observation = self._read(observation)
            if terminated or truncated:
                observation = self._last = copy.deepcopy(observation)
                # What is pending leaves with the reset that follows: only its `info` is kept.
                return observation, reward, bool(terminated), bool(truncated), {}
            self._last = observation
            return observation, reward, False, False, _messages()
        except self._raised as error:
            return self._empty(), 0.0, False, False, {FAILURE: _failure(error)}

    def close(self) -> None:
        """Closes the environment; its errors are warnings, as nothing depends on it any more."""
        try:
            super().close()
        except self._raised as error:
            failure = _failure(error)
            warnings.warn(f"While it closed, an environment {failure.did}.", stacklevel=2)

    def episode(self) -> Episode:
        """The episode under way, for `play_again`."""
        return self._replay.episode(self._last)

    def play_again(self) -> bool:
        """Plays the episode of `again`, and returns whether it is the same."""
        assert self.again is not None
        (episode, seconds), self.again = self.again, None
        return self._replay.play(episode, self, seconds)

    def _seed(self, seed: int) -> None:
        # Each generator has a seed of its own: from the same one, the environment's generator and
        # those of its spaces would draw the same numbers.
        numbers = iter(np.random.SeedSequence(seed).generate_state(16).tolist())
        env: gymnasium.Env[Any, Any] = self.env
        seeded: set[int] = set()
        while True:
            for space in (env.action_space, env.observation_space):
                if id(space) not in seeded:
                    seeded.add(id(space))
                    space.seed(next(numbers, seed))
            if not isinstance(env, gymnasium.Wrapper):
                break
            env = env.env
        if self._seeds_process:
            seed_global_generators(seed)

    def _empty(self) -> Any:
        empty = create_empty_array(self.env.observation_space, n=1)
        if isinstance(empty, dict):
            return {name: values[0] for name, values in empty.items()}
        assert isinstance(empty, np.ndarray | tuple)
        return empty[0]


def _messages() -> dict[str, Any]:
    """The `info` with what MuJoCo has written, if anything."""
    return {MESSAGE: mujoco_messages.pending.pop()} if mujoco_messages.pending else {}


def _failure(error: BaseException) -> Failure:
    if isinstance(error, _WrongValueError):
        return Failure(*error.args)
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{os.path.basename(frames[-1].filename)}, line {frames[-1].lineno}"
    text = error_text(error)
    reason = f"{text}; {place}" if text else place
    return Failure(
        f"raised {type(error).__name__} ({reason})",
        "correct the environment",
        "".join(traceback.format_exception(error)),
    )


def error_text(error: BaseException) -> str:
    """An error's message in one line, without its full stop; empty if it cannot tell it."""
    try:
        text = " ".join(str(error).split()).rstrip(".")
    except Exception:
        return ""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."


def _reader(space: spaces.Space[Any]) -> Callable[[Any], Any]:
    """A function that casts an observation to the type and shape of a space.

    It raises `_WrongValueError` for an observation that does not fit.
    """
    if isinstance(space, spaces.Dict):
        readers = {name: _reader(part) for name, part in space.spaces.items()}

        def read_groups(value: Any) -> Any:
            try:
                return {name: read(value[name]) for name, read in readers.items()}
            except (KeyError, IndexError, TypeError) as error:
                found = list(value) if isinstance(value, Mapping) else type(value).__name__
                raise _WrongValueError(
                    f"returned an observation with {found}",
                    f"its observation space is a dictionary with {list(readers)}",
                ) from error

        return read_groups
    if isinstance(space, spaces.Discrete):
        return lambda value: _of_discrete(value, space)
    if not isinstance(space, spaces.Box):
        return lambda value: value  # refused by `HostVectorEnv`
    dtype, shape = space.dtype, space.shape

    def read_box(value: Any) -> Any:
        if type(value) is np.ndarray and value.dtype == dtype and value.shape == shape:
            return value
        return _of_box(value, space)

    return read_box


def _of_discrete(value: Any, space: spaces.Discrete) -> np.int64:
    number = _number(value, "an observation")
    if not (number.is_integer() and space.start <= number < space.start + space.n):
        raise _WrongValueError(
            f"returned the observation {value!r}", f"its observation space is {space}"
        )
    return np.int64(number)


def _of_box(value: Any, space: spaces.Box) -> NDArray[Any]:
    """An observation in the type of its space, e.g. from a list or from wider numbers."""
    declared = f"its observation space is {space.dtype}{list(space.shape)}"
    try:
        given = np.asarray(value)
        with np.errstate(over="ignore", invalid="ignore"):
            array = given.astype(space.dtype)
    except (TypeError, ValueError) as error:
        what = f"returned an observation of the type {type(value).__name__}"
        raise _WrongValueError(what, declared) from error
    if array.shape != space.shape:
        raise _WrongValueError(
            f"returned an observation of the shape {list(array.shape)}", declared
        )
    if not np.issubdtype(space.dtype, np.floating) and not np.array_equal(array, given):
        # A cast would wrap 256 around to 0, or cut 0.5 down to 0.
        wrong = given[array != given].flat[0]
        raise _WrongValueError(f"returned an observation with the value {wrong}", declared)
    return array


def _number(value: Any, what: str = "a reward") -> float:
    """A number, also from an array of one."""
    try:
        array = np.asarray(value)
        if array.size == 1 and array.dtype.kind in "biuf":
            return float(array.item())
    except (TypeError, ValueError):
        pass
    shown = " ".join(repr(value).split())[:60]
    raise _WrongValueError(
        f"returned {what} that is not a number ({shown})", f"{what} must be one number"
    )


def _flag(value: Any) -> bool:
    """A truth value, also from an array of one."""
    array = np.asarray(value)
    if array.size == 1 and array.dtype.kind in "biuf":
        return bool(array.item())
    raise _WrongValueError(
        f"returned an end of an episode that is not true or false ({value!r})",
        "`terminated` and `truncated` must be one truth value each",
    )
