"""How far a student lags behind its teachers, by the returns of the episodes that it plays."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FORGETTING = 0.98
"""What is left of the running mean's past after each episode: some 50 episodes count."""


class Lag:
    """(teacher - student) / (teacher - random) of each task, within 0 and 1.

    1 where the student plays no better than chance, 0 where it is its teacher's equal; right where
    returns are negative, too, which a quotient of returns is not. 1 while nothing is known. The
    student's return is that of training episodes, with whatever they have of exploration and of
    clipped rewards: compare like with like.

    Args:
        num_tasks: How many tasks there are.
        device: Where the lags live.
    """

    def __init__(self, num_tasks: int, device: torch.device) -> None:
        self._student = torch.full((num_tasks,), torch.nan, device=device)
        self._teacher = torch.full((num_tasks,), torch.nan, device=device)
        self._chance = torch.full((num_tasks,), torch.nan, device=device)
        self.lag = torch.ones(num_tasks, device=device)

    def set_reference_returns(self, teacher: Sequence[float], chance: Sequence[float]) -> None:
        """Takes the returns that the student is measured by.

        Args:
            teacher: The teachers' mean return of each task.
            chance: That of random actions.
        """
        self._teacher.copy_(torch.tensor(teacher))
        self._chance.copy_(torch.tensor(chance))
        self._measure()

    def hear(self, episode_return: Tensor, done: Tensor) -> None:
        """Takes a rollout's episodes into account.

        Args:
            episode_return: Return of the episode that a step ended.    (time, rows)
            done: Whether it ended one.                                 (time, rows)
        """
        count = len(self._student)
        episodes = done.unflatten(1, (count, -1)).sum((0, 2))
        total = (episode_return * done).unflatten(1, (count, -1)).sum((0, 2))
        mean = total / episodes.clamp(min=1)
        known = torch.where(self._student.isnan(), mean, self._student)
        # As if the episodes had come one by one, each with the mean of them all.
        self._student = torch.where(
            episodes > 0, mean + (known - mean) * FORGETTING**episodes, self._student
        )
        self._measure()

    def _measure(self) -> None:
        gap = (self._teacher - self._student) / (self._teacher - self._chance)
        # A teacher that is no better than chance has nothing to lag behind: then the lag is 1.
        gap = torch.where(self._teacher > self._chance, gap, 1.0)
        self.lag.copy_(gap.nan_to_num(1.0).clamp(0.0, 1.0))

    def state_dict(self) -> dict[str, Tensor]:
        """Returns what the episodes so far have said."""
        return {"student": self._student.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Goes back to what `state_dict` returned."""
        self._student.copy_(state["student"])
        self._measure()
