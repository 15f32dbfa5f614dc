"""What a rollout holds, and what acts in one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rltransfer.nested import Nested
from rltransfer.tasks.observation import Observation


class Actor(Protocol):
    """Whoever acts in the environments."""

    @property
    def state_size(self) -> int:
        """Columns of the recurrent state; 0 for none."""

    @property
    def graph_key(self) -> Hashable:
        """What `act` does depends on this and on values in tensors, and on nothing else.

        On CUDA a rollout is captured once for each course and replayed from then on: what changes
        with time is either a tensor that is written in place, or part of this.
        """

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """The generators that `act` draws from."""

    def act(self, observation: Observation, task: Tensor, state: Tensor, start: Tensor) -> Nested:
        """Returns "action" and whatever else is to be kept of this step, by name.

        Args:
            observation: The groups.                                      (rows, ...)
            task: Index of each row's task.                               (rows,)
            state: The recurrent state; no columns where there is none.   (rows, state_size)
            start: Whether the observation is an episode's first.         (rows,)

        Returns:
            Tensors of (rows, ...), which may be nested: "action"; "state", the new recurrent state,
            if there is one.
        """


@dataclass(frozen=True)
class TruncatedObservations:
    """The observations that followed where episodes were cut short, before the reset."""

    time: Tensor
    """int64.                                       (n,)"""
    rows: Tensor
    """int64.                                       (n,)"""
    observation: Observation
    """(n, ...)"""


@dataclass
class Rollout:
    """Steps of all environments: views of the engine's tensors, time first.

    A row is one environment; the rows of a task stand together, in the order of the suite. The next
    `collect` overwrites everything here.
    """

    observation: Observation
    """What was seen.                                               (time, rows, ...)"""
    last_observation: Observation
    """What is seen after the last step.                            (rows, ...)"""
    reward: Tensor
    """float32.                                                     (time, rows)"""
    terminated: Tensor
    """Whether the step ended the episode in a terminal state.      (time, rows)"""
    truncated: Tensor
    """Whether the step's episode was cut short.                    (time, rows)"""
    start: Tensor
    """Whether the observation is an episode's first.               (time, rows)"""
    task: Tensor
    """Index of the task.                                           (time, rows)"""
    initial_state: Tensor
    """The recurrent state before the first step.                   (rows, state_size)"""
    extras: Nested
    """What the actor returned, "action" among it.                  (time, rows, ...)"""
    last_state: Tensor
    """The recurrent state after the last step.                     (rows, state_size)"""
    final_obs: TruncatedObservations | None = None
    """Where episodes were cut short; None if none was."""
    episode_return: Tensor | None = None
    """Return of the episode that the step ended; 0 elsewhere.      (time, rows)"""
    episode_length: Tensor | None = None
    """Steps of the episode that the step ended; 0 elsewhere.       (time, rows)"""

    @property
    def done(self) -> Tensor:
        """Whether the step ended the episode.    (time, rows)"""
        return self.terminated | self.truncated

    @property
    def num_steps(self) -> int:
        """Environment steps in all."""
        return self.reward.numel()
