"""The remaining time of an episode as an entry of the observation, as a teacher may have seen it.

`TimeFeatureWrapper` of sb3-contrib and rl-zoo appends 1 - t / T to a vector: t is the number of
steps since the episode's start, T the limit of an episode (Pardo 2018, arXiv 1712.00378). Tasks do
not show it; here it is counted for each row, from step to step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.tasks.gymnasium_env import find_spec
from rltransfer.tasks.observation import DEFAULT_GROUP, Observation, describe_space
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.tasks.task import Task

NAME = "time_feature"
"""The observation of `Adapted` that appends the remaining time."""

GROUPS = (DEFAULT_GROUP, "observation")
"""The group that it is appended to: the first of these that a task shows."""

WITHOUT_LIMIT = 1000
"""Steps that count as an episode's limit in a task without one: the wrapper's own default."""


class TimeFeature(nn.Module):
    """Appends the remaining time to the observations of the tasks of a suite.

    Args:
        suite: The tasks.

    Raises:
        InputError: A task has no vector to append it to.
    """

    limits: Tensor
    sizes: Tensor

    def __init__(self, suite: SuiteSpaces) -> None:
        super().__init__()
        tasks = list(zip(suite.suite, suite.own, strict=True))
        self.group = group_of(*((task, own.observation) for task, own in tasks))
        limits = [float(_limit(task)) for task, _ in tasks]
        sizes = [own.observation[self.group].shape[0] for _, own in tasks]  # type: ignore[index]
        self.register_buffer("limits", torch.tensor(limits), persistent=False)
        self.register_buffer("sizes", torch.tensor(sizes), persistent=False)

    def forward(self, observation: Observation, task: Tensor, steps: Tensor) -> Observation:
        """The observation with the remaining time after the entries of each row's task.

        Args:
            observation: The groups, perhaps padded.    (rows, ...)
            task: Index of each row's task.             (rows,)
            steps: Steps since the episode's start.     (rows, 1)
        """
        remaining = 1 - steps / self.limits[task][:, None]
        shown = observation[self.group]
        longer = torch.cat([shown, torch.zeros_like(shown[:, :1])], 1)
        return {
            **observation,
            self.group: longer.scatter(1, self.sizes[task][:, None], remaining.to(shown.dtype)),
        }


def group_of(*shown: tuple[Task, spaces.Dict]) -> str:
    """The group of some tasks that the remaining time is appended to.

    Args:
        shown: Each task and its observations.

    Raises:
        InputError: A task shows no such group, or it is not a vector of floats.
    """
    for task, space in shown:
        group = next((name for name in GROUPS if name in space.spaces), None)
        found = None if group is None else space[group]
        if not isinstance(found, spaces.Box) or len(found.shape) != 1 or found.dtype == np.uint8:
            what = "none" if found is None else describe_space(found)
            names = " or ".join(map(repr, GROUPS))
            raise InputError(
                f"The {NAME} of Adapted is appended to the vector {names}, but the task "
                f"{task.id!r} shows {what} there."
            )
    assert group is not None
    return group


def with_time(space: spaces.Dict, group: str) -> spaces.Dict:
    """The observations of a task with the remaining time at the end of a group."""
    own = space[group]
    assert isinstance(own, spaces.Box)
    dtype = np.dtype(own.dtype).type
    low, high = (np.append(bound, dtype(end)) for bound, end in ((own.low, 0), (own.high, 1)))
    longer = spaces.Box(low, high, dtype=dtype)
    return spaces.Dict([(name, longer if name == group else one) for name, one in space.items()])


def _limit(task: Task) -> Any:
    """The limit on the steps of an episode."""
    limit = task.kwargs.get("max_episode_steps", find_spec(task).max_episode_steps)
    return limit or WITHOUT_LIMIT
