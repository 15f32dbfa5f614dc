"""Several processes that learn one network; with one process every call is a no-op.

    torchrun --nproc-per-node 4 --no-python rltransfer train ppo --task CartPole-v1

Every process has environments of its own, and on CUDA a device of its own; gradients and
statistics are averages over all of them. The first process alone writes the run's files; each adds
its own state to checkpoints.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def initialize(device: torch.device) -> None:
    """Joins the process group that torchrun has prepared, if it has."""
    if world_size() > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def rank() -> int:
    """Returns this process's number, 0 for the one that writes files."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def local_rank() -> int:
    """Returns this process's number on its machine."""
    return int(os.environ["LOCAL_RANK"]) if world_size() > 1 else 0


def world_size() -> int:
    """Returns the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """Returns the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))


def wait() -> None:
    """Waits until every process has come here."""
    if world_size() > 1:
        dist.barrier()


def any_of(said: bool) -> bool:
    """Tells whether any process says so."""
    if world_size() == 1:
        return said
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    return bool(total(torch.tensor(float(said), device=device)))


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
