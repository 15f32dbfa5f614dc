"""Host environments: numpy's vector environments, handed out as tensors on `device`.

`HostVectorEnv` adapts any `gymnasium.vector.VectorEnv` that resets in the step in which an episode
ends; `gymnasium_env.py` makes one for any id that Gymnasium knows.
"""

from __future__ import annotations

from collections.abc import Callable
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

from rltransfer.errors import InputError
from rltransfer.tasks.observation import DEFAULT_GROUP, grouped
from rltransfer.tasks.vector_env import VectorEnv

Array = NDArray[Any]
NumpyVectorEnv = gymnasium.vector.VectorEnv[Any, Any, Any]


STEP_HALVES = (("step_async", "step_wait"), ("send", "recv"))
"""Methods by which vector environments begin and end a step."""


class HostVectorEnv(VectorEnv):
    """A numpy vector environment with tensors on `device`.

    Observations are float32, or uint8 where numpy's are bytes or booleans; a `Discrete` one is
    one-hot. Actions are counted from 0 whatever the space's start, and continuous ones are clipped
    to the bounds. On the CPU the tensors share memory with the arrays that the environment hands
    out; on CUDA they go through pinned memory.

    An environment that steps in two halves of its own (`step_async` and `step_wait`, or `send` and
    `recv`) simulates between `send` and `recv`; any other one is stepped in `recv`.

    Args:
        env: The environment; it resets in the step in which an episode ends.
        device: Where the tensors live.
        name: The task's id, for messages.
        frame_stack: See `VectorEnv.frame_stack`.

    Raises:
        InputError: The environment's spaces or its way to reset are not among those supported.
    """

    def __init__(
        self, env: NumpyVectorEnv, device: torch.device, *, name: str, frame_stack: int = 0
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
        self._halves = _halves(env)
        self.overlaps = self._halves is not None
        observed = env.single_observation_space
        self._parts = {
            group: _Part.of(space, name) for group, space in grouped(observed).spaces.items()
        }
        self._is_dict = isinstance(observed, spaces.Dict)
        boxes: dict[str, spaces.Space[Any]] = {
            group: part.space for group, part in self._parts.items()
        }
        self.single_observation_space = (
            spaces.Dict(boxes) if self._is_dict else boxes[DEFAULT_GROUP]
        )
        self._actions = _Actions(env.single_action_space, self.num_envs, name)
        self.single_action_space = self._actions.space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._upload = _Upload(device)
        self._sent: Array | None = None
        self._num_steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins new episodes; a step that was begun is given up.

        Args:
            seed: Seeds environment i with seed + i.
            options: Handed on to the environment.

        Returns:
            The observation (num_envs, ...) and what the environment tells beside it.
        """
        if self._sent is not None and self._halves is not None:
            self._halves[1]()
        self._sent = None
        observation, info = self.env.reset(seed=seed, options=options)
        self._num_steps = 0
        self._upload.wait()
        tensors = self._observation(observation)
        self._upload.mark()
        return tensors, info

    def send(self, actions: Tensor) -> None:
        """Begins a step, without waiting for it.

        Args:
            actions: int64 (num_envs,) or float32 (num_envs, action_dim).

        Raises:
            InputError: The actions are not those of the action space.
            RuntimeError: The last step was not ended.
        """
        if self._sent is not None:
            raise RuntimeError("send() was called twice: recv() must end the step before the next.")
        self._sent = self._actions.to_numpy(actions)
        if self._halves is not None:
            self._halves[0](self._sent)

    def recv(self) -> tuple[Any, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Ends the step that `send` began.

        Returns:
            observation (num_envs, ...), reward (num_envs,), terminated (num_envs,), truncated
            (num_envs,), and info, with "final_obs" (num_envs, ...) if an episode ended.

        Raises:
            InputError: A reward or an observation is not finite.
            RuntimeError: No step was begun.
        """
        if self._sent is None:
            raise RuntimeError("recv() was called without send(): there is no step to end.")
        observation, reward, terminated, truncated, info = self._finish()
        self._num_steps += 1
        self._upload.wait()
        rewards = _shareable(reward, np.float32)
        self._check_finite("a reward", rewards)
        told = {key: value for key, value in info.items() if key not in ("final_obs", "_final_obs")}
        ended = np.logical_or(terminated, truncated)
        if ended.any():
            told["final_obs"] = self._final_observation(info.get("final_obs"), ended)
        step = (
            self._observation(observation),
            self._upload("reward", rewards),
            self._upload("terminated", _shareable(terminated, np.bool_)),
            self._upload("truncated", _shareable(truncated, np.bool_)),
            told,
        )
        self._upload.mark()
        return step

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the environment."""
        self.env.close(**kwargs)

    def _finish(self) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Ends the environment's own step, whatever comes of it."""
        actions, self._sent = self._sent, None
        return self.env.step(actions) if self._halves is None else self._halves[1]()

    def _observation(self, observation: Any) -> Any:
        """Returns an observation as tensors.    (num_envs, ...)"""
        tensors = {}
        for group, values in _groups(observation).items():
            array = self._parts[group].to_numpy(values)
            self._check_finite(self._called("an observation", group), array)
            tensors[group] = self._upload(f"observation {group}", array)
        return self._ungrouped(tensors)

    def _final_observation(self, final: Any, ended: Array) -> Any:
        """Returns the last observations of episodes as tensors.    (num_envs, ...)

        Args:
            final: What the environment tells: one observation for each environment in an array of
                objects, or all of them stacked.
            ended: Whether the episode ended.    (num_envs,)
        """
        if final is None:
            raise InputError(
                f"The environment {self.name!r} ended an episode without info['final_obs']: "
                "one that resets in the same step must tell the episode's last observation."
            )
        rows = np.flatnonzero(ended)
        if isinstance(final, np.ndarray) and final.dtype == object:
            each = [_groups(observation) for observation in final[rows]]
            last = {group: np.stack([one[group] for one in each]) for group in self._parts}
        else:
            last = {group: values[rows] for group, values in _groups(final).items()}
        tensors = {}
        for group, part in self._parts.items():
            array = part.to_numpy(last[group])
            self._check_finite(self._called("a final observation", group), array, rows)
            padded = np.zeros((self.num_envs, *array.shape[1:]), array.dtype)
            padded[rows] = array
            tensors[group] = self._upload(f"final {group}", padded)
        return self._ungrouped(tensors)

    def _ungrouped(self, groups: dict[str, Any]) -> Any:
        """Returns the one group of an environment that names none, else all of them."""
        return groups if self._is_dict else next(iter(groups.values()))

    def _called(self, what: str, group: str) -> str:
        return f"{what} {group!r}" if self._is_dict else what

    def _check_finite(self, what: str, values: Array, rows: Array | None = None) -> None:
        """Refuses values (n, ...) with a NaN or an infinity; `rows` are theirs, if not all."""
        if values.dtype != np.float32 or np.isfinite(values).all():
            return
        flat = values.reshape(len(values), -1)
        row, column = np.argwhere(~np.isfinite(flat))[0]
        when = f"at its step {self._num_steps}" if self._num_steps else "at its reset"
        raise InputError(
            f"The environment {self.name!r} gave {what} that is not finite ({flat[row, column]}) "
            f"in environment {row if rows is None else rows[row]} {when}: "
            "rewards and observations must be finite float32 numbers."
        )


def _halves(env: NumpyVectorEnv) -> tuple[Callable[[Array], None], Callable[[], Any]] | None:
    """Returns how an environment begins and ends a step; None if it only steps as a whole."""
    for begin, end in STEP_HALVES:
        if hasattr(env, begin) and hasattr(env, end):
            return getattr(env, begin), getattr(env, end)
    return None


@dataclass(frozen=True)
class _Part:
    """One observation group: how numpy's values become those of its tensor."""

    space: spaces.Box
    """What the tensor looks like."""
    discrete: spaces.Discrete | None
    """The values' space, where they are numbers of a `Discrete` one."""

    @staticmethod
    def of(space: spaces.Space[Any], name: str) -> _Part:
        """Returns the part of a Box or Discrete space.

        Raises:
            InputError: The space is of another kind.
        """
        if isinstance(space, spaces.Discrete):
            return _Part(spaces.Box(0.0, 1.0, (int(space.n),), np.float32), space)
        if not isinstance(space, spaces.Box):
            raise InputError(
                f"The environment {name!r} observes a {type(space).__name__} space: "
                "supported are Box, Discrete and Dict of these."
            )
        shape = space.shape or (1,)
        is_bytes = space.dtype in (np.uint8, np.bool_)
        dtype = np.uint8 if is_bytes else np.float32
        low, high = _bounds(space, shape, dtype)
        return _Part(spaces.Box(low, high, shape, dtype), None)

    def to_numpy(self, values: Any) -> Array:
        """Returns the values as the tensor is to have them.

        Args:
            values: What the environment gave.    (n, ...)

        Returns:
            float32 or uint8, writable and in C order; the environment's own memory if it fits.
            (n, *space.shape)
        """
        if self.discrete is not None:
            numbers = np.asarray(values) - self.discrete.start
            wrong = (numbers < 0) | (numbers >= self.discrete.n)
            if wrong.any():
                raise InputError(
                    f"An environment showed {np.asarray(values)[wrong][0]}, which its observation "
                    f"space {self.discrete} does not hold: the environment is at fault."
                )
            one_hot = np.zeros((len(numbers), *self.space.shape), np.float32)
            one_hot[np.arange(len(numbers)), numbers] = 1.0
            return one_hot
        array = _shareable(values, None if self.space.dtype == np.uint8 else np.float32)
        if array.dtype == np.bool_:
            array = array.view(np.uint8)
        return array.reshape(len(array), *self.space.shape)


class _Actions:
    """The action space: how actions become the environment's own, and which are refused."""

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
                f"The environment {name!r} has a {type(space).__name__} space of actions of type "
                f"{space.dtype}: supported are Discrete and Box of floating-point numbers."
            )

    def to_numpy(self, actions: Tensor) -> Array:
        """Returns a copy of the actions in the environment's own form.

        Args:
            actions: Actions of `space`.    (num_envs,) or (num_envs, action_dim)

        Raises:
            InputError: The shape or type is another, or an action is out of range or not finite.
        """
        continuous = isinstance(self.space, spaces.Box)
        if tuple(actions.shape) != self.shape or actions.is_floating_point() != continuous:
            kind = "floating-point numbers" if continuous else "integers"
            raise InputError(
                f"The actions for {self.name!r} are {actions.dtype} {list(actions.shape)}: "
                f"they must be {kind} of {list(self.shape)}."
            )
        array = actions.detach().cpu().numpy()
        return self._continuous(array) if continuous else self._discrete(array)

    def _discrete(self, array: Array) -> Array:
        """Returns discrete actions counted from the environment's first.    (num_envs,)"""
        assert isinstance(self.space, spaces.Discrete) and isinstance(self.own, spaces.Discrete)
        count = int(self.space.n)
        actions = array.astype(np.int64)
        # Seen as unsigned, a negative number is a large one.
        if actions.view(np.uint64).max() >= count:
            row = int(np.flatnonzero((actions < 0) | (actions >= count))[0])
            raise InputError(
                f"The action {actions[row]} for environment {row} of {self.name!r} is out of range:"
                f" there are {count} actions, 0 to {count - 1}."
            )
        return actions + int(self.own.start)

    def _continuous(self, array: Array) -> Array:
        """Returns continuous actions within the bounds.    (num_envs, *own.shape)"""
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
    """Makes tensors of arrays: in place on the CPU, through pinned memory on CUDA."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._staged: dict[str, tuple[Tensor, Tensor]] = {}
        self._copied = torch.Event(device) if device.type == "cuda" else None

    def __call__(self, name: str, array: Array) -> Tensor:
        """Returns the array as a tensor, which on CUDA the next one of this name overwrites."""
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
        """Notes that a step's copies are all under way."""
        if self._copied is not None:
            self._copied.record()

    def wait(self) -> None:
        """Waits until the copies that were noted no longer read the pinned memory."""
        if self._copied is not None:
            self._copied.synchronize()


def _shareable(values: Any, dtype: type | None = None) -> Array:
    """Returns the values as an array that a tensor can share; the same memory if that fits."""
    array: Array = np.ascontiguousarray(values, dtype)
    return array if array.flags.writeable else array.copy()


def _bounds(space: spaces.Box, shape: tuple[int, ...], dtype: type) -> tuple[Array, Array]:
    """Returns a box's lowest and highest values, those too large for the type as infinite."""
    with np.errstate(over="ignore"):
        return space.low.reshape(shape).astype(dtype), space.high.reshape(shape).astype(dtype)


def _groups(observation: Any) -> dict[str, Any]:
    """Returns numpy's observation as groups."""
    return observation if isinstance(observation, dict) else {DEFAULT_GROUP: observation}
