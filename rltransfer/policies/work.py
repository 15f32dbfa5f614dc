"""How much a network computes: multiply-adds of a forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rltransfer.policies.policy import Policy
from rltransfer.tasks.random_observation import random_observation


def row_work(policy: Policy) -> int:
    """Multiply-adds of a policy, with its value, on one observation."""
    device = next(policy.parameters()).device
    space = policy.spec.observation_space
    seen = {name: group.to(device) for name, group in random_observation(space, 1).items()}
    task = torch.zeros(1, dtype=torch.int64, device=device)
    state = policy.initial_state(1, device) if policy.state_size else None
    return multiply_adds(policy, seen, task, state)


@torch.no_grad()
def multiply_adds(network: nn.Module, *inputs: Any) -> int:
    """Multiply-adds of one forward pass.

    Every weight is used once per row, those of convolutions once per row and pixel, or step, of the
    output.

    Args:
        network: Any module whose submodules own the weights that they use.
        inputs: Its inputs, of one row.
    """
    total = 0

    def count(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal total
        own = module.named_parameters(recurse=False)
        weights = sum(one.numel() for name, one in own if one.dim() > 1 and name != "bias")
        places = 1
        if isinstance(module, nn.Conv1d):
            places = output.shape[-1]
        elif isinstance(output, Tensor) and output.dim() >= 4:
            places = output.shape[-2:].numel()
        total += weights * places

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    try:
        network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return total
