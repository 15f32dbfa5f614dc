"""MinAtar as a vector environment: its state and its step stay on the device."""

from __future__ import annotations

import ctypes
import functools
import importlib
import itertools
import math
import secrets
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import gymnasium
import numpy as np
import torch
import warp as wp
from gymnasium import spaces
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector.utils import batch_space
from torch import Tensor

from rltransfer.errors import InputError, unknown
from rltransfer.vector_env import VectorEnv

from . import GAMES
from .bitplane import SIZE, ChannelBytes, Plane
from .device import current_stream, find_device, quiet
from .kernels import FULL_ACTIONS, Game
from .random import BITS

_ENVS_PER_THREAD = 512
"""Fewer environments than this are stepped sooner than another thread is woken."""
_BLOCK = 64
"""Environments in a CUDA block: few, so that thousands of them reach every multiprocessor."""


class MinAtarVectorEnv(VectorEnv):
    """Many environments of one game, of which each has its own random stream.

    On the CPU large numbers are stepped by `torch.get_num_threads()` threads, as many as there are
    when it is made; results do not depend on it. On CUDA a step is one kernel on torch's current
    stream, neither allocates nor waits, and may be captured in a CUDA graph.

    The observation is written cell by cell where it changes: copy it, do not write to it.
    """

    truncates = False
    capturable = True
    frame_stack = 0

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
        """Makes the environments; each has begun an episode.

        Args:
            game: The game's module, one of `GAMES`.
            num_envs: The number of environments.
            minimal_actions: Whether the actions that do nothing in this game are left out.
            sticky_action_prob: The probability that the last action is done again instead.
            difficulty_ramping: Whether a game gets harder, where it can.
            device: Where the environments live: "cpu" or "cuda".

        Raises:
            InputError: An argument is not one of the permitted values, or the device is not there.
        """
        if game not in GAMES:
            raise unknown("MinAtar game", game, GAMES)
        if num_envs < 1:
            raise InputError(f"num_envs is {num_envs}: there must be at least 1 environment.")
        is_number = isinstance(sticky_action_prob, (int, float))
        if not is_number or not 0.0 <= sticky_action_prob <= 1.0:
            raise InputError(
                f"sticky_action_prob is {sticky_action_prob!r}: a probability is in [0, 1]."
            )
        if not isinstance(difficulty_ramping, bool):
            raise InputError(
                f"difficulty_ramping is {difficulty_ramping!r}: it must be true or false."
            )
        self.num_envs = num_envs
        self.device = find_device(device)
        with quiet():
            self._game: Game = importlib.import_module(f".{game}", __package__).GAME
            full = tuple(range(FULL_ACTIONS))
            self._actions_meant = self._game.minimal_actions if minimal_actions else full
            self._allocate()
            self._prepare(sticky_action_prob, difficulty_ramping)
            self.reset(seed=secrets.randbits(63))

        shape = (len(self._game.channels), SIZE, SIZE)
        self.single_observation_space = spaces.Box(0, 1, shape, np.uint8)
        self.single_action_space = spaces.Discrete(len(self._actions_meant))

    @functools.cached_property
    def observation_space(self) -> gymnasium.Space[Any]:  # type: ignore[override]
        """The observation space of all environments; made when asked for, since it is large."""
        return batch_space(self.single_observation_space, self.num_envs)

    @functools.cached_property
    def action_space(self) -> gymnasium.Space[Any]:  # type: ignore[override]
        """The action space of all environments."""
        return batch_space(self.single_action_space, self.num_envs)

    def _allocate(self) -> None:
        """Allocates every tensor: what an environment is, what it is told, what it answers."""
        n, channels = self.num_envs, len(self._game.channels)
        shape = (n, channels, SIZE, SIZE)
        zeros = functools.partial(torch.zeros, device=self.device)
        words = ctypes.sizeof(self._game.state.ctype) // 4
        self._state = {
            "game": zeros(n, words, dtype=torch.int32),
            "counters": zeros(n, dtype=torch.int64),
            "last_actions": zeros(n, dtype=torch.int32),
            "frame": zeros(n, channels, 2, dtype=torch.int64),
            "observation": zeros(shape, dtype=torch.uint8),
        }
        self._actions = zeros(n, dtype=torch.int64)
        self._action_set = torch.tensor(self._actions_meant, dtype=torch.int32, device=self.device)
        self._mask = zeros(n, dtype=torch.bool)
        self._final_observation = zeros(shape, dtype=torch.uint8)
        self._reward = zeros(n, dtype=torch.float32)
        self._terminated = zeros(n, dtype=torch.bool)
        self._truncated = zeros(n, dtype=torch.bool)

    def _prepare(self, sticky_action_prob: float, difficulty_ramping: bool) -> None:
        """Compiles the game's kernels and records what each step launches."""
        self._warp_device = wp.device_from_torch(self.device)
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
        # A draw has BITS bits: it is below the probability just if it is below this integer.
        sticky_below = math.ceil(sticky_action_prob * (1 << BITS))
        given = [wp.from_torch(self._actions), wp.from_torch(self._action_set)]
        options = [sticky_below, difficulty_ramping]
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
                block_dim=_BLOCK,
                record_cmd=True,
            )
            for first, end in itertools.pairwise(bounds)
        ]
        self._pool = ThreadPoolExecutor(chunks - 1, "minatar") if chunks > 1 else None
        self._pending: list[Future[None]] = []

    def _launch(self, chunk: int) -> None:
        """Steps one chunk of the environments, which a thread that does so keeps alive."""
        self._launches[chunk].launch(current_stream(self.device))

    def _wait(self) -> None:
        """Waits until the threads have done what `send` gave them."""
        for future in self._pending:
            future.result()
        self._pending.clear()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Begins new episodes.

        Args:
            seed: Where the random streams begin, with which everything begins anew; without one
                the streams go on, and the first sticky action is still the last one that was done.
            options: `reset_mask`, bool `[num_envs]`, says which environments; else all do.

        Returns:
            The observation, uint8 `[num_envs, channels, 10, 10]`, and an empty dictionary.

        Raises:
            InputError: The seed is negative, or there is no such option.
        """
        if seed is not None and seed < 0:
            raise InputError(f"The seed is {seed}: it must be 0 or more.")
        self._wait()
        self._set_mask(options or {})
        mask, *state = self._reset_inputs
        wp.launch(
            self._game.reset,
            dim=self.num_envs,
            inputs=[mask, seed is not None, (seed or 0) % (1 << 64), *state],
            device=self._warp_device,
            stream=current_stream(self.device),
            block_dim=_BLOCK,
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
        """Begins a step, without waiting for it.

        Args:
            actions: The actions, an integer type `[num_envs]`; one that the game does not have is
                taken for "nothing".

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
        self._wait()
        self._actions.copy_(actions)
        if self._pool is not None:
            others = range(1, len(self._launches))
            self._pending = [self._pool.submit(self._launch, chunk) for chunk in others]
        self._launch(0)

    def recv(self) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Ends the step that `send` began.

        Returns:
            The observation, uint8 `[num_envs, channels, 10, 10]`; the reward, float32
            `[num_envs]`; terminated and truncated, bool `[num_envs]`, of which the latter is
            never true; and `final_obs`, of the observation's shape.
        """
        self._wait()
        info = {"final_obs": self._final_observation}
        return self._state["observation"], self._reward, self._terminated, self._truncated, info

    def state_dict(self) -> dict[str, Tensor]:
        """Returns copies of the whole state, random streams included."""
        self._wait()
        return {name: tensor.clone() for name, tensor in self._state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes back to a state that `state_dict` returned.

        Raises:
            InputError: The state is one of another game or of another number of environments.
        """
        own = {name: tensor.shape for name, tensor in self._state.items()}
        if {name: tensor.shape for name, tensor in state.items()} != own:
            raise InputError("The state is of another game or of another number of environments.")
        self._wait()
        for name, tensor in state.items():
            self._state[name].copy_(tensor)

    def close_extras(self, **kwargs: Any) -> None:
        """Ends the threads."""
        self._wait()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
