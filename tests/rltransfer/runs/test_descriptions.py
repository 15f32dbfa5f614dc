"""Every curve, histogram and picture of a run has a description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import house
import pytest
from tensorboard_reader import events_of
from toy import TASK

import rltransfer as rt
from rltransfer.agents import distral, policy_distillation, ppo, pqn, soft_q
from rltransfer.learning import learner
from rltransfer.runs.descriptions import Descriptions
from rltransfer.tasks.task import Task
from rltransfer.teachers import vote

QUICK: dict[str, Any] = {
    "total_steps": 128, "episodes": 2, "evaluate_episodes": 2, "quiet": True, "device": "cpu",
    "evaluate_every": 32,
}  # fmt: skip
SMALL: dict[str, Any] = {"num_envs": 2, "rollout_length": 16}


def echo() -> rt.Teacher:
    return rt.CallableTeacher(lambda seen, _: rt.PolicyOutput(logits=5 * seen["policy"]))


def echo_of_two() -> rt.Teacher:
    """For CartPole, whose observations are padded to no more than four numbers."""
    return rt.CallableTeacher(lambda seen, _: rt.PolicyOutput(logits=seen["policy"][:, :2]))


def noisy_vote() -> rt.Teacher:
    return rt.Vote([echo(), echo()], noise_scale=1.0)


def push() -> rt.Teacher:
    """Acts in one dimension, as Pendulum does."""
    return rt.CallableTeacher(lambda seen, _: rt.PolicyOutput(mean=seen["policy"][:, :1]))


def student(**options: Any) -> rt.Method:
    return rt.agents.PolicyDistillation(**{**SMALL, "batch_size": 32, **options})


METHODS: dict[str, tuple[Any, Any]] = {
    "ppo": (lambda: rt.agents.PPO(**SMALL, batch_size=32), TASK),
    "pqn": (lambda: rt.agents.PQN(**SMALL, batch_size=32), TASK),
    "dagger": (
        lambda: student(teacher=noisy_vote(), teacher_acts="1->0@0.5", objective="KL() + MSE()"),
        TASK,
    ),
    "kickstarting": (
        lambda: student(
            teacher=echo(), teacher_acts=0, distillation_weight="lag", reinforcement_weight=1,
            objective="js",
        ),
        TASK,
    ),
    "continuous": (
        lambda: student(teacher=push(), objective="mse"),
        Task("Pendulum-v1", {"max_episode_steps": 5}),
    ),
    "per-task": (
        lambda: student(
            teacher=rt.PerTask({TASK: noisy_vote(), "CartPole-v1": echo_of_two()}),
            objective="ReverseKL() + NLL()",
        ),
        [TASK, "CartPole-v1"],
    ),
    "distral": (lambda: rt.agents.Distral(**SMALL), [TASK, "CartPole-v1"]),
    "soft-q": (lambda: rt.agents.SoftQ(**SMALL), TASK),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_everything_that_a_run_writes_is_described(name: str, tmp_path: Path) -> None:
    make, suite = METHODS[name]
    rt.train(make(), suite=suite, run_dir=tmp_path / "run", **QUICK)
    events = events_of(tmp_path / "run")
    tags = events.Tags()
    assert len(tags["scalars"]) > 10 and tags["histograms"]
    for tag in (*tags["scalars"], *tags["histograms"], *tags["images"]):
        text = events.SummaryMetadata(tag).summary_description
        assert text.endswith(".") and len(text) > 15, f"{tag}: {text!r}"


def test_a_task_or_a_member_follows_the_name(tmp_path: Path) -> None:
    make, suite = METHODS["per-task"]
    run = rt.train(make(), suite=suite, run_dir=tmp_path / "run", **{**QUICK, "total_steps": 64})
    describe = Descriptions(run.agent)
    assert describe(f"teacher/epsilon/{TASK}") == vote.FIGURES["epsilon"]
    assert describe("train/reverse_kl").startswith("KL(student || teacher")
    assert describe("evaluate/return/a/b-v0").startswith("Mean return of the learned policy")
    # A metric of a plug-in that does not describe it.
    assert describe("train/mine") == describe("mine") == ""


def test_every_metric_of_a_method_is_on_the_page_of_methods() -> None:
    page = (house.ROOT / "docs" / "methods.md").read_text()
    for metrics in (
        learner.METRICS, policy_distillation.METRICS, ppo.METRICS, pqn.METRICS, distral.METRICS,
        soft_q.METRICS,
    ):  # fmt: skip
        for name in metrics:
            assert f"`train/{name}`" in page or f"`train/{name}/TASK`" in page, name
