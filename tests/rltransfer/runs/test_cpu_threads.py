"""Which number of threads runs, evaluations and benchmarks compute with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import TASK

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.machine import threads
from rltransfer.policies.network import Network
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.runs.benchmark import benchmark_learner, benchmark_rollout
from rltransfer.runs.config import read_config
from rltransfer.runs.stopwatch import Measuring

QUICK: dict[str, Any] = {
    "suite": TASK, "total_steps": 64, "episodes": 0, "evaluate_episodes": 0, "quiet": True,
    "device": "cpu",
}  # fmt: skip
SMALL = rt.agents.PPO(num_envs=4, rollout_length=8, batch_size=32)
ROW = 2 * (4 * 64 + 64 * 64) + 64 * 4 + 64
"""Multiply-adds of the default network on the task's four numbers, with four actions."""


@pytest.fixture(autouse=True)
def four_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads that torch would compute with: in truth it is one."""
    number = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: number[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda value: number.__setitem__(0, value))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of threads at each rollout."""
    found = []
    collect = RolloutEngine.collect

    def watched(self: RolloutEngine, *args: Any) -> Any:
        found.append(torch.get_num_threads())
        return collect(self, *args)

    monkeypatch.setattr(RolloutEngine, "collect", watched)
    return found


def stored(run_dir: Path) -> Any:
    return read_config(run_dir)["options"]["threads"]


def test_a_small_network_has_one_thread(tmp_path: Path, seen: list[int]) -> None:
    run = rt.train(SMALL, run_dir=tmp_path / "run", **QUICK)
    assert set(seen) == {1} and stored(tmp_path / "run") == 1
    assert run.result["hardware"]["threads"] == 1
    assert torch.get_num_threads() == 4  # it is the caller's again


def test_a_large_one_has_more(
    tmp_path: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A minibatch of 32 rows is the work of two threads and a half.
    monkeypatch.setattr(threads, "WORK_PER_THREAD", ROW * 32 * 2 // 5)
    rt.train(SMALL, run_dir=tmp_path / "run", **QUICK)
    assert set(seen) == {2} and stored(tmp_path / "run") == 2
    seen.clear()
    rt.train(SMALL, run_dir=tmp_path / "given", threads=3, **QUICK)
    assert set(seen) == {3} and stored(tmp_path / "given") == 3
    seen.clear()
    rt.train(SMALL, run_dir=tmp_path / "zero", threads=0, **QUICK)
    assert set(seen) == {4} and stored(tmp_path / "zero") == 0
    seen.clear()
    # Another machine, or another version's rule: a run resumes with its number.
    monkeypatch.setattr(threads, "WORK_PER_THREAD", 1)
    longer = {**QUICK, "total_steps": 128}
    rt.train(SMALL, run_dir=tmp_path / "run", resume=True, **longer)
    assert set(seen) == {2} and stored(tmp_path / "run") == 2
    seen.clear()
    # As earlier versions stored it: torch's default.
    assert main(["train", "ppo", "--resume", str(tmp_path / "zero"), "--total-steps", "128"]) == 0
    rt.train(SMALL, run_dir=tmp_path / "zero", resume=True, **{**QUICK, "total_steps": 192})
    assert set(seen) == {4} and stored(tmp_path / "zero") == 0


def test_the_labels_of_a_large_teacher_count(
    tmp_path: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    large = rt.agents.PPO(
        num_envs=4, rollout_length=8, batch_size=32, network=rt.policies.mlp((512, 512))
    )
    rt.train(large, run_dir=tmp_path / "teacher", **QUICK)
    student = rt.agents.PolicyDistillation(
        teacher=f"Noisy('{tmp_path / 'teacher'}', sigma=0.1)",
        student=rt.policies.mlp((8,)), num_envs=4, rollout_length=8, batch_size=32,
    )  # fmt: skip
    # Four rows of the teacher, with its value; 32 rows of the student are less.
    of_teacher = 4 * (2 * (4 * 512 + 512 * 512) + 512 * 4 + 512)
    monkeypatch.setattr(threads, "WORK_PER_THREAD", of_teacher // 3)
    seen.clear()
    rt.train(student, run_dir=tmp_path / "student", **QUICK)
    assert set(seen) == {3}


def test_initial_weights_do_not_depend_on_the_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_build = []
    build = rt.agents.PPO.build

    def watched(self: rt.agents.PPO, context: rt.TrainingContext) -> Any:
        at_build.append(torch.get_num_threads())
        return build(self, context)

    monkeypatch.setattr(rt.agents.PPO, "build", watched)
    for number in (1, 3, "auto"):
        rt.train(SMALL, run_dir=tmp_path / str(number), threads=number, **QUICK)
    assert at_build == [1, 1, 1]


def test_a_refused_run_leaves_the_number(tmp_path: Path) -> None:
    recurrent = rt.agents.PQN(num_envs=4, rollout_length=8)
    continuous = {**QUICK, "suite": "Pendulum-v1"}
    with pytest.raises(rt.InputError, match="discrete"):
        rt.train(recurrent, run_dir=tmp_path / "run", threads=2, **continuous)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(rt.InputError, match="already exists"):
        rt.train(SMALL, run_dir=tmp_path / "full", threads=2, **QUICK)
    assert torch.get_num_threads() == 4


def test_an_evaluation_has_as_many_as_its_network_needs(
    tmp_path: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    rt.train(SMALL, run_dir=run_dir, **QUICK)
    for work, number in ((ROW * 10**6, 1), (ROW * 16 // 3, 3)):
        monkeypatch.setattr(threads, "WORK_PER_THREAD", work)
        for source in (run_dir, rt.load_teacher(str(run_dir))):
            seen.clear()
            rt.evaluate(source, TASK, episodes=16)
            assert set(seen) == {number}
            assert torch.get_num_threads() == 4


def test_benchmarks_have_the_threads_of_training(
    tmp_path: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "WORK_PER_THREAD", ROW * 32 // 2)
    quick = Measuring(repeats=1, seconds=0.0, device="cpu")
    found = benchmark_rollout(rt.Suite.of(TASK), 64, 2, Network(), quick)
    # Without the value a row is half the work: 64 rows are as much as 32 with it.
    assert set(seen) == {2} and found["hardware"]["threads"] == 4
    words = ["--num-envs", "4", "--rollout-length", "8", "--batch-size", "32", "--repeats", "1"]
    seen.clear()
    assert main(["benchmark", "train", "ppo", "--task", TASK, *words, "--seconds", "0"]) == 0
    assert set(seen) == {2}
    monkeypatch.setattr(threads, "WORK_PER_THREAD", 10**6)
    counted = benchmark_learner(Network(encoder="nature"), 4, 100, rt.Objective.of("kl"), quick)
    assert counted["hardware"]["threads"] == 4
    assert torch.get_num_threads() == 4


def acts_like_nobody(observation: rt.Observation, task: Tensor) -> rt.PolicyOutput:
    return rt.PolicyOutput(logits=torch.zeros(len(task), 4))


def test_a_function_is_not_counted(tmp_path: Path, seen: list[int]) -> None:
    student = rt.agents.PolicyDistillation(
        teacher=rt.CallableTeacher(acts_like_nobody), num_envs=4, rollout_length=8, batch_size=32
    )
    rt.train(student, run_dir=tmp_path / "run", **QUICK)
    assert set(seen) == {1}
