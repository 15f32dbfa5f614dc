"""Benchmarks: what they count, and that each meaning of a step is measured apart."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import TASK

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.policies.network import Network
from rltransfer.runs.benchmark import benchmark_teachers, benchmark_train
from rltransfer.runs.stopwatch import Measuring, Stopwatch

QUICK = Measuring(repeats=3, seconds=0.0, device="cpu", threads=1)
SHELL = ["--repeats", "1", "--seconds", "0", "--device", "cpu", "--threads", "1", "--json"]
TWO_GAMES = rt.Suite.of("rltransfer/MinAtar-Breakout-v0", "rltransfer/MinAtar-Asterix-v0")


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["benchmark", *words, *SHELL]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_functions_are_measured_in_turn_and_the_median_counts() -> None:
    called: list[str] = []

    def work(name: str, seconds: float) -> int:
        called.append(name)
        time.sleep(seconds)
        return 10

    fast, slow = Stopwatch(QUICK).speeds(lambda: work("a", 0.01), lambda: work("b", 0.04))
    # Twice each to warm up, then in turn, once a repetition.
    assert called == ["a", "a", "b", "b", *"ababab"]
    # 10 in 0.01 s are 1,000 a second; a sleep may be longer than asked for, but never shorter.
    assert 500 < fast.median <= 1_000
    assert 200 < slow.median <= 250
    assert slow.min <= slow.median <= slow.max


def test_each_meaning_of_a_step_costs_more_than_the_one_before() -> None:
    method = rt.agents.PPO(
        network=Network(hidden=(64,)), num_envs=32, rollout_length=16, batch_size=128
    )
    found = benchmark_train("ppo", method, rt.Suite.of(TASK), 10_000, QUICK)
    speeds = [
        found[name]["median"] for name in ("environments_only", "with_inference", "with_training")
    ]
    assert speeds == sorted(speeds, reverse=True)
    assert found["teacher_fraction"] is None


def test_the_teachers_share_is_told() -> None:
    method = rt.agents.PolicyDistillation(teacher="zoo", num_envs=16, rollout_length=4)
    suite = rt.Suite.of("rltransfer/MinAtar-Breakout-v0")
    found = benchmark_train("policy-distillation", method, suite, 10_000, QUICK)
    assert 0 < found["teacher_fraction"] < 1


def test_labels_of_one_teacher_and_of_one_a_task() -> None:
    found = benchmark_teachers(TWO_GAMES, 8, Network(), QUICK)
    assert found["num_teachers"] == 2
    one, each = found["one_teacher"]["median"], found["one_teacher_a_task"]["median"]
    assert found["ratio"] == pytest.approx(one / each)


def test_rollouts_from_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    found = said(
        ["rollout", "--suite", "minatar", "--num-envs", "4", "--rollout-length", "2"], capsys
    )
    assert len(found["tasks"]) == 5
    speeds = [task["environments_only"]["median"] for task in found["tasks"].values()]
    product = 1.0
    for speed in speeds:
        product *= speed
    assert found["geometric_mean"]["environments_only"] == pytest.approx(product ** (1 / 5))
    assert found["together"]["with_inference"]["median"] > 0
    assert found["hardware"]["threads"] == 1


def test_training_from_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    found = said(
        ["train", "ppo", "--task", TASK, "--num-envs", "4", "--rollout-length", "8"], capsys
    )
    assert found["agent"] == "ppo"
    assert found["with_training"]["median"] > 0


def test_a_learner_from_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["learner", "--width", "0.125", "--batch-size", "4", "--memory-steps", "64"]
    found = said(words, capsys)
    # One frame of 84 x 84 bytes, its age, and six float32 labels.
    assert found["memory_bytes_per_step"] == 84 * 84 + 1 + 6 * 4
    assert found["samples_per_second"]["median"] > 0


def test_teachers_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "teachers", "--suite", "minatar", "--num-envs", "2"]
    assert main([*words, *SHELL[:-1]]) == 0
    assert "one teacher a task" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "needs a benchmark: rollout, train, learner, teachers"),
        (["flight"], "There is no benchmark 'flight'"),
        (["rollout"], "either --task ID or --suite NAME"),
        (["train"], "needs an agent"),
        (["train", "pp0", "--task", TASK], "pp0"),
        (["train", "ppo", "--task", TASK, "--steps", "0"], "steps is 0: it must be at least 1"),
        (["rollout", "--task", TASK, "--num-envs", "0"], "num_envs is 0"),
        (["rollout", "--task", TASK, "--rollout-length", "0"], "rollout_length is 0"),
        (["rollout", "--task", TASK, "--repeats", "0"], "repeats is 0"),
        (["rollout", "--task", TASK, "--seconds", "-1"], "seconds is -1.0"),
        (["rollout", "--task", TASK, "--seconds", "nan"], "seconds is nan"),
        (["rollout", "--task", TASK, "--seed", "-1"], "seed is -1"),
        (["rollout", "--task", TASK, "--threads", "-1"], "threads is -1"),
        (["learner", "--batch-size", "0"], "batch_size is 0"),
        (["teachers", "--task", TASK, "--num-envs", "0"], "num_envs is 0"),
    ],
)
def test_what_cannot_be_measured(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_compiling_changes_the_kernels_and_not_what_is_learned(tmp_path: Path) -> None:
    def weights(compiled: bool) -> dict[str, Tensor]:
        run = rt.train(
            rt.agents.PPO(
                network=Network(hidden=(8,)), num_envs=4, rollout_length=8, batch_size=32
            ),
            suite=TASK,
            run_dir=tmp_path / str(compiled),
            total_steps=64,
            compile=compiled,
            episodes=1,
            evaluate_episodes=0,
            quiet=True,
            device="cpu",
            threads=1,
        )
        return run.agent.policy.state_dict()

    plain, compiled = weights(False), weights(True)
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        # Tolerance: kernels that are fused round otherwise, over six steps of Adam.
        torch.testing.assert_close(compiled[name], value, atol=1e-4, rtol=1e-3)
