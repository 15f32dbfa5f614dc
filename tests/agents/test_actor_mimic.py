"""Actor-Mimic: its loss by hand, masked actions, gradients, and a mimic of two experts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from toy import TASK

import rltransfer as rt
from rltransfer.agents.actor_mimic import ActorMimic
from rltransfer.agents.policy_distillation import PolicyDistillation
from rltransfer.objectives.objective import Objective
from rltransfer.policies.network import Network
from rltransfer.policies.output import PolicyOutput
from rltransfer.runs.config import RunOptions
from rltransfer.runs.run import Run
from rltransfer.tasks.task import Suite

SMALL: dict[str, Any] = {
    "num_envs": 8, "rollout_length": 10, "batch_size": 40, "epochs": 4, "learning_rate": 3e-3,
    "memory_steps": 800, "student": rt.policies.mlp(hidden=(16,)),
}  # fmt: skip


def says(observation: rt.Observation, task: torch.Tensor) -> PolicyOutput:
    """An expert of the toy task, with Q-values and features."""
    seen = observation["policy"]
    return PolicyOutput(q_values=5 * seen, features=torch.cat([3 * seen, seen.sum(-1, True)], -1))


def run_of(folder: Path, freeze: str = "", **options: Any) -> Run:
    method = ActorMimic(**{"teacher": rt.CallableTeacher(says), **SMALL, **options})
    run_options = RunOptions(total_steps=4_000, freeze=freeze)
    return Run("actor-mimic", method, Suite.of(TASK), run_options, folder, True)


def test_two_experts_of_other_action_sets_by_hand():
    # The first expert has two of three actions; its third is masked on both sides.
    masked = torch.tensor([[0.0, 1.0, -1e9], [2.0, 0.0, 1.0]])
    student = PolicyOutput(logits=torch.tensor([[0.5, 0.0, -1e9], [0.0, 0.0, 0.0]]))
    teacher = PolicyOutput(q_values=masked)
    objective = ActorMimic(teacher="zoo", beta=0.0, temperature=2.0).objective
    expert_1 = F.softmax(torch.tensor([0.0, 0.5]), 0)
    expert_2 = F.softmax(torch.tensor([1.0, 0.0, 0.5]), 0)
    mimic_1, mimic_2 = F.log_softmax(torch.tensor([0.5, 0.0]), 0), -torch.tensor(3.0).log()
    cross_entropy = -(expert_1 * mimic_1).sum() - (expert_2 * mimic_2).sum()
    entropy = -(expert_1 * expert_1.log()).sum() - (expert_2 * expert_2.log()).sum()
    expected = float(cross_entropy - entropy) / 2
    assert float(objective(student, teacher)["kl"]) == pytest.approx(expected, rel=1e-6)


def test_masked_actions_have_probability_zero_on_both_sides_and_no_gradient():
    logits = torch.tensor([[0.3, -0.2, 7.0]], requires_grad=True)
    mask = torch.tensor([[False, False, True]])
    student = PolicyOutput(logits=logits.masked_fill(mask, -1e9))
    teacher = PolicyOutput(q_values=torch.tensor([[1.0, 0.0, 50.0]]).masked_fill(mask, -1e9))
    loss = ActorMimic(teacher="zoo", beta=0.0).objective(student, teacher)["kl"]
    loss.backward()
    assert logits.grad is not None and float(logits.grad[0, 2]) == 0
    for scores in (student.logits, teacher.q_values):
        assert scores is not None and float(F.softmax(scores, -1)[0, 2]) == 0
    mimic = F.log_softmax(torch.tensor([0.3, -0.2]), 0)
    expert = F.softmax(torch.tensor([1.0, 0.0]), 0)
    two = F.kl_div(mimic, expert, reduction="sum")
    assert float(loss) == pytest.approx(float(two), rel=1e-6)


def test_the_feature_error_is_relative_to_the_variance_of_each_task():
    text = "FeatureRegression(scale='variance')"
    torch.manual_seed(0)
    target = torch.randn(64, 3)
    target[:, 2] = 5.0  # a dead unit does not count
    task = torch.arange(64) % 2
    target[task == 1] *= 100
    student = PolicyOutput(features=torch.zeros(64, 4))
    teacher = PolicyOutput(features=target)
    made = Objective.of(text).fitted(student, teacher, ("a", "b"))
    layer = made.learned["0"].layer
    means = torch.stack([target[task == one].mean(0) for one in (0, 1)])
    layer.weight.data.zero_()
    layer.bias.data.copy_(means.flatten())
    # The best constant leaves all of the variance unexplained: 1, in both tasks.
    error = made(student, teacher, task)["feature_regression"].item()
    assert error == pytest.approx(1.0, rel=1e-5)
    plain = Objective.of("FeatureRegression()").fitted(student, teacher, ("a", "b"))
    plain.learned["0"].layer.load_state_dict(layer.state_dict())
    assert float(plain(student, teacher, task)["feature_regression"]) > 1_000


def test_an_evaluation_does_not_count_features():
    student = PolicyOutput(features=torch.randn(8, 4))
    teacher = PolicyOutput(features=torch.randn(8, 3))
    made = Objective.of("FeatureRegression(scale='variance')").fitted(student, teacher)
    made(student, teacher)
    sums = made.learned["0"].variance.sums
    counted = sums.clone()
    made.eval()(student, teacher)
    assert counted.any() and torch.equal(sums, counted)


def test_the_map_learns_while_the_encoder_is_frozen(tmp_path: Path):
    run = run_of(tmp_path / "run", freeze="encoder", beta=0.1)
    agent: Any = run.agent
    (learned,) = agent.objective.learned.values()
    map_before = learned.layer.weight.clone()
    encoder_before = [tensor.clone() for tensor in agent.policy.encoder.state_dict().values()]
    run.iterate()
    assert not torch.equal(learned.layer.weight, map_before)
    encoder = agent.policy.encoder.state_dict().values()
    assert all(map(torch.equal, encoder, encoder_before))


def test_gradients_of_features_reach_the_student_and_the_map_but_not_the_expert():
    features = torch.randn(8, 4, requires_grad=True)
    target = torch.randn(8, 3, requires_grad=True)
    student, teacher = PolicyOutput(features=features), PolicyOutput(features=target.detach())
    made = Objective.of("FeatureRegression(scale='variance')").fitted(student, teacher)
    made(student, teacher)["feature_regression"].backward()
    assert features.grad is not None and float(features.grad.abs().sum()) > 0
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in made.parameters())
    assert target.grad is None


def test_a_mimic_learns_the_policy_and_the_features(tmp_path: Path):
    run = run_of(tmp_path / "run", beta=0.1)
    metrics = [run.iterate() for _ in range(40)]
    assert metrics[-1]["train/agreement"] > 0.95
    assert metrics[-1]["train/feature_regression"] < 0.3 * metrics[0]["train/feature_regression"]


def test_the_mimic_acts_with_a_tenth_of_random_actions(tmp_path: Path):
    run = run_of(tmp_path / "run", exploration=0.1)
    run.iterate()
    assert run.agent.teacher_probability == 0
    assert run.agent.method.exploration == 0.1


def test_an_expert_without_features_is_refused_with_the_remedy(tmp_path: Path):
    def bare(observation: rt.Observation, task: torch.Tensor) -> PolicyOutput:
        return PolicyOutput(q_values=observation["policy"])

    teacher = rt.CallableTeacher(bare)
    with pytest.raises(rt.InputError, match="does not output"):
        run_of(tmp_path / "run", teacher=teacher)
    run_of(tmp_path / "other", teacher=teacher, beta=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1.0}, "beta is -1.0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"exploration": 2.0}, "exploration is 2.0"),
        ({"teacher_acts": "x"}, "not a schedule"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(rt.InputError, match=message):
        ActorMimic(teacher="zoo", **options)


def test_every_setting_reaches_policy_distillation(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "num_envs": 3, "rollout_length": 5, "learning_rate": 0.5, "batch_size": 7,
        "max_grad_norm": 0.25, "precision": "bfloat16", "teacher": "zoo",
        "vecnormalize": tmp_path / "vecnormalize.pkl", "rescale_actions": True,
        "student": Network(width=2.0), "teacher_acts": 0.125, "exploration": 0.75,
        "memory_steps": 11, "memory_dir": tmp_path, "epochs": 2.5,
    }  # fmt: skip
    shared = {field.name for field in dataclasses.fields(ActorMimic)} & {
        field.name for field in dataclasses.fields(PolicyDistillation)
    }
    assert settings.keys() == shared
    mimic = ActorMimic(**settings)
    for name in shared:
        assert getattr(mimic.distillation, name) == getattr(mimic, name)


def test_the_objective_divides_by_the_variance() -> None:
    found = rt.agents.ActorMimic(teacher="zoo", beta=0.25).objective
    assert "0.25 * FeatureRegression(scale='variance')" in str(found)
