"""Several processes that learn one network (torchrun); with one process every call is a no-op."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def initialize(device: torch.device) -> None:
    """Joins the process group that torchrun has prepared, if it has."""
    if (
        "WORLD_SIZE" in os.environ
        and not dist.is_initialized()
        and int(os.environ["WORLD_SIZE"]) > 1
    ):
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def rank() -> int:
    """Returns this process's number, 0 for the one that writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Returns the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces each gradient by its mean over the processes, in one message."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def broadcast(module: nn.Module) -> None:
    """Gives every process the weights and buffers of the first."""
    if world_size() > 1:
        for tensor in module.state_dict().values():
            whole = tensor.contiguous()
            dist.broadcast(whole, 0)
            tensor.copy_(whole)


def total(tensor: Tensor) -> Tensor:
    """Returns the sum of a tensor over the processes."""
    if world_size() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor
