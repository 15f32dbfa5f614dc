"""Gridworlds as a vector environment with state and step on the device."""

from __future__ import annotations

import secrets
from typing import Any, get_args

import torch
import warp as wp
from gymnasium import spaces
from torch import Tensor

from rltransfer.envs.warp_device import current_stream, quiet
from rltransfer.envs.warp_env import BLOCK, WarpVectorEnv
from rltransfer.errors import InputError, unknown

from .layouts import make_layout
from .rules import NUM_ACTIONS, ObservationName, appearance, make_rules


class GridworldVectorEnv(WarpVectorEnv):
    """Many environments of one map, each with a separate random stream.

    A step is one kernel on torch's current stream; on CUDA it can be captured in a CUDA graph. The
    goal gives 1 and moves the agent to a random cell. Episodes are truncated after `time_limit`
    steps, and end in no other way.
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
        """Makes the environments and begins an episode in each.

        Args:
            map: The kind of map, one of `layouts.KINDS`.
            num_envs: Number of environments.
            time_limit: Steps of an episode.
            observation: The kind of observation: see `rules.appearance`.
            view: Cells that pixels show around the agent; 0 for the whole map.
            device: "cpu" or "cuda".
            options: Options of the map: those of `layouts.two_rooms` or `layouts.random_maze`.

        Raises:
            InputError: An argument is invalid, or the device does not exist.
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
        # On a CPU a rollout stores only the last observations of truncated episodes.
        self.capturable = self.device.type == "cuda"
        table = appearance(self.rules, observation, view)
        self.num_states = len(table)
        self.single_observation_space = spaces.Box(0, 1, table.shape[1:], table.dtype.type)
        self.single_action_space = spaces.Discrete(NUM_ACTIONS)
        with quiet():
            self._prepare(torch.from_numpy(table).to(self.device))
            self.reset(seed=secrets.randbits(63))

    def _prepare(self, table: Tensor) -> None:
        """Allocates all tensors, compiles the kernels and records the launch of a step.

        Args:
            table: The observation of each state.    (num_states, *shape)
        """

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(self.num_envs, *shape, dtype=dtype, device=self.device)

        self._allocate(
            zeros(*table.shape[1:], dtype=table.dtype),
            states=zeros(dtype=torch.int32),
            times=zeros(dtype=torch.int32),
            counters=zeros(dtype=torch.int64),
        )
        from .kernels import reset, step

        def as_values(tensor: Tensor) -> Any:
            return wp.from_torch(tensor.view(len(tensor), -1).view(torch.int32))

        self._reset_kernel = reset
        constants = [
            wp.from_torch(torch.from_numpy(array).to(self.device))
            for array in (self.rules.destination, self.rules.starts)
        ]
        appearances = as_values(table)
        states = [
            wp.from_torch(self._state["states"]),
            wp.from_torch(self._state["times"]),
            wp.from_torch(self._state["counters"], dtype=wp.uint64),
            as_values(self._state["observation"]),
        ]
        results = [as_values(self._final_observation)]
        results += [wp.from_torch(tensor) for tensor in (self._reward, self._truncated)]
        given = [wp.from_torch(self._actions), self.time_limit]
        self._step = wp.launch(
            step,
            dim=self.num_envs,
            inputs=[*given, *constants, self.rules.goal, appearances, *states, *results],
            device=self._warp_device,
            block_dim=BLOCK,
            record_cmd=True,
        )
        # The recorded launch contains addresses: these tensors must not be freed.
        self._referenced = table, constants
        self._reset_inputs = [wp.from_torch(self._mask), constants[1], appearances, *states]

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See `WarpVectorEnv`; a state that is not on the map would index other memory.

        Raises:
            InputError: The state is damaged, or one of other environments.
        """
        states = state.get("states")
        if states is not None and not ((states >= 0) & (states < self.num_states)).all():
            raise InputError("The state is damaged: an agent is not on the map.")
        super().load_state_dict(state)

    def _launch_step(self) -> None:
        self._step.launch(current_stream(self.device))
