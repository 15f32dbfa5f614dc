"""A vector environment around another one, of which it changes what is shown."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rltransfer.tasks.vector_env import VectorEnv


class WrappedVectorEnv(VectorEnv):
    """Takes over an environment, which is closed with this one.

    A subclass sets `single_observation_space` and implements `reset` and `recv`.
    """

    def __init__(self, env: VectorEnv) -> None:
        self._env = env
        self.num_envs, self.device = env.num_envs, env.device
        self.single_observation_space = env.single_observation_space
        self.single_action_space = env.single_action_space
        self.host_action_space = env.host_action_space
        self.truncates, self.overlaps, self.on_host = env.truncates, env.overlaps, env.on_host
        self.capturable, self.frame_stack = env.capturable, env.frame_stack
        self.metadata = env.metadata

    @property
    def first_index(self) -> int:
        """See `VectorEnv`."""
        return self._env.first_index

    @first_index.setter
    def first_index(self, index: int) -> None:
        self._env.first_index = index

    def send(self, actions: Tensor) -> None:
        """See `VectorEnv`."""
        self._env.send(actions)

    def state_dict(self) -> dict[str, Tensor] | None:
        """See `VectorEnv`."""
        return self._env.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See `VectorEnv`."""
        self._env.load_state_dict(state)

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the environment."""
        self._env.close(**kwargs)
