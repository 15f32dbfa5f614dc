"""Random actions among chosen ones."""

from __future__ import annotations

import torch
from torch import Tensor


def epsilon_greedy(
    action: Tensor, num_actions: Tensor, share: float | Tensor, generator: torch.Generator
) -> Tensor:
    """Returns the actions, a share of them replaced by uniformly random legal ones.    (rows,)

    Args:
        action: The chosen actions.                    (rows,)
        num_actions: Legal actions of each row's task. (rows,)
        share: epsilon; a tensor () may change between the replays of a CUDA graph.
        generator: The source of randomness, on the actions' device.
    """
    drawn = torch.rand(action.shape, generator=generator, device=action.device)
    # One draw serves twice: where it is below the share, its place in there is uniform again.
    random_action = torch.minimum((drawn / share * num_actions).long(), num_actions - 1)
    return torch.where(drawn < share, random_action, action)
