"""The return gap: how far a student trails its teachers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rltransfer.machine import distributed

FORGETTING = 0.98
"""Decay of the running mean of returns per episode: about 50 episodes count."""


class ReturnGap:
    """The lag (teacher - student) / (teacher - random) of each task's return, clipped to [0, 1].

    0: the student matches its teacher; 1: it is not better than a random policy, or the returns are
    not known yet. Unlike a ratio of returns, this also works for negative returns. The student's
    returns are those of training episodes, with exploration and clipped rewards, so the reference
    returns must be measured on the tasks as trained.

    Args:
        num_tasks: Number of tasks.
        device: Device of the results.

    Attributes:
        lag: Each task's lag.    (num_tasks,)
    """

    def __init__(self, num_tasks: int, device: torch.device) -> None:
        self._student = torch.full((num_tasks,), torch.nan, device=device)
        self._teacher = torch.full((num_tasks,), torch.nan, device=device)
        self._random = torch.full((num_tasks,), torch.nan, device=device)
        self.lag = torch.ones(num_tasks, device=device)

    def set_reference_returns(self, teacher: Sequence[float], random: Sequence[float]) -> None:
        """Sets the mean return of the teacher and of a random policy on each task."""
        self._teacher.copy_(torch.tensor(teacher))
        self._random.copy_(torch.tensor(random))
        self._measure()

    def update(self, episode_return: Tensor, done: Tensor) -> None:
        """Updates the student's mean returns with a rollout's episodes, those of all processes.

        Args:
            episode_return: Return of the episode that the step ended.    (time, rows)
            done: Whether the step ended an episode.                      (time, rows)
        """
        count = len(self._student)
        episodes = done.unflatten(1, (count, -1)).sum((0, 2))
        total = (episode_return * done).unflatten(1, (count, -1)).sum((0, 2))
        episodes, total = distributed.total(torch.stack([episodes.to(total.dtype), total]))
        mean = total / episodes.clamp(min=1)
        known = torch.where(self._student.isnan(), mean, self._student)
        # As if the episodes ended one after the other, each with their mean return.
        moved = mean + (known - mean) * FORGETTING**episodes
        self._student = torch.where(episodes > 0, moved, self._student)
        self._measure()

    def _measure(self) -> None:
        gap = (self._teacher - self._student) / (self._teacher - self._random)
        # The gap to a teacher that is not better than a random policy is not defined: use 1.
        gap = torch.where(self._teacher > self._random, gap, 1.0)
        self.lag.copy_(gap.nan_to_num(1.0).clamp(0.0, 1.0))

    def state_dict(self) -> dict[str, Tensor]:
        """The student's mean returns."""
        return {"student": self._student.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores a state of `state_dict`."""
        self._student.copy_(state["student"])
        self._measure()
