"""Data-parallel training; with one process every call is a no-op.

    torchrun --nproc-per-node 4 --no-python rltransfer train ppo --task CartPole-v1

Each process has separate environments and random numbers, and on CUDA a separate device. Gradients,
statistics of observations and advantages, and the lag are those of all processes. The first process
writes the run's files; each process adds its state to checkpoints.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn


def initialize(device: torch.device) -> None:
    """Joins the process group if torchrun started the process."""
    if world_size() > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def rank() -> int:
    """Number of this process; 0 writes files."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


def local_rank() -> int:
    """Number of this process on its machine."""
    return int(os.environ["LOCAL_RANK"]) if world_size() > 1 else 0


def world_size() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """Number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))


def process_seed(seed: int) -> int:
    """This process's seed: the given one in the first process, in the others one spawned from it.

    Seeds of neighbouring runs, such as 0 and 1000, thus share no process's seed.
    """
    if rank() == 0:
        return seed
    spawned = np.random.SeedSequence(seed, spawn_key=(rank(),)).generate_state(1, np.uint64)
    return int(spawned[0]) % 2**63


def wait() -> None:
    """Waits for all processes."""
    if world_size() > 1:
        dist.barrier()


def any_of(flag: bool) -> bool:
    """Whether the flag is true in any process."""
    if world_size() == 1:
        return flag
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    return bool(total(torch.tensor(float(flag), device=device)))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces each gradient by its mean over the processes, in one all-reduce."""
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
    """Copies the first process's weights and buffers to all processes."""
    if world_size() > 1:
        for tensor in module.state_dict().values():
            contiguous = tensor.contiguous()
            dist.broadcast(contiguous, 0)
            tensor.copy_(contiguous)


def total(tensor: Tensor) -> Tensor:
    """Sum of a tensor over the processes."""
    if world_size() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor
