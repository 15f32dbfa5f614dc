"""Two real processes give the gradients, sums and statistics of one that sees everything."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import Forked
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rltransfer.agents.ppo import Surrogate
from rltransfer.cli.main import main
from rltransfer.files.checkpoint import newest_checkpoint
from rltransfer.learning.action_spread import ActionSpread
from rltransfer.learning.learner import Learner, Loss
from rltransfer.learning.return_gap import ReturnGap
from rltransfer.machine import distributed
from rltransfer.policies.normalizer import RunningNormalizer
from rltransfer.policies.output import PolicyOutput

TASK = "rltransfer/MinAtar-Breakout-v0"
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


SURROGATES = {
    "one task": (1, False),
    "one task, weighted": (1, True),
    "two tasks": (2, False),
    "two tasks, weighted": (2, True),
}
"""The number of tasks, and whether samples have weights."""


def rollout() -> dict[str, Tensor]:
    """Samples of two tasks whose advantages, weights and tasks differ between the halves."""
    torch.manual_seed(7)
    far = torch.tensor([0.0] * 4 + [5.0] * 4)
    return {
        "x": data(), "task": tasks(), "action": torch.randint(2, (8,)),
        "old_log_prob": -torch.rand(8), "return": torch.randn(8), "advantage": torch.randn(8) + far,
        "weight": torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0]),
    }  # fmt: skip


def surrogate(module: nn.Module, batch: dict[str, Tensor], kind: str) -> Loss:
    num_tasks, weighted = SURROGATES[kind]
    if not weighted:
        batch = {name: value for name, value in batch.items() if name != "weight"}
    scores = module(batch["x"])
    return Surrogate().loss(PolicyOutput(logits=scores, value=scores.sum(-1)), batch, num_tasks)


def ended_episodes() -> tuple[Tensor, Tensor]:
    """Returns and ends of two steps of eight rows, four of each task.    (2, 8) each"""
    done = torch.tensor([[1, 0, 1, 1, 0, 0, 0, 0], [1, 0, 0, 1, 1, 0, 0, 0]], dtype=torch.bool)
    return torch.arange(16.0).view(2, 8), done


def gap(episode_return: Tensor, done: Tensor) -> Tensor:
    lag = ReturnGap(2, CPU)
    lag.set_reference_returns([20.0, 20.0], [0.0, 0.0])
    lag.update(episode_return, done)
    return lag.lag


def teachers_actions() -> Tensor:
    """Actions in two steps of eight rows, four of each task.    (2, 8, 3)"""
    torch.manual_seed(3)
    return torch.randn(2, 8, 3) + torch.arange(8.0).view(8, 1)


def units(action: Tensor) -> Tensor:
    """Mean, standard deviation and unit of noise of the actions in each task.    (3, 2, 3)"""
    spread = ActionSpread(torch.full((2, 3), 2.0))
    spread.update(action)
    return torch.stack([*spread.units(2), spread.noise])


def work(out: Path) -> None:
    """What each of the two processes does."""
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

    for kind in SURROGATES:
        module = network(seed=0)
        half_rollout = {name: value.split(4)[rank] for name, value in rollout().items()}
        surrogate(module, half_rollout, kind).total.backward()
        distributed.average_gradients(module.parameters())
        for name, p in module.named_parameters():
            assert p.grad is not None
            found[f"surrogate.{kind}.{name}"] = p.grad
    # The first process has the first two rows of each task, the second the others.
    rows = torch.tensor([0, 1, 4, 5]) + 2 * rank
    found["lag"] = gap(*(part[:, rows] for part in ended_episodes()))
    found["units"] = units(teachers_actions()[:, rows])

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


def two_processes(folder: Path, function: Callable[..., Any], *args: object) -> list[str]:
    """Runs a function as torchrun would, twice, and returns what each printed."""
    port, folder = str(free_port()), folder / f"printed-{function.__name__}"
    processes = []
    for rank in range(2):
        environment = {
            "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        where = Path(f"{folder}-{rank}")
        processes.append(Forked(function, *args, folder=where, environment=environment))
    for process in processes:
        assert process.code() == 0, process.errors
    return [process.output for process in processes]


def trained(*words: str) -> int:
    """Distils, with the given options."""
    return main(["train", "policy-distillation", *words])


def test_a_run_of_two_processes_goes_on_bitwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    printed = two_processes(
        tmp_path,
        trained,
        "--task",
        TASK,
        "--teacher",
        str(teacher_run(tmp_path)),
        "--num-envs",
        "4",
        "--rollout-length",
        "16",
        "--batch-size",
        "64",
        "--steps",
        "1024",
        "--checkpoint-every",
        "256",
        "--evaluate-every",
        "512",
        "--episodes",
        "2",
        "--run-dir",
        str(whole),
        "--memory-dir",
        str(tmp_path / "memory"),
    )
    # One of them shows the result and writes the files; both learned from half of the steps.
    assert TASK in printed[0] and not printed[1]
    # Curves, and settings.
    assert len(list(whole.glob("events.*"))) == 2
    assert json.loads((whole / "result.json").read_text())["env_steps"] == 1024
    assert len(list((tmp_path / "memory").glob("*-1.memmap"))) > 1
    ends = [newest_checkpoint(whole) / name for name in ("state", "state-1")]
    states = [load_file(end.with_suffix(".safetensors")) for end in ends]
    weights = [name for name in states[0] if name.startswith("/agent/policy/")]
    assert weights and all(torch.equal(states[0][name], states[1][name]) for name in weights)
    seen = next(name for name in states[0] if name.startswith("/engine/observation"))
    assert not torch.equal(states[0][seen], states[1][seen])

    shutil.copytree(whole, cut)
    shutil.rmtree(newest_checkpoint(cut))
    (cut / "result.json").unlink()
    again = ["--resume", str(cut), "--memory-dir", str(tmp_path / "memory")]
    assert main(["train", "policy-distillation", *again]) == 2
    assert "was written by 2 processes, but now there are 1" in capsys.readouterr().err
    two_processes(tmp_path, trained, *again, "--quiet")
    for end, state in zip(ends, states, strict=True):
        resumed = load_file(cut / "checkpoints" / end.parent.name / f"{end.name}.safetensors")
        assert resumed.keys() == state.keys()
        assert all(same_bits(resumed[name], tensor) for name, tensor in state.items())


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Tells whether two tensors are the same, NaN where the other has NaN."""
    return torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8))


