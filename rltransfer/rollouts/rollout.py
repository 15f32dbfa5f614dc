"""Rollouts, and the actors that produce them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rltransfer.nested import Nested
from rltransfer.tasks.observation import Observation


class Actor(Protocol):
    """A policy, teacher or random policy that acts in the environments."""

    @property
    def state_size(self) -> int:
        """Size of the recurrent state; 0 for none."""

    @property
    def graph_key(self) -> Hashable:
        """Identifies the launches of `act`, which depend on nothing else but values in tensors.

        On CUDA a rollout is captured once for each key and then replayed: whatever changes over
        time must be a tensor that is written in place, or part of the key.
        """

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """The generators that `act` draws from."""

    def act(self, observation: Observation, task: Tensor, state: Tensor, start: Tensor) -> Nested:
        """Outputs actions, and further tensors to store in the rollout.

        Args:
            observation: The groups.                                      (rows, ...)
            task: Index of each row's task.                               (rows,)
            state: The recurrent state; no columns where there is none.   (rows, state_size)
            start: Whether the observation is an episode's first.         (rows,)

        Returns:
            Tensors (rows, ...), which may be nested: "action"; "state", the new recurrent state, if
            there is one; any other name is stored.
        """


@dataclass(frozen=True)
class TruncatedObservations:
    """The last observations of truncated episodes, before the reset."""

    time: Tensor
    """int64.                                       (n,)"""
    rows: Tensor
    """int64.                                       (n,)"""
    observation: Observation
    """(n, ...)"""


@dataclass
class Rollout:
    """Steps of all environments: views of the engine's tensors, time first.

    A row is one environment; rows are grouped by task, in the order of the suite. The next
    `collect` overwrites all tensors.
    """

    observation: Observation
    """The observation before each step.                            (time, rows, ...)"""
    last_observation: Observation
    """The observation after the last step.                         (rows, ...)"""
    reward: Tensor
    """float32.                                                     (time, rows)"""
    terminated: Tensor
    """Whether the step ended the episode in a terminal state.      (time, rows)"""
    truncated: Tensor
    """Whether the step truncated the episode.                      (time, rows)"""
    start: Tensor
    """Whether the observation is an episode's first.               (time, rows)"""
    task: Tensor
    """Index of the task.                                           (time, rows)"""
    initial_state: Tensor
    """The recurrent state before the first step.                   (rows, state_size)"""
    extras: Nested
    """The actor's outputs, including "action".                     (time, rows, ...)"""
    last_state: Tensor
    """The recurrent state after the last step.                     (rows, state_size)"""
    final_obs: TruncatedObservations | None = None
    """The last observations of truncated episodes; None if none was truncated."""
    episode_return: Tensor | None = None
    """Return of the episode that the step ended, else 0.           (time, rows)"""
    episode_length: Tensor | None = None
    """Steps of the episode that the step ended, else 0.            (time, rows)"""

    @property
    def done(self) -> Tensor:
        """Whether the step ended the episode.    (time, rows)"""
        return self.terminated | self.truncated

    @property
    def num_steps(self) -> int:
        """Environment steps over all rows."""
        return self.reward.numel()
