"""Whether training a network will fit into memory, before a run begins.

Counted are, besides the weights:

- the gradients and the optimizer's two moments of each parameter that trains;
- what autograd keeps of a minibatch for the backward pass, measured on a few random observations,
  and two gradients of the size of the largest of these tensors.

What frozen parts compute counts only as far as the rest keeps it. The rollout is not counted: see
`rollouts/rollout_size.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.learning.learner import Learner
from rltransfer.machine import distributed
from rltransfer.machine.free_memory import format_gib, free_memory
from rltransfer.policies.policy import Policy
from rltransfer.tasks.random_observation import random_observation

LARGE = 2**30
"""Bytes whose use is said before a run."""
PROBE_ROWS = 32
"""Random observations on which activations are measured."""


@dataclass(frozen=True)
class NetworkSize:
    """Bytes that training a network takes."""

    weights: int
    """All parameters and buffers, frozen ones among them; they exist before training."""
    optimizer: int
    """Gradients and moments of the parameters that train."""
    activations: int
    """What is kept of a minibatch."""

    @property
    def added(self) -> int:
        """What training adds to the weights."""
        return self.optimizer + self.activations


def network_size(policy: Policy, learner: Learner, rows: int) -> NetworkSize:
    """The bytes that training a policy takes.

    Args:
        policy: The policy, without a recurrent state.
        learner: Its learner.
        rows: Samples of a minibatch.
    """
    state = (*policy.parameters(), *policy.buffers())
    trained = sum(p.numel() * p.element_size() for p in learner.parameters)
    return NetworkSize(
        weights=sum(tensor.numel() * tensor.element_size() for tensor in state),
        optimizer=3 * trained,
        activations=math.ceil(rows * _row_bytes(policy, learner)),
    )


def _row_bytes(policy: Policy, learner: Learner) -> float:
    """The bytes that a forward pass keeps of each row for the backward pass."""
    device = learner.device
    space = policy.spec.observation_space
    observation = {
        name: group.to(device) for name, group in random_observation(space, PROBE_ROWS).items()
    }
    task = torch.zeros(PROBE_ROWS, dtype=torch.int64, device=device)
    own = {tensor.untyped_storage().data_ptr() for tensor in policy.state_dict().values()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = tensor.detach()  # alive, so that no other tensor is stored there
        return tensor

    mixed = learner.precision == "bfloat16"
    with (
        torch.enable_grad(),
        torch.autocast(device.type, torch.bfloat16, enabled=mixed),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        policy(observation, task)
    sizes = [tensor.untyped_storage().nbytes() for tensor in kept.values()]
    return (sum(sizes) + 2 * max(sizes, default=0)) / PROBE_ROWS


def check_network_size(policy: Policy, learner: Learner, rows: int, remedy: str) -> str | None:
    """Checks that training a policy fits into the memory of its device.

    Args:
        policy: The policy, without a recurrent state.
        learner: Its learner.
        rows: Samples of a minibatch.
        remedy: What takes less, e.g. "a smaller --batch-size".

    Returns:
        The size in words if it is large.

    Raises:
        InputError: It does not fit.
    """
    size = network_size(policy, learner, rows)
    on_cpu = learner.device.type == "cpu"
    # All processes of a machine share its RAM.
    processes = distributed.local_world_size() if on_cpu else 1
    needed, free = size.added * processes, free_memory(learner.device)
    place = "in RAM" if on_cpu else f"on {learner.device}"
    parts = (
        f"gradients and optimizer {format_gib(size.optimizer * processes)}, a minibatch of "
        f"{rows:,} {format_gib(size.activations * processes)}"
    )
    if free is not None and needed > free:
        raise InputError(
            f"Training the network would take {format_gib(needed)} ({parts}) in addition to its "
            f"weights, but {format_gib(free)} are free {place}: use {remedy}."
        )
    if needed + size.weights * processes < LARGE:
        return None
    known = "" if free is None else f" of the {format_gib(free)} that are free"
    return (
        f"training takes up to {format_gib(needed)}{known} {place} ({parts}), in addition to the "
        f"network's weights of {format_gib(size.weights * processes)}"
    )
