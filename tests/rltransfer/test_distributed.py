"""Two real processes give the gradients, sums and statistics of one that sees everything."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rltransfer import distributed
from rltransfer.learner import Learner, Loss
from rltransfer.network import RunningNormalizer

CPU = torch.device("cpu")


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def data() -> Tensor:
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(5))


def tasks() -> Tensor:
    return torch.tensor([0, 1, 1, 0, 1, 1, 1, 1])


def loss(module: nn.Module, rows: Tensor) -> Tensor:
    return (module(rows) - rows[:, :2]).square().mean()


def work(out: Path) -> None:
    """What each of the two processes does; runs in a process of its own."""
    torch.set_num_threads(1)
    distributed.initialize(CPU)
    distributed.initialize(CPU)  # A second time does nothing.
    rank = distributed.rank()
    # Different weights until the first process's are given to both.
    module = network(seed=rank)
    distributed.broadcast(module)
    half = data().split(4)[rank]
    loss(module, half).backward()
    distributed.average_gradients(module.parameters())
    found = {
        f"gradient.{name}": p.grad for name, p in module.named_parameters() if p.grad is not None
    }

    learner = Learner(module, learning_rate=0.1, optimizer="radam", max_grad_norm=0.1)
    for _ in range(3):
        learner.update([{"x": half}], lambda batch: Loss(loss(module, batch["x"])))
    found.update({f"weight.{name}": p.detach() for name, p in module.named_parameters()})

    normalizer = RunningNormalizer(3)
    normalizer.update(half)
    found.update({f"statistics.{name}": value for name, value in normalizer.state_dict().items()})
    each = RunningNormalizer(3, num_tasks=2)
    each.update(half, tasks().split(4)[rank])
    found.update({f"each.{name}": value for name, value in each.state_dict().items()})

    mine = torch.tensor([1.0, 10.0]) * (rank + 1)
    found["total"] = distributed.total(mine)
    found["mine"] = mine
    found["world"] = torch.tensor([rank, distributed.world_size()])
    save_file({name: value.clone() for name, value in found.items()}, out / f"{rank}.safetensors")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def test_two_processes_learn_as_one(tmp_path: Path):
    port = str(free_port())
    processes = []
    for rank in range(2):
        environment = {
            **os.environ, "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        }  # fmt: skip
        command = [sys.executable, __file__, str(tmp_path)]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE))
    for process in processes:
        try:
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
        assert process.returncode == 0, errors.decode()
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in range(2))

    module = network(seed=0)
    loss(module, data()).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        # Tolerance: float32 sums in another order.
        torch.testing.assert_close(first[f"gradient.{name}"], parameter.grad)
        assert torch.equal(first[f"gradient.{name}"], second[f"gradient.{name}"])

    # Also clipped: the norm is that of the mean gradient.
    learner = Learner(module, learning_rate=0.1, optimizer="radam", max_grad_norm=0.1)
    for _ in range(3):
        learner.update([{"x": data()}], lambda batch: Loss(loss(module, batch["x"])))
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(first[f"weight.{name}"], parameter.detach())
        assert torch.equal(first[f"weight.{name}"], second[f"weight.{name}"])

    normalizer = RunningNormalizer(3)
    normalizer.update(data())
    for name, value in normalizer.state_dict().items():
        if name == "variance":
            # Each process's deviations are from the common mean.
            value = data().var(0, correction=0)
        torch.testing.assert_close(first[f"statistics.{name}"], value)
        assert torch.equal(first[f"statistics.{name}"], second[f"statistics.{name}"])

    each = RunningNormalizer(3, num_tasks=2)
    each.update(data(), tasks())
    for name, value in each.state_dict().items():
        torch.testing.assert_close(first[f"each.{name}"], value)
        assert torch.equal(first[f"each.{name}"], second[f"each.{name}"])

    for rank, found in enumerate((first, second)):
        assert found["world"].tolist() == [rank, 2]
        # (1, 10) + (2, 20); what was summed is left as it was.
        assert found["total"].tolist() == [3, 30]
        assert found["mine"].tolist() == [rank + 1, 10 * (rank + 1)]


def test_one_process_needs_no_group(monkeypatch):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    distributed.initialize(CPU)
    monkeypatch.setenv("WORLD_SIZE", "1")
    distributed.initialize(CPU)
    assert not torch.distributed.is_initialized()
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    distributed.average_gradients([parameter])
    assert parameter.grad.tolist() == [1, 2]
    tensor = torch.ones(2)
    assert distributed.total(tensor) is tensor
    distributed.broadcast(nn.Linear(1, 1))


if __name__ == "__main__":
    work(Path(sys.argv[1]))
