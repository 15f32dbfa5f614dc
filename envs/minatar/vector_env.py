"""MinAtar as a vector environment with state and step on the device."""

from __future__ import annotations

import ctypes
import functools
import importlib
import itertools
import math
import secrets
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import warp as wp
from gymnasium import spaces
from torch import Tensor

from rltransfer.envs.warp_device import current_stream, quiet
from rltransfer.envs.warp_env import BLOCK, WarpVectorEnv
from rltransfer.errors import InputError, unknown

from .bitplane import SIZE, ChannelBytes, Plane
from .ids import GAMES
from .kernels import FULL_ACTIONS, Game
from .random import BITS

_ENVS_PER_THREAD = 512
"""With fewer environments, another thread does not pay off."""


class MinAtarVectorEnv(WarpVectorEnv):
    """Many environments of one game, each with a separate random stream.

    On the CPU, large numbers are stepped by `torch.get_num_threads()` threads, which does not
    change results. On CUDA, a step is one kernel on torch's current stream, neither allocates nor
    waits, and can be captured in a CUDA graph.
    """

    truncates = False
    capturable = True

    def __init__(
        self,
        game: str,
        num_envs: int,
        *,
        minimal_actions: bool,
        sticky_action_prob: float = 0.1,
        difficulty_ramping: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        """Makes the environments and begins an episode in each.

        Args:
            game: The game's module, one of `GAMES`.
            num_envs: Number of environments.
            minimal_actions: Omits actions without effect in this game.
            sticky_action_prob: Probability of repeating the last action.
            difficulty_ramping: Makes games harder over time, if they support it.
            device: "cpu" or "cuda".

        Raises:
            InputError: An argument is invalid, or the device does not exist.
        """
        if game not in GAMES:
            raise unknown("MinAtar game", game, GAMES)
        super().__init__(num_envs, device)
        is_number = isinstance(sticky_action_prob, (int, float))
        if not is_number or not 0.0 <= sticky_action_prob <= 1.0:
            raise InputError(
                f"sticky_action_prob is {sticky_action_prob!r}: it must be a number from 0 to 1."
            )
        if not isinstance(difficulty_ramping, bool):
            raise InputError(
                f"difficulty_ramping is {difficulty_ramping!r}: it must be true or false."
            )
        with quiet():
            self._game: Game = importlib.import_module(f".{game}", __package__).GAME
            full = tuple(range(FULL_ACTIONS))
            action_set = self._game.minimal_actions if minimal_actions else full
            self._action_set = torch.tensor(action_set, dtype=torch.int32, device=self.device)
            self._allocate_game()
            self._prepare(sticky_action_prob, difficulty_ramping)
            self.reset(seed=secrets.randbits(63))

        shape = (len(self._game.channels), SIZE, SIZE)
        self.single_observation_space = spaces.Box(0, 1, shape, np.uint8)
        self.single_action_space = spaces.Discrete(len(action_set))

    def _allocate_game(self) -> None:
        n, channels = self.num_envs, len(self._game.channels)
        zeros = functools.partial(torch.zeros, device=self.device)
        words = ctypes.sizeof(self._game.state.ctype) // 4
        self._allocate(
            zeros(n, channels, SIZE, SIZE, dtype=torch.uint8),
            game=zeros(n, words, dtype=torch.int32),
            counters=zeros(n, dtype=torch.int64),
            last_actions=zeros(n, dtype=torch.int32),
            frame=zeros(n, channels, 2, dtype=torch.int64),
        )

    def _prepare(self, sticky_action_prob: float, difficulty_ramping: bool) -> None:
        """Compiles the game's kernels and records the launches of a step."""
        n, channels = self.num_envs, len(self._game.channels)

        def in_channels(observation: Tensor) -> Any:
            words = observation.view(n, channels, SIZE * SIZE).view(torch.int32)
            return wp.from_torch(words, dtype=ChannelBytes)

        observation = self._state["observation"]
        state = [
            wp.array(
                ptr=self._state["game"].data_ptr(),
                dtype=self._game.state,
                shape=(n,),
                device=self._warp_device,
            ),
            wp.from_torch(self._state["counters"], dtype=wp.uint64),
            wp.from_torch(self._state["last_actions"]),
            wp.from_torch(self._state["frame"], dtype=Plane),
            wp.from_torch(observation.view(n, channels, SIZE * SIZE)),
        ]
        rest = [
            in_channels(observation),
            in_channels(self._final_observation),
            wp.from_torch(self._reward),
            wp.from_torch(self._terminated),
        ]
        # A draw has BITS bits: below this integer, it is below the probability.
        sticky_below = math.ceil(sticky_action_prob * (1 << BITS))
        given = [wp.from_torch(self._actions), wp.from_torch(self._action_set)]
        options = [sticky_below, difficulty_ramping]
        # Without a seed, the last action stays the first sticky one.
        self._reset_kernel = self._game.reset
        self._reset_inputs = [wp.from_torch(self._mask), *state]

        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        chunks = max(1, min(threads, n // _ENVS_PER_THREAD))
        bounds = [n * chunk // chunks for chunk in range(chunks + 1)]
        self._launches = [
            wp.launch(
                self._game.step,
                dim=end - first,
                inputs=[first, *given, *options, *state, *rest],
                device=self._warp_device,
                block_dim=BLOCK,
                record_cmd=True,
            )
            for first, end in itertools.pairwise(bounds)
        ]
        self._pool = ThreadPoolExecutor(chunks - 1, "minatar") if chunks > 1 else None
        self._pending: list[Future[None]] = []

    def _launch(self, chunk: int) -> None:
        self._launches[chunk].launch(current_stream(self.device))

    def _wait(self) -> None:
        for future in self._pending:
            future.result()
        self._pending.clear()

    def _launch_step(self) -> None:
        """See `WarpVectorEnv`; an action out of range is a no-op."""
        if self._pool is not None:
            others = range(1, len(self._launches))
            self._pending = [self._pool.submit(self._launch, chunk) for chunk in others]
        self._launch(0)

    def close_extras(self, **kwargs: Any) -> None:
        """Stops the threads."""
        self._wait()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
