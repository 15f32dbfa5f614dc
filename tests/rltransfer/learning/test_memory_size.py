"""The size of a replay buffer: what it takes, what is said, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import TASK

import rltransfer as rt
from rltransfer.agents import PolicyDistillation
from rltransfer.learning import memory_size
from rltransfer.learning.memory_size import check_memory_size
from rltransfer.learning.replay_memory import ReplayMemory
from rltransfer.machine.free_memory import GIB

CPU = torch.device("cpu")
VECTORS = {"policy": torch.zeros(2, 5)}, {"label": {"logits": torch.zeros(2, 3)}}
FRAMES = (
    {"policy": torch.zeros(2, 4, 84, 84, dtype=torch.uint8), "speed": torch.zeros(2, 1)},
    {"label": {"logits": torch.zeros(2, 3)}, "task": torch.zeros(2, dtype=torch.int64)},
)
STEP = 32
"""Bytes of a step of `VECTORS`: 5 + 3 numbers of 4 bytes."""


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What is free, which a test may change."""
    sizes = {"ram": 8 * GIB, "disk": 100 * GIB}
    monkeypatch.setattr(memory_size, "free_memory", lambda device: sizes["ram"])
    monkeypatch.setattr(memory_size, "free_disk", lambda folder: sizes["disk"])
    return sizes


def size_of(steps: int, folder: Path | None = None, total_steps: int = 10**12) -> str | None:
    memory = ReplayMemory(steps, 2, CPU, folder=folder)
    return check_memory_size(memory, *VECTORS, total_steps, Path("runs/a"))


@pytest.mark.parametrize(("example", "stack"), [(VECTORS, 0), (FRAMES, 4)])
def test_bytes_of_a_step_are_those_that_the_ring_takes(example: Any, stack: int) -> None:
    memory = ReplayMemory(20, 2, CPU, stack)
    expected = memory.step_bytes(*example) * memory.capacity
    observation = {name: group.unsqueeze(0) for name, group in example[0].items()}
    fields = {
        name: {"logits": one["logits"].unsqueeze(0)} if isinstance(one, dict) else one.unsqueeze(0)
        for name, one in example[1].items()
    }
    memory.add(observation, torch.ones(1, 2, dtype=torch.bool), fields)
    assert memory.nbytes() == expected


def test_a_large_buffer_is_said_and_a_small_one_is_not(free: dict[str, int]) -> None:
    assert size_of(GIB // STEP - 2) is None
    assert size_of(2 * GIB // STEP) == (
        "the replay buffer takes up to 2.0 GiB of the 8.0 GiB that are free in RAM, and each "
        "checkpoint stores it too: 100.0 GiB are free for them"
    )
    # What a short run never fills takes no space.
    assert size_of(10**12, total_steps=1000) is None


def test_what_does_not_fit_is_refused_with_the_remedy(free: dict[str, int], tmp_path: Path) -> None:
    steps = 19 * GIB // STEP
    with pytest.raises(rt.InputError, match=(
        r"would take 19.0 GiB, but 8.0 GiB are free in RAM: use --memory-steps 268_435_\d+ at most,"
        " or --memory-dir FOLDER.$"
    )):  # fmt: skip
        size_of(steps)
    free["disk"] = 30 * GIB
    with pytest.raises(rt.InputError, match=(
        r"take 38.0 GiB, but 30.0 GiB are free on the disk of runs/a, where each .* 503_316_48\d at"
    )):  # fmt: skip
        size_of(steps, Path("memory"))  # on the disk of the checkpoints
    free["disk"] = 15 * GIB
    with pytest.raises(rt.InputError, match=(
        r"but 15.0 GiB are free on the disk of memory: .* at most, or a --memory-dir on a larger"
    )):  # fmt: skip
        size_of(steps, Path("memory"))
    # What an earlier run left in the folder is replaced.
    (tmp_path / "field-a.memmap").write_bytes(bytes(2**20))
    free["disk"] = 2**20
    # The buffer and a checkpoint of it.
    size_of(2**20 // STEP, tmp_path, total_steps=2**20 // STEP)


def test_processes_of_a_machine_share_its_memory(
    free: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert "takes up to 6.0 GiB" in str(size_of(3 * GIB // STEP))
    assert "takes up to 2.0 GiB" in str(size_of(GIB, total_steps=4 * GIB // STEP))


def test_a_run_says_it_first_or_is_refused_before_anything_is_written(
    free: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def train() -> None:
        teacher = rt.CallableTeacher(lambda o, t: rt.PolicyOutput(logits=o["policy"]))
        method = PolicyDistillation(teacher=teacher, num_envs=2, rollout_length=8, memory_steps=200)
        rt.train(
            method, suite=TASK, total_steps=200, run_dir=tmp_path / "run", episodes=0,
            evaluate_episodes=0, evaluate_max_steps=10,
        )  # fmt: skip

    # 4 numbers, 4 logits and the task: 40 bytes a step.
    free["ram"] = 200 * 40 - 1
    with pytest.raises(rt.InputError, match="use --memory-steps 199 at most"):
        train()
    assert not list(tmp_path.iterdir())
    free["ram"] = 200 * 40
    monkeypatch.setattr(memory_size, "LARGE", 1)
    train()
    assert "the replay buffer takes up to 0.0 GiB of the 0.0 GiB that" in capsys.readouterr().err
