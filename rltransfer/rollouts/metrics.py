"""Figures of a rollout, for each task."""

from __future__ import annotations

import torch

from rltransfer.rollouts.rollout import Rollout
from rltransfer.tasks.task import Suite


def rollout_metrics(rollout: Rollout, suite: Suite) -> dict[str, float]:
    """Returns mean return and length of the episodes that ended in a rollout, for each task.

    Returns are as the environment rewarded them in training (clipped rewards, lives as episodes,
    where the task says so); a task in which no episode ended is left out.

    Args:
        rollout: What happened.
        suite: The tasks.
    """
    assert rollout.episode_return is not None and rollout.episode_length is not None
    count = len(suite)
    ended = rollout.done.unflatten(1, (count, -1)).sum((0, 2))
    returns = rollout.episode_return.unflatten(1, (count, -1)).sum((0, 2))
    lengths = rollout.episode_length.unflatten(1, (count, -1)).sum((0, 2))
    figures: dict[str, float] = {}
    for name, (episodes, total, length) in zip(
        suite.names(), torch.stack([ended, returns, lengths], 1).tolist(), strict=True
    ):
        if episodes:
            figures[f"rollout/return/{name}"] = total / episodes
            figures[f"rollout/length/{name}"] = length / episodes
    return figures
