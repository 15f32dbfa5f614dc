"""Host environments: NumPy vector environments with tensors on `device`.

`HostVectorEnv` adapts any `gymnasium.vector.VectorEnv` that resets in the same step;
`gymnasium_env.py` makes one for any Gymnasium id.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from rltransfer.errors import EnvironmentFailureError, InputError
from rltransfer.tasks import mujoco_messages
from rltransfer.tasks.async_envs import AsyncEnvs, LostEnvironmentError
from rltransfer.tasks.env_layer import FAILURE, Failure
from rltransfer.tasks.episode_replay import SECONDS, pack, unpack
from rltransfer.tasks.image_layout import ImageBox, image_layout_of
from rltransfer.tasks.mujoco_messages import MESSAGE
from rltransfer.tasks.observation import DEFAULT_GROUP, as_groups, grouped
from rltransfer.tasks.sync_envs import SyncEnvs
from rltransfer.tasks.vector_env import LostEpisodeError, VectorEnv

Array = NDArray[Any]
NumpyVectorEnv = gymnasium.vector.VectorEnv[Any, Any, Any]


ASYNC_STEP_METHODS = (("step_async", "step_wait"), ("send", "recv"))
"""Pairs of methods by which vector environments begin and end a step."""


class HostVectorEnv(VectorEnv):
    """A NumPy vector environment with tensors on `device`.

    Observations are float32, or uint8 for bytes and booleans; `Discrete` ones are one-hot. Discrete
    actions count from 0 whatever the space's start; continuous ones are clipped to the bounds. On
    the CPU the tensors share memory with the environment's arrays; on CUDA they are copied through
    pinned memory.

    An environment with `step_async` and `step_wait`, or `send` and `recv`, simulates between `send`
    and `recv`; any other one is stepped in `recv`.

    Args:
        env: The environment; it resets in the step in which an episode ends.
        device: The tensors' device.
        name: The task's id, for messages.
        frame_stack: See `VectorEnv.frame_stack`.
        image_layout: How images are arranged, one of `LAYOUTS`; None to recognise it.

    Raises:
        InputError: A space of the environment or its autoreset mode is not supported.
    """

    on_host = True

    def __init__(
        self,
        env: NumpyVectorEnv,
        device: torch.device,
        *,
        name: str,
        frame_stack: int = 0,
        image_layout: str | None = None,
    ) -> None:
        self.env = env
        if env.metadata.get("autoreset_mode") is not AutoresetMode.SAME_STEP:
            raise InputError(
                f"The environment {name!r} resets in the step after an episode's end: "
                "it must reset in the same step (AutoresetMode.SAME_STEP)."
            )
        self.name = name
        self.device = device
        self.num_envs = env.num_envs
        self.frame_stack = frame_stack
        self.spec = env.spec
        self._async_step = _async_step(env)
        self.overlaps = self._async_step is not None
        observed = grouped(env.single_observation_space).spaces
        if not observed or not all(isinstance(group, str) for group in observed):
            raise InputError(
                f"The environment {name!r} observes a dictionary with the keys {list(observed)}: "
                "it needs at least one, and each must be text."
            )
        self._groups = {
            group: _Group.of(space, name, image_layout) for group, space in observed.items()
        }
        self._is_dict = isinstance(env.single_observation_space, spaces.Dict)
        boxes = spaces.Dict({name: group.space for name, group in self._groups.items()})
        self.single_observation_space = boxes if self._is_dict else boxes[DEFAULT_GROUP]
        self._actions = _Actions(env.single_action_space, self.num_envs, name)
        self.single_action_space = self._actions.space
        self.host_action_space = env.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._upload = _Upload(device)
        self._sent: Array | None = None
        self._num_steps = 0
        self._resets = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins new episodes; an unfinished step is discarded.

        Args:
            seed: Seeds environment i with seed + i.
            options: Passed to the environment.

        Returns:
            The observation (num_envs, ...) and the environment's info.
        """
        if self._sent is not None and self._async_step is not None:
            self._async_step[1]()
        self._sent = None
        self._resets = True
        with self._lost_is_named():
            observation, info = self.env.reset(seed=seed, options=options)
        self._read_info(info)
        self._upload.wait()
        tensors = self._observation(observation)
        self._upload.mark()
        return tensors, info

    def send(self, actions: Tensor) -> None:
        """Begins a step, without waiting for it.

        Args:
            actions: int64 (num_envs,) or float32 (num_envs, action_dim).

        Raises:
            InputError: The actions do not fit the action space.
            RuntimeError: The last step has not been ended.
        """
        if self._sent is not None:
            raise RuntimeError("send() was called twice: recv() must end the step before the next.")
        self._sent = self._actions.to_numpy(actions)
        if self._async_step is not None:
            with self._lost_is_named():
                self._async_step[0](self._sent)

    def recv(self) -> tuple[Any, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Ends the step that `send` began.

        Returns:
            observation (num_envs, ...), reward (num_envs,), terminated (num_envs,), truncated
            (num_envs,), and info, with "final_obs" (num_envs, ...) if an episode ended.

        Raises:
            EnvironmentFailureError: An environment raised an error, did not answer, or returned
                what its spaces do not allow.
            RuntimeError: No step has begun.
        """
        if self._sent is None:
            raise RuntimeError("recv() was called without send(): there is no step to end.")
        actions, self._sent = self._sent, None
        self._num_steps += 1
        self._resets = False
        try:
            observation, reward, terminated, truncated, info = (
                self.env.step(actions) if self._async_step is None else self._async_step[1]()
            )
        except LostEnvironmentError as lost:
            raise self._failed(lost.row, lost.failure) from lost
        if FAILURE in info or MESSAGE in info:
            self._read_info(info)
        self._upload.wait()
        rewards = _shareable(reward, np.float32)
        self._check_finite("a reward", rewards)
        rest = {key: value for key, value in info.items() if key not in ("final_obs", "_final_obs")}
        ended = np.logical_or(terminated, truncated)
        if ended.any():
            rest["final_obs"] = self._final_observation(info.get("final_obs"), ended)
        step = (
            self._observation(observation),
            self._upload("reward", rewards),
            self._upload("terminated", _shareable(terminated, np.bool_)),
            self._upload("truncated", _shareable(truncated, np.bool_)),
            rest,
        )
        self._upload.mark()
        return step

    def state_dict(self) -> dict[str, Tensor] | None:
        """The episodes under way, to be played again; None for vector environments of others."""
        if not isinstance(self.env, SyncEnvs | AsyncEnvs):
            return None
        with self._lost_is_named():
            return pack(self.env.call("episode"))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Plays the episodes of a state again.

        Raises:
            LostEpisodeError: An environment shows something else, or it takes too long.
        """
        episodes = unpack(state)
        if len(episodes) != self.num_envs:
            raise ValueError(f"{len(episodes)} episodes of {self.num_envs} environments")
        assert isinstance(self.env, SyncEnvs | AsyncEnvs)
        # Those in processes of their own play at once.
        seconds = SECONDS / (1 if isinstance(self.env, AsyncEnvs) else self.num_envs)
        with self._lost_is_named():
            self.env.set_attr("again", [(episode, seconds) for episode in episodes])
            same = self.env.call("play_again")
        if not all(same):
            raise LostEpisodeError(
                f"The episodes of {self.name!r} under way cannot be played again: the environment "
                "does not depend on its seed and actions alone, or takes too long"
            )

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the environment."""
        self.env.close(**kwargs)

    def _observation(self, observation: Any) -> Any:
        tensors = {}
        for group, values in as_groups(observation).items():
            array = self._groups[group].to_numpy(values)
            self._check_finite(self._label("an observation", group), array)
            tensors[group] = self._upload(f"observation {group}", array)
        return self._ungrouped(tensors)

    def _final_observation(self, final: Any, ended: Array) -> Any:
        """The last observations of episodes as tensors.    (num_envs, ...)

        Args:
            final: The environment's `final_obs`: an object array with one observation for each
                environment, or all observations stacked.
            ended: Whether the episode ended.    (num_envs,)
        """
        if final is None:
            raise InputError(
                f"The environment {self.name!r} ended an episode without info['final_obs']: an "
                "environment that resets in the same step must return the last observation there."
            )
        rows = np.flatnonzero(ended)
        if isinstance(final, np.ndarray) and final.dtype == object:
            each = [as_groups(observation) for observation in final[rows]]
            last = {group: np.stack([one[group] for one in each]) for group in self._groups}
        else:
            last = {group: values[rows] for group, values in as_groups(final).items()}
        tensors = {}
        for name, group in self._groups.items():
            array = group.to_numpy(last[name])
            self._check_finite(self._label("a final observation", name), array, rows)
            padded = np.zeros((self.num_envs, *array.shape[1:]), array.dtype)
            padded[rows] = array
            tensors[name] = self._upload(f"final {name}", padded)
        return self._ungrouped(tensors)

    def _ungrouped(self, groups: dict[str, Any]) -> Any:
        return groups if self._is_dict else next(iter(groups.values()))

    def _label(self, what: str, group: str) -> str:
        return f"{what} {group!r}" if self._is_dict else what

    def _check_finite(self, what: str, values: Array, rows: Array | None = None) -> None:
        """Refuses values (n, ...) that are not finite; `rows` are the environments, if not all."""
        if values.dtype != np.float32 or np.isfinite(values).all():
            return
        flat = values.reshape(len(values), -1)
        row, column = np.argwhere(~np.isfinite(flat))[0]
        did = f"returned {what} that is not finite ({flat[row, column]})"
        remedy = "rewards and observations must be finite float32 numbers"
        raise self._failed(row if rows is None else rows[row], Failure(did, remedy))

    def _read_info(self, info: dict[str, Any]) -> None:
        for message in filter(None, info.get(MESSAGE, ())):
            mujoco_messages.report(self.name, message)
        for row, failure in enumerate(info.get(FAILURE, ())):
            if failure is not None:
                raise self._failed(row, failure)

    @contextlib.contextmanager
    def _lost_is_named(self) -> Iterator[None]:
        """The error of an environment whose process ended or hangs names task and step."""
        try:
            yield
        except LostEnvironmentError as lost:
            raise self._failed(lost.row, lost.failure) from lost

    def _failed(self, row: int, failure: Failure) -> EnvironmentFailureError:
        when = "at its reset" if self._resets else f"at step {self._num_steps}"
        return EnvironmentFailureError(
            f"The environment {self.name!r} {failure.did} in environment {self.first_index + row} "
            f"{when}: {failure.remedy}.",
            failure.trace,
        )


def _async_step(env: NumpyVectorEnv) -> tuple[Callable[[Array], None], Callable[[], Any]] | None:
    for begin, end in ASYNC_STEP_METHODS:
        if hasattr(env, begin) and hasattr(env, end):
            return getattr(env, begin), getattr(env, end)
    return None


@dataclass(frozen=True)
class _Group:
    """One observation group: converts NumPy's values to those of the tensor."""

    space: spaces.Box
    """The tensor's space."""
    discrete: spaces.Discrete | None
    """The environment's space if it is `Discrete`."""

    @staticmethod
    def of(space: spaces.Space[Any], name: str, image_layout: str | None = None) -> _Group:
        if isinstance(space, spaces.Discrete):
            return _Group(spaces.Box(0.0, 1.0, (int(space.n),), np.float32), space)
        if not isinstance(space, spaces.Box):
            raise InputError(
                f"The environment {name!r} observes a {type(space).__name__} space: "
                "supported are Box, Discrete and Dict of these."
            )
        if 0 in space.shape:
            raise InputError(
                f"The environment {name!r} observes a Box of the shape {list(space.shape)}, which "
                "holds no number: observe at least one, e.g. a constant."
            )
        is_bytes = space.dtype in (np.uint8, np.bool_)
        dtype = np.uint8 if is_bytes else np.float32
        layout = image_layout_of(space, image_layout, name)
        if layout is not None:
            return _Group(ImageBox(*_bounds(space, space.shape, dtype), dtype, layout), None)
        shape = (-1,) if image_layout == "none" else space.shape or (1,)
        low, high = _bounds(space, shape, dtype)
        return _Group(spaces.Box(low, high, low.shape, dtype), None)

    def to_numpy(self, values: Any) -> Array:
        """The values in the tensor's form.    (n, *space.shape)

        Args:
            values: The environment's values.    (n, ...)

        Returns:
            float32 or uint8, writable; the environment's own memory if it fits.
        """
        if self.discrete is not None:
            numbers = np.asarray(values) - self.discrete.start
            wrong = (numbers < 0) | (numbers >= self.discrete.n)
            if wrong.any():
                raise InputError(
                    f"An environment returned the observation {np.asarray(values)[wrong][0]}, "
                    f"outside its observation space {self.discrete}: correct the environment."
                )
            one_hot = np.zeros((len(numbers), *self.space.shape), np.float32)
            one_hot[np.arange(len(numbers)), numbers] = 1.0
            return one_hot
        array = _shareable(values, None if self.space.dtype == np.uint8 else np.float32)
        if array.dtype == np.bool_:
            array = array.view(np.uint8)
        if isinstance(self.space, ImageBox):
            layout = self.space.layout
            return layout.turned(array.reshape(len(array), *layout.shown))
        return array.reshape(len(array), *self.space.shape)


class _Actions:
    """The action space: checks actions and converts them to the environment's form."""

    def __init__(self, space: spaces.Space[Any], num_envs: int, name: str) -> None:
        self.own = space
        self.name = name
        self.space: spaces.Discrete | spaces.Box
        if isinstance(space, spaces.Discrete):
            self.space = spaces.Discrete(int(space.n))
            self.shape: tuple[int, ...] = (num_envs,)
        elif isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
            low, high = _bounds(space, (-1,), np.float32)
            self.space = spaces.Box(low, high, low.shape, np.float32)
            self.shape = (num_envs, *low.shape)
        else:
            raise InputError(
                f"The environment {name!r} has a {type(space).__name__} action space of type "
                f"{space.dtype}: supported are Discrete and Box of floating-point numbers."
            )

    def to_numpy(self, actions: Tensor) -> Array:
        """A copy of the actions in the environment's form.

        Args:
            actions: Actions of `space`.    (num_envs,) or (num_envs, action_dim)

        Raises:
            InputError: The shape or type differs, or an action is out of range or not finite.
        """
        continuous = isinstance(self.space, spaces.Box)
        if tuple(actions.shape) != self.shape or actions.is_floating_point() != continuous:
            kind = "floating-point numbers" if continuous else "integers"
            raise InputError(
                f"The actions for {self.name!r} are {actions.dtype} {list(actions.shape)}: "
                f"they must be {kind} of shape {list(self.shape)}."
            )
        array = actions.detach().cpu().numpy()
        return self._continuous(array) if continuous else self._discrete(array)

    def _discrete(self, array: Array) -> Array:
        assert isinstance(self.space, spaces.Discrete) and isinstance(self.own, spaces.Discrete)
        count = int(self.space.n)
        actions = array.astype(np.int64)
        # Viewed as unsigned, a negative number is a large one.
        if actions.view(np.uint64).max() >= count:
            row = int(np.flatnonzero((actions < 0) | (actions >= count))[0])
            raise InputError(
                f"The action {actions[row]} for environment {row} of {self.name!r} is out of range:"
                f" there are {count} actions, 0 to {count - 1}."
            )
        return actions + int(self.own.start)

    def _continuous(self, array: Array) -> Array:
        assert isinstance(self.space, spaces.Box) and isinstance(self.own, spaces.Box)
        if not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise InputError(
                f"The action {array[row].tolist()} for environment {row} of {self.name!r} "
                "is not finite: the policy has diverged."
            )
        clipped = np.clip(array, self.space.low, self.space.high)
        return clipped.reshape(len(clipped), *self.own.shape).astype(self.own.dtype, copy=False)


class _Upload:
    """Converts arrays to tensors: in place on the CPU, through pinned memory on CUDA."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._staged: dict[str, tuple[Tensor, Tensor]] = {}
        self._copied = torch.Event(device) if device.type == "cuda" else None

    def __call__(self, name: str, array: Array) -> Tensor:
        """The array as a tensor; on CUDA the next call with this name overwrites it."""
        tensor = torch.from_numpy(array)
        if self._copied is None:
            return tensor.to(self.device)
        if name not in self._staged:
            pinned = torch.empty_like(tensor, pin_memory=True)
            self._staged[name] = pinned, torch.empty_like(tensor, device=self.device)
        pinned, target = self._staged[name]
        pinned.copy_(tensor)
        return target.copy_(pinned, non_blocking=True)

    def mark(self) -> None:
        """Records that all copies of a step have been queued."""
        if self._copied is not None:
            self._copied.record()

    def wait(self) -> None:
        """Waits until the recorded copies no longer read the pinned memory."""
        if self._copied is not None:
            self._copied.synchronize()


def _shareable(values: Any, dtype: type | None = None) -> Array:
    """The values as an array whose memory a tensor can share; the same memory if possible."""
    array: Array = np.ascontiguousarray(values, dtype)
    return array if array.flags.writeable else array.copy()


def _bounds(space: spaces.Box, shape: tuple[int, ...], dtype: type) -> tuple[Array, Array]:
    """A box's bounds; those too large for the type become infinite."""
    with np.errstate(over="ignore"):
        return space.low.reshape(shape).astype(dtype), space.high.reshape(shape).astype(dtype)
