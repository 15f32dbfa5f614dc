"""Metrics of a rollout for each task."""

from __future__ import annotations

import torch

from rltransfer.rollouts.rollout import Rollout
from rltransfer.tasks.task import Suite


def rollout_metrics(rollout: Rollout, suite: Suite) -> dict[str, float]:
    """Mean return and length of the episodes that ended in a rollout, for each task.

    Rewards are those of training, e.g. clipped, with a lost life as an episode's end. Tasks without
    an ended episode are left out.
    """
    assert rollout.episode_return is not None and rollout.episode_length is not None
    count = len(suite)
    ended = rollout.done.unflatten(1, (count, -1)).sum((0, 2))
    returns = rollout.episode_return.unflatten(1, (count, -1)).sum((0, 2))
    lengths = rollout.episode_length.unflatten(1, (count, -1)).sum((0, 2))
    metrics: dict[str, float] = {}
    for name, (episodes, total, length) in zip(
        suite.names(), torch.stack([ended, returns, lengths], 1).tolist(), strict=True
    ):
        if episodes:
            metrics[f"rollout/return/{name}"] = total / episodes
            metrics[f"rollout/length/{name}"] = length / episodes
    return metrics
