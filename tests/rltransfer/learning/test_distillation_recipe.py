"""The settings that follow from the teacher and from other options, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rltransfer.agents import PolicyDistillation
from rltransfer.learning.distillation_recipe import learner_settings, recipe
from rltransfer.policies.network import mlp
from rltransfer.policies.output import PolicyOutput

LOGITS = PolicyOutput(logits=torch.zeros(2, 3))
ACTION = PolicyOutput(mean=torch.zeros(2, 1))
GAUSSIAN = PolicyOutput(mean=torch.zeros(2, 1), log_std=torch.zeros(2, 1))


@pytest.mark.parametrize(
    ("label", "objective"), [(LOGITS, "kl"), (ACTION, "mse"), (GAUSSIAN, "kl")]
)
def test_what_follows_from_the_teacher(label: PolicyOutput, objective: str) -> None:
    where: dict[str, Any] = {"on_device": False, "reinforces": False, "remembers": True}
    acts = "1->0@0.2"
    assert recipe(label, **where) == {
        "objective": objective, "teacher_acts": acts, "epochs": 16
    }  # fmt: skip
    assert recipe(label, **{**where, "on_device": True})["epochs"] == 8
    recurrent = recipe(label, **{**where, "remembers": False})
    assert (recurrent["teacher_acts"], recurrent["epochs"]) == (acts, 4)
    reinforced = recipe(label, **{**where, "reinforces": True, "remembers": False})
    assert (reinforced["teacher_acts"], reinforced["epochs"]) == (0, 4)


@pytest.mark.parametrize(
    ("num_envs", "length"), [(1, 128), (8, 128), (16, 64), (64, 16), (100, 16), (4096, 16)]
)
def test_rollouts_from_a_memory_are_short(num_envs: int, length: int) -> None:
    assert learner_settings(num_envs, 0, remembers=True)["rollout_length"] == length


@pytest.mark.parametrize(
    ("batch_size", "rate"), [(0, 8e-3), (64, 5e-4), (256, 2e-3), (512, 4e-3), (4096, 8e-3)]
)
def test_the_step_size_is_in_proportion_to_the_minibatch(batch_size: int, rate: float) -> None:
    found = learner_settings(64, batch_size, remembers=True)
    assert found["learning_rate"] == pytest.approx(rate)
    assert found["batch_size"] == (batch_size or 1024)


def test_options_that_are_given_stay() -> None:
    options: dict[str, Any] = {"rollout_length": 5, "batch_size": 70, "learning_rate": 0.1}
    for others in ({}, {"reinforcement_weight": 1.0}, {"student": mlp(gru=8)}):
        method = PolicyDistillation(teacher="zoo", **options, **others)
        assert {name: getattr(method, name) for name in options} == options


@pytest.mark.parametrize("options", [{"reinforcement_weight": 1.0}, {"student": mlp(gru=8)}])
def test_without_a_memory_rollouts_are_long(options: Any) -> None:
    method = PolicyDistillation(teacher="zoo", **options)
    assert (method.rollout_length, method.batch_size, method.learning_rate) == (128, 512, 2e-3)
