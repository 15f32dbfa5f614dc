"""The last observations of each environment, as a group of their own.

Any task of vectors takes the keyword argument `observation_history=K`: the group `history` then
shows the last K observations of the group `policy`, oldest first, one after the other, and zeros
before the episode's start. A student without a memory reads it to do what a teacher with one does,
or what a teacher does that sees more (Lee 2020, "Learning quadrupedal locomotion over challenging
terrain", whose student reads a history of what its robot measures).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError, check_number
from rltransfer.options import whole_number
from rltransfer.tasks.observation import DEFAULT_GROUP
from rltransfer.tasks.task import Task
from rltransfer.tasks.vector_env import VectorEnv
from rltransfer.tasks.wrapped_env import WrappedVectorEnv

OPTION, GROUP = "observation_history", "history"


def split_history(task: Task) -> tuple[Task, int]:
    """The task without its history, and the length of the history; 0 without one.

    Raises:
        InputError: The length is not a number of observations.
    """
    if OPTION not in task.kwargs:
        return task, 0
    kwargs = dict(task.kwargs)
    length = whole_number(f"The {OPTION} of {task.id!r}", kwargs.pop(OPTION), "at least 1")
    check_number(f"The {OPTION} of {task.id!r}", length, "at most 10,000")
    return dataclasses.replace(task, kwargs=kwargs), length


class HistoryVectorEnv(WrappedVectorEnv):
    """A vector environment that shows its last observations, too."""

    def __init__(self, env: VectorEnv, length: int, task_id: str) -> None:
        """Takes over an environment.

        Args:
            env: The environment.
            length: Number of observations.
            task_id: The task's id, for messages.

        Raises:
            InputError: The observation is not a vector, or a group has the name of the history.
        """
        space = env.single_observation_space
        groups = dict(space.spaces) if isinstance(space, spaces.Dict) else {DEFAULT_GROUP: space}
        own = groups.get(DEFAULT_GROUP)
        if not isinstance(own, spaces.Box) or len(own.shape) != 1 or own.dtype == np.uint8:
            raise InputError(
                f"The observation {DEFAULT_GROUP!r} of {task_id!r} is not a vector: leave out "
                f"{OPTION}, which is for vectors."
            )
        if GROUP in groups:
            raise InputError(
                f"{task_id!r} has an observation {GROUP!r} already: leave out {OPTION}."
            )
        super().__init__(env)
        self._is_dict = isinstance(space, spaces.Dict)
        shape = (env.num_envs, length, *own.shape)
        # In place: a CUDA graph finds them where they were.
        self._last = torch.zeros(shape, device=env.device)
        self._final = torch.zeros(shape, device=env.device)
        low, high = np.minimum(own.low, 0), np.maximum(own.high, 0)
        past = spaces.Box(np.tile(low, length), np.tile(high, length), dtype=np.float32)
        self.single_observation_space = spaces.Dict({**groups, GROUP: past})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Begins new episodes; the arguments are those of the environment."""
        observation, info = self._env.reset(seed=seed, options=options)
        groups = self._groups(observation)
        self._last.zero_()
        self._last[:, -1] = groups[DEFAULT_GROUP]
        return self._shown(groups, self._last), info

    def recv(self) -> tuple[Any, Tensor, Tensor, Tensor, dict[str, Any]]:
        """See `VectorEnv`."""
        observation, reward, terminated, truncated, info = self._env.recv()
        if "final_obs" in info:
            final = self._groups(info["final_obs"])
            self._final[:, :-1] = self._last[:, 1:]
            self._final[:, -1] = final[DEFAULT_GROUP]
            info = {**info, "final_obs": self._shown(final, self._final)}
        groups = self._groups(observation)
        self._last[:, :-1] = self._last[:, 1:].clone()
        self._last.masked_fill_((terminated | truncated)[:, None, None], 0.0)
        self._last[:, -1] = groups[DEFAULT_GROUP]
        return self._shown(groups, self._last), reward, terminated, truncated, info

    def _groups(self, observation: Any) -> Mapping[str, Tensor]:
        return observation if self._is_dict else {DEFAULT_GROUP: observation}

    def _shown(self, groups: Mapping[str, Tensor], past: Tensor) -> dict[str, Tensor]:
        return {**groups, GROUP: past.flatten(1)}

    def state_dict(self) -> dict[str, Tensor] | None:
        """See `VectorEnv`."""
        state = super().state_dict()
        return None if state is None else {**state, OPTION: self._last.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """See `VectorEnv`."""
        super().load_state_dict({name: v for name, v in state.items() if name != OPTION})
        self._last.copy_(state[OPTION])
