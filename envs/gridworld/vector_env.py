"""Gridworlds as a vector environment: its state and its step stay on the device."""

from __future__ import annotations

import functools
import secrets
from typing import Any, get_args

import gymnasium
import torch
import warp as wp
from gymnasium import spaces
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector.utils import batch_space
from torch import Tensor

from rltransfer.envs.minatar.device import current_stream, find_device, quiet
from rltransfer.errors import InputError, unknown
from rltransfer.vector_env import VectorEnv

from .layouts import make_layout
from .rules import NUM_ACTIONS, ObservationName, appearance, make_rules

_BLOCK = 64
"""Environments in a CUDA block: few, so that thousands of them reach every multiprocessor."""


class GridworldVectorEnv(VectorEnv):
    """Many agents in maps of the same walls and goal, each with its own random stream.

    A step is one kernel on torch's current stream; on CUDA it may be captured in a CUDA graph. The
    goal is worth 1 and puts the agent at a random place; an episode is cut short after
    `time_limit` steps, and nothing else ends it.

    The observation is overwritten by the next step: copy it, do not write to it.
    """

    frame_stack = 0

    def __init__(
        self,
        map: str,
        num_envs: int,
        *,
        time_limit: int = 100,
        observation: ObservationName = "vector",
        view: int = 0,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> None:
        """Makes the environments; each has begun an episode.

        Args:
            map: The kind of map, one of `layouts.KINDS`.
            num_envs: The number of environments.
            time_limit: Steps of an episode.
            observation: What a state looks like: see `rules.appearance`.
            view: How far pixels reach around the agent; 0 for the whole map from above.
            device: Where the environments live: "cpu" or "cuda".
            options: The map's own: those of `layouts.two_rooms` or of `layouts.random_maze`.

        Raises:
            InputError: An argument is not one of the permitted values, or the device is not there.
        """
        if num_envs < 1:
            raise InputError(f"num_envs is {num_envs}: there must be at least 1 environment.")
        if not isinstance(time_limit, int) or time_limit < 1:
            raise InputError(f"time_limit is {time_limit!r}: it must be at least 1 step.")
        if observation not in get_args(ObservationName):
            raise unknown("observation", str(observation), get_args(ObservationName))
        if not isinstance(view, int) or view < 0:
            raise InputError(f"view is {view!r}: it must be a whole number of at least 0.")
        self.rules = make_rules(make_layout(map, options))
        self.time_limit = time_limit
        self.num_envs = num_envs
        self.device = find_device(device)
        # On a CPU a rollout keeps only those last observations that count, which it looks for.
        self.capturable = self.device.type == "cuda"
        shown = appearance(self.rules, observation, view)
        self.single_observation_space = spaces.Box(0, 1, shown.shape[1:], shown.dtype.type)
        self.single_action_space = spaces.Discrete(NUM_ACTIONS)
        with quiet():
            self._allocate(torch.from_numpy(shown))
            self._prepare()
            self.reset(seed=secrets.randbits(63))

    @functools.cached_property
    def observation_space(self) -> gymnasium.Space[Any]:  # type: ignore[override]
        """The observation space of all environments; made when asked for, since it is large."""
        return batch_space(self.single_observation_space, self.num_envs)

    @functools.cached_property
    def action_space(self) -> gymnasium.Space[Any]:  # type: ignore[override]
        """The action space of all environments."""
        return batch_space(self.single_action_space, self.num_envs)

    def _allocate(self, shown: Tensor) -> None:
        """Allocates every tensor: what an environment is, what it is told, what it answers.

        Args:
            shown: What each state looks like.    (num_states, *shape)
        """
        n = self.num_envs
        zeros = functools.partial(torch.zeros, device=self.device)
        self._appearance = shown.to(self.device)
        self._state = {
            "states": zeros(n, dtype=torch.int32),
            "times": zeros(n, dtype=torch.int32),
            "counters": zeros(n, dtype=torch.int64),
            "observation": zeros(n, *shown.shape[1:], dtype=shown.dtype),
        }
        self._actions = zeros(n, dtype=torch.int64)
        self._mask = zeros(n, dtype=torch.bool)
        self._final_observation = torch.zeros_like(self._state["observation"])
        self._reward = zeros(n, dtype=torch.float32)
        self._terminated = zeros(n, dtype=torch.bool)
        self._truncated = zeros(n, dtype=torch.bool)

    def _prepare(self) -> None:
        """Compiles the kernels and records what each step launches."""
        from .kernels import reset, step

        def in_words(tensor: Tensor) -> Any:
            return wp.from_torch(tensor.view(len(tensor), -1).view(torch.int32))

        warp_device = wp.device_from_torch(self.device)
        constants = [
            wp.from_torch(torch.from_numpy(array).to(self.device))
            for array in (self.rules.destination, self.rules.starts)
        ]
        shown = in_words(self._appearance)
        states = [
            wp.from_torch(self._state["states"]),
            wp.from_torch(self._state["times"]),
            wp.from_torch(self._state["counters"], dtype=wp.uint64),
            in_words(self._state["observation"]),
        ]
        answers = [in_words(self._final_observation)]
        answers += [wp.from_torch(tensor) for tensor in (self._reward, self._truncated)]
        given = [wp.from_torch(self._actions), self.time_limit]
        self._step = wp.launch(
            step,
            dim=self.num_envs,
            inputs=[*given, *constants, self.rules.goal, shown, *states, *answers],
            device=warp_device,
            block_dim=_BLOCK,
            record_cmd=True,
        )
        # The recorded launch holds addresses: what they lead to must stay.
        self._kept = constants
        self._reset = functools.partial(wp.launch, reset, device=warp_device, block_dim=_BLOCK)
        self._reset_inputs = [wp.from_torch(self._mask), constants[1], shown, *states]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Begins new episodes.

        Args:
            seed: Where the random streams begin; without one they go on.
            options: `reset_mask`, bool `[num_envs]`, says which environments; else all do.

        Returns:
            The observation `[num_envs, *shape]` and an empty dictionary.

        Raises:
            InputError: The seed is negative, or there is no such option.
        """
        if seed is not None and seed < 0:
            raise InputError(f"The seed is {seed}: it must be 0 or more.")
        self._set_mask(options or {})
        mask, *rest = self._reset_inputs
        self._reset(
            dim=self.num_envs,
            inputs=[mask, seed is not None, (seed or 0) % (1 << 64), *rest],
            stream=current_stream(self.device),
        )
        return self._state["observation"], {}

    def _set_mask(self, options: dict[str, Any]) -> None:
        """Sets which environments begin a new episode."""
        for option in options:
            if option != "reset_mask":
                raise unknown("option of reset", option, ("reset_mask",))
        if "reset_mask" not in options:
            self._mask.fill_(True)
            return
        mask = torch.as_tensor(options["reset_mask"])
        if mask.dtype != torch.bool or mask.shape != self._mask.shape:
            raise InputError(f"reset_mask must be a bool tensor of shape ({self.num_envs},).")
        self._mask.copy_(mask)

    def send(self, actions: Tensor) -> None:
        """Steps every environment.

        Args:
            actions: The actions, an integer type `[num_envs]`; one that there is not does nothing.

        Raises:
            InputError: There is not one action for each environment.
            ClosedEnvironmentError: The environments have been closed.
        """
        if self.closed:
            raise ClosedEnvironmentError("The environments are closed: make new ones.")
        if actions.shape != self._actions.shape:
            raise InputError(
                f"The actions have shape {tuple(actions.shape)}: it must be ({self.num_envs},)."
            )
        self._actions.copy_(actions)
        self._step.launch(current_stream(self.device))

    def recv(self) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Returns what the step that `send` took gave.

        Returns:
            The observation `[num_envs, *shape]`; the reward, float32 `[num_envs]`; terminated and
            truncated, bool `[num_envs]`, of which the former is never true; and `final_obs`, of
            the observation's shape.
        """
        info = {"final_obs": self._final_observation}
        return self._state["observation"], self._reward, self._terminated, self._truncated, info

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of the whole state, random streams included."""
        return {name: tensor.clone() for name, tensor in self._state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes back to a state that `state_dict` returned.

        Raises:
            InputError: The state is one of other observations or of another number of environments.
        """
        own = {name: tensor.shape for name, tensor in self._state.items()}
        if {name: tensor.shape for name, tensor in state.items()} != own:
            raise InputError(
                "The state is of other observations or of another number of environments."
            )
        for name, tensor in state.items():
            self._state[name].copy_(tensor)
