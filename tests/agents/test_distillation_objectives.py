"""Policy distillation with objectives on features, attention and gradients, as a run does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy import TASK

import rltransfer as rt
from rltransfer.agents.policy_distillation import PolicyDistillation
from rltransfer.files.checkpoint import newest_checkpoint
from rltransfer.runs.config import RunOptions
from rltransfer.runs.run import Run

SMALL: dict[str, Any] = {
    "num_envs": 8, "rollout_length": 10, "batch_size": 40, "epochs": 4, "learning_rate": 3e-3,
    "memory_steps": 800, "student": rt.policies.mlp(hidden=(16,)),
}  # fmt: skip
MINATAR = "rltransfer/MinAtar-Breakout-v0"


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> rt.Teacher:
    """A policy that is of no use, but has features and gradients."""
    folder = tmp_path_factory.mktemp("expert") / "run"
    rt.train(
        rt.agents.PPO(num_envs=8, rollout_length=10), suite=TASK, total_steps=80, run_dir=folder,
        episodes=1, evaluate_episodes=0, quiet=True,
    )  # fmt: skip
    return rt.load_teacher(folder)


def run_of(folder: Path, teacher: rt.Teacher | str, suite: str = TASK, **options: Any) -> Run:
    method = PolicyDistillation(teacher=teacher, **{**SMALL, **options})
    return Run(
        "policy-distillation", method, rt.Suite.of(suite), RunOptions(total_steps=800), folder, True
    )


def tensors(state: Any) -> list[torch.Tensor]:
    if isinstance(state, dict):
        return [tensor for part in state.values() for tensor in tensors(part)]
    return [state] if isinstance(state, torch.Tensor) else []


@pytest.mark.parametrize(
    ("objective", "stored"),
    [
        ("kl", {"logits"}),
        ("kl + 0.01 * FeatureRegression", {"logits", "features"}),
        ("kl + RepresentationalDistance + JacobianMatching", {"logits", "features", "jacobian"}),
    ],
)
def test_only_what_is_needed_is_stored(
    tmp_path: Path, expert: rt.Teacher, objective: str, stored: set[str]
) -> None:
    run = run_of(tmp_path, expert, objective=objective)
    metrics = run.iterate()
    names = {name for name in run.agent.memory.state_dict()["store"] if "/label/" in name}
    assert names == {f"field/label/{name}" for name in stored}
    for term in rt.Objective.of(objective).terms():
        assert f"train/{term[1].name}" in metrics


@pytest.mark.parametrize("objective", ["kl + FeatureRegression", "kl + 0.1 * JacobianMatching"])
def test_resumed_equals_unbroken(tmp_path: Path, expert: rt.Teacher, objective: str) -> None:
    unbroken = run_of(tmp_path / "unbroken", expert, objective=objective)
    stopped = run_of(tmp_path / "stopped", expert, objective=objective)
    for run in (unbroken, stopped):
        for _ in range(3):
            run.iterate()
        run.save()
    again = run_of(tmp_path / "stopped", expert, objective=objective)
    again.restore()
    for _ in range(3):
        unbroken.iterate()
        again.iterate()
    one, other = tensors(unbroken.agent.state_dict()), tensors(again.agent.state_dict())
    assert len(one) == len(other)
    # What is not known yet is NaN in both.
    same = (torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(one, other, strict=True))
    assert all(same)


def test_the_map_is_learned_and_kept_but_no_part_of_the_policy(
    tmp_path: Path, expert: rt.Teacher
) -> None:
    run = run_of(tmp_path, expert, objective="kl + FeatureRegression")
    fresh = {name: tensor.clone() for name, tensor in run.agent.objective.state_dict().items()}
    taught = {name: tensor.clone() for name, tensor in expert.module.state_dict().items()}
    run.iterate()
    run.save()
    # 16 features of the student's to the teacher's 64, and a bias.
    assert sum(tensor.numel() for tensor in fresh.values()) == 17 * 64
    learned = run.agent.objective.state_dict()
    assert all(not torch.equal(learned[name], tensor) for name, tensor in fresh.items())
    assert all(torch.equal(expert.module.state_dict()[name], taught[name]) for name in taught)
    stem = newest_checkpoint(tmp_path) / "policy"
    assert (
        load_file(stem.with_suffix(".safetensors")).keys() == run.agent.policy.state_dict().keys()
    )


def test_task_weights_and_schedules_reach_the_loss(tmp_path: Path, expert: rt.Teacher) -> None:
    objective = f"KL(weights={{'{TASK}': 0}}) + '0->1' * MSE()"
    run = run_of(tmp_path / "zero", expert, objective=objective)
    before = {name: tensor.clone() for name, tensor in run.agent.policy.named_parameters()}
    metrics = run.iterate()
    assert metrics["train/kl"] == metrics["train/mse"] == 0
    assert all(torch.equal(before[n], t) for n, t in run.agent.policy.named_parameters())
    # Of 800 steps an iteration takes 80: the weight falls by a tenth of the first.
    run = run_of(tmp_path / "falling", expert, objective="'1->0@0.2' * KL()")
    found = [run.iterate()["train/kl"] for _ in range(4)]
    assert found[0] > 0 and found[1] > 0 and found[2] == found[3] == 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_feature_maps_of_images(tmp_path: Path, precision: str) -> None:
    run = run_of(
        tmp_path, "zoo", MINATAR, precision=precision, student=rt.policies.conv(width=0.25),
        objective="kl + AttentionTransfer + 0.1 * FeatureRegression(map='conv') + JacobianMatching",
    )  # fmt: skip
    found = [run.iterate() for _ in range(3)]
    for name in ("attention_transfer", "feature_regression", "jacobian_matching"):
        values = [metrics[f"train/{name}"] for metrics in found]
        assert values[0] > values[-1] > 0, (name, values)
    store = run.agent.memory.state_dict()["store"]
    # 16 channels of 8 x 8 places, and 4 x 10 x 10 pixels.
    assert store["field/label/maps"].shape[2:] == (16, 8, 8)
    assert store["field/label/attention"].shape[2:] == (8, 8)
    assert store["field/label/jacobian"].shape[2:] == (400,)


def no_features(observation: rt.Observation, task: torch.Tensor) -> rt.PolicyOutput:
    return rt.PolicyOutput(logits=torch.nn.functional.one_hot(observation["policy"].argmax(-1), 4))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"objective": "FeatureRegression()"},
            "FeatureRegression compares the last hidden layers, but this teacher does not output "
            "them: use another teacher or another objective.",
        ),
        (
            {"objective": "kl + AttentionTransfer()"},
            "AttentionTransfer compares the last convolutions, but this teacher does not output "
            "them: use another teacher or another objective.",
        ),
        (
            {"objective": "JacobianMatching()"},
            "JacobianMatching compares gradients by the observation, but this teacher does not "
            "output them: use another teacher or another objective.",
        ),
        (
            {"objective": "JacobianMatching()", "student": rt.policies.mlp(gru=8)},
            "JacobianMatching needs gradients by single observations, but the student is "
            "recurrent: use a student without --gru.",
        ),
        (
            {"objective": "KL(weights={'tests/Echo-v1': 2})"},
            "There is no task to weigh in KL 'tests/Echo-v1': did you mean 'tests/Echo-v0'?",
        ),
    ],
)
def test_refused_before_the_run(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(rt.InputError) as caught:
        rt.train(
            PolicyDistillation(teacher=rt.CallableTeacher(no_features), **{**SMALL, **options}),
            suite=TASK, total_steps=80, run_dir=tmp_path / "run", quiet=True,
        )  # fmt: skip
    assert str(caught.value) == sentence
    assert not (tmp_path / "run").exists()


def test_features_come_to_predict_the_teachers(tmp_path: Path, expert: rt.Teacher) -> None:
    run = run_of(tmp_path, expert, objective="FeatureRegression()")
    first = run.iterate()["train/feature_regression"]
    for _ in range(9):
        last = run.iterate()["train/feature_regression"]
    # Reached: 0.15 of the first. With a map that the learner leaves as it is it grows.
    assert last < 0.3 * first
