"""Gridworlds as a vector environment: its state and its step stay on the device."""

from __future__ import annotations

import secrets
from typing import Any, get_args

import torch
import warp as wp
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError, unknown

# From the folder above, not by its installed name: so the type checker sees the base class.
from ..warp_device import current_stream, quiet  # noqa: TID252
from ..warp_env import BLOCK, WarpVectorEnv  # noqa: TID252
from .layouts import make_layout
from .rules import NUM_ACTIONS, ObservationName, appearance, make_rules


class GridworldVectorEnv(WarpVectorEnv):
    """Many agents in maps of the same walls and goal, each with its own random stream.

    A step is one kernel on torch's current stream; on CUDA it may be captured in a CUDA graph. The
    goal is worth 1 and puts the agent at a random place; an episode is cut short after
    `time_limit` steps, and nothing else ends it.
    """

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
        super().__init__(num_envs, device)
        if not isinstance(time_limit, int) or time_limit < 1:
            raise InputError(f"time_limit is {time_limit!r}: it must be at least 1 step.")
        if observation not in get_args(ObservationName):
            raise unknown("observation", str(observation), get_args(ObservationName))
        if not isinstance(view, int) or view < 0:
            raise InputError(f"view is {view!r}: it must be a whole number of at least 0.")
        self.rules = make_rules(make_layout(map, options))
        self.time_limit = time_limit
        # On a CPU a rollout keeps only those last observations that count, which it looks for.
        self.capturable = self.device.type == "cuda"
        shown = appearance(self.rules, observation, view)
        self.single_observation_space = spaces.Box(0, 1, shown.shape[1:], shown.dtype.type)
        self.single_action_space = spaces.Discrete(NUM_ACTIONS)
        with quiet():
            self._prepare(torch.from_numpy(shown).to(self.device))
            self.reset(seed=secrets.randbits(63))

    def _prepare(self, shown: Tensor) -> None:
        """Allocates every tensor, compiles the kernels and records what each step launches.

        Args:
            shown: What each state looks like.    (num_states, *shape)
        """

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(self.num_envs, *shape, dtype=dtype, device=self.device)

        self._allocate(
            zeros(*shown.shape[1:], dtype=shown.dtype),
            states=zeros(dtype=torch.int32),
            times=zeros(dtype=torch.int32),
            counters=zeros(dtype=torch.int64),
        )
        from .kernels import reset, step

        def as_values(tensor: Tensor) -> Any:
            return wp.from_torch(tensor.view(len(tensor), -1).view(torch.int32))

        self._warp_device = wp.device_from_torch(self.device)
        self._reset = reset
        constants = [
            wp.from_torch(torch.from_numpy(array).to(self.device))
            for array in (self.rules.destination, self.rules.starts)
        ]
        appearances = as_values(shown)
        states = [
            wp.from_torch(self._state["states"]),
            wp.from_torch(self._state["times"]),
            wp.from_torch(self._state["counters"], dtype=wp.uint64),
            as_values(self._state["observation"]),
        ]
        answers = [as_values(self._final_observation)]
        answers += [wp.from_torch(tensor) for tensor in (self._reward, self._truncated)]
        given = [wp.from_torch(self._actions), self.time_limit]
        self._step = wp.launch(
            step,
            dim=self.num_envs,
            inputs=[*given, *constants, self.rules.goal, appearances, *states, *answers],
            device=self._warp_device,
            block_dim=BLOCK,
            record_cmd=True,
        )
        # The recorded launch holds addresses: what they lead to must stay.
        self._kept = shown, constants
        self._reset_inputs = [wp.from_torch(self._mask), constants[1], appearances, *states]

    def _launch_step(self) -> None:
        """See `WarpVectorEnv`."""
        self._step.launch(current_stream(self.device))

    def _launch_reset(self, seeded: bool, seed: int) -> None:
        """See `WarpVectorEnv`."""
        mask, *rest = self._reset_inputs
        wp.launch(
            self._reset,
            dim=self.num_envs,
            inputs=[mask, seeded, seed, *rest],
            device=self._warp_device,
            stream=current_stream(self.device),
            block_dim=BLOCK,
        )
