"""Vector environments whose step is a Warp kernel: what all of them have in common."""

from __future__ import annotations

import abc
import functools
from typing import Any

import gymnasium
import torch
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector.utils import batch_space
from torch import Tensor

from rltransfer.errors import InputError, unknown
from rltransfer.tasks.vector_env import VectorEnv

from .warp_device import find_device

BLOCK = 64
"""Environments in a CUDA block: few, so that thousands of them reach every multiprocessor."""


class WarpVectorEnv(VectorEnv):
    """Many environments whose state and step stay on the device, each with its own random stream.

    A subclass allocates its tensors by `_allocate`, and says how its kernels are launched.

    The observation is overwritten by the next step: copy it, do not write to it.
    """

    def __init__(self, num_envs: int, device: torch.device | str) -> None:
        """Finds the device.

        Args:
            num_envs: The number of environments.
            device: Where they live: "cpu" or "cuda".

        Raises:
            InputError: There is no environment, or the device is not there.
        """
        if num_envs < 1:
            raise InputError(f"num_envs is {num_envs}: there must be at least 1 environment.")
        self.num_envs = num_envs
        self.device = find_device(device)

    def _allocate(self, observation: Tensor, **state: Tensor) -> None:
        """Allocates every tensor: what an environment is, what it is told, what it answers.

        Args:
            observation: What is seen.                                (num_envs, *shape)
            state: What else an environment consists of, by name.    (num_envs, ...) each
        """
        zeros = functools.partial(torch.zeros, self.num_envs, device=self.device)
        self._state = {**state, "observation": observation}
        self._actions = zeros(dtype=torch.int64)
        self._mask = zeros(dtype=torch.bool)
        self._final_observation = torch.zeros_like(observation)
        self._reward = zeros(dtype=torch.float32)
        self._terminated = zeros(dtype=torch.bool)
        self._truncated = zeros(dtype=torch.bool)

    @abc.abstractmethod
    def _launch_step(self) -> None:
        """Begins to step every environment by `_actions`."""

    @abc.abstractmethod
    def _launch_reset(self, seeded: bool, seed: int) -> None:
        """Begins new episodes where `_mask` is true.

        Args:
            seeded: Whether the random streams begin anew too.
            seed: Where; below 2 ** 64.
        """

    def _wait(self) -> None:
        """Waits until a step has ended, where it does not run on torch's stream."""

    @functools.cached_property
    def observation_space(self) -> gymnasium.Space[Any]:  # type: ignore[override]
        """The observation space of all environments; made when asked for, since it is large."""
        return batch_space(self.single_observation_space, self.num_envs)

    @functools.cached_property
    def action_space(self) -> gymnasium.Space[Any]:  # type: ignore[override]
        """The action space of all environments."""
        return batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Begins new episodes.

        Args:
            seed: Where the random streams begin, with which everything begins anew; without one
                they go on.
            options: `reset_mask`, bool `[num_envs]`, says which environments; else all do.

        Returns:
            The observation `[num_envs, *shape]` and an empty dictionary.

        Raises:
            InputError: The seed is negative, or there is no such option.
        """
        if seed is not None and seed < 0:
            raise InputError(f"The seed is {seed}: it must be 0 or more.")
        self._wait()
        self._set_mask(options or {})
        self._launch_reset(seed is not None, (seed or 0) % (1 << 64))
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
        self._wait()
        self._actions.copy_(actions)
        self._launch_step()

    def recv(self) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Ends the step that `send` began.

        Returns:
            The observation `[num_envs, *shape]`; the reward, float32 `[num_envs]`; terminated and
            truncated, bool `[num_envs]`; and `final_obs`, of the observation's shape.
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
            InputError: The state is one of other environments, or of another number of them.
        """
        own = {name: tensor.shape for name, tensor in self._state.items()}
        if {name: tensor.shape for name, tensor in state.items()} != own:
            raise InputError("The state is of other environments, or of another number of them.")
        self._wait()
        for name, tensor in state.items():
            self._state[name].copy_(tensor)
