"""Epsilon-greedy exploration."""

from __future__ import annotations

import torch
from torch import Tensor


def epsilon_greedy(
    action: Tensor, num_actions: Tensor, epsilon: float | Tensor, generator: torch.Generator
) -> Tensor:
    """Replaces each action with probability epsilon by a uniformly random one.    (rows,)

    Args:
        action: The greedy actions.                          (rows,)
        num_actions: Number of actions of each row's task.   (rows,)
        epsilon: The probability of a random action; as a tensor () it may change between replays of
            a CUDA graph.
        generator: Source of random numbers, on the actions' device.
    """
    drawn = torch.rand(action.shape, generator=generator, device=action.device)
    # One draw serves twice: given that it is below epsilon, drawn / epsilon is uniform again.
    random_action = torch.minimum((drawn / epsilon * num_actions).long(), num_actions - 1)
    return torch.where(drawn < epsilon, random_action, action)