def teacher_run(folder: Path) -> Path:
    """Returns the folder of a run whose policy has hardly learned."""
    words = ["train", "ppo", "--task", TASK, "--num-envs", "4", "--rollout-length", "16"]
    words += ["--steps", "64", "--episodes", "1", "--quiet", "--run-dir", str(folder / "teacher")]
    assert main(words) == 0
    return folder / "teacher"


def test_two_processes_learn_as_one(tmp_path: Path):
    two_processes(tmp_path, work, tmp_path)
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

    for kind in SURROGATES:
        module = network(seed=0)
        surrogate(module, rollout(), kind).total.backward()
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(first[f"surrogate.{kind}.{name}"], parameter.grad)
    # Returns of task 0: 0, 2, 3, 8 and 11, of task 1: 12.
    assert first["lag"].tolist() == pytest.approx([1 - 24 / 5 / 20, 1 - 12 / 20])
    assert torch.equal(first["lag"], gap(*ended_episodes()))
    assert torch.equal(first["lag"], second["lag"])
    torch.testing.assert_close(first["units"], units(teachers_actions()))
    assert torch.equal(first["units"], second["units"])

    for rank, found in enumerate((first, second)):
        assert found["world"].tolist() == [rank, 2]
        # (1, 10) + (2, 20); what was summed is left as it was.
        assert found["total"].tolist() == [3, 30]
        assert found["mine"].tolist() == [rank + 1, 10 * (rank + 1)]


def test_seeds_of_processes_differ_from_those_of_all_runs(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    seen = set()
    for seed in (0, 1, 2, 1000, 2000):
        for rank in range(4):
            monkeypatch.setenv("RANK", str(rank))
            assert (distributed.process_seed(seed) == seed) == (rank == 0)
            seen.add(distributed.process_seed(seed))
    assert len(seen) == 20
    # A run of one process has the seed of its options.
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert distributed.process_seed(7) == 7


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
