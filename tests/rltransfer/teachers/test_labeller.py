"""Labels: what is asked for and nothing else, masks, and gradients by the observation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.policies.network import Network, conv, mlp
from rltransfer.policies.output import EMPTY, MASKED, Needs, PolicyOutput
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.tasks.observation import Observation
from rltransfer.teachers.callable_teacher import CallableTeacher
from rltransfer.teachers.labeller import Labeller, network_output
from rltransfer.teachers.teacher import ModuleTeacher, Teacher

VECTOR = spaces.Dict({"policy": spaces.Box(-9.0, 9.0, (3,), np.float32)})
BYTES = spaces.Dict({"policy": spaces.Box(0, 255, (2, 6, 6), np.uint8)})
TASK = torch.zeros(5, dtype=torch.int64)


class Frozen(ModuleTeacher):
    """A policy as a teacher."""

    def forward(self, observation: Observation, task: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        return self.module(observation, task, needs=needs)  # type: ignore[no-any-return]


def teacher_of(network: Network, space: spaces.Dict, **more: object) -> Teacher:
    torch.manual_seed(0)
    policy = Policy(PolicySpec(network, space, spaces.Discrete(4), **more))  # type: ignore[arg-type]
    nn.init.orthogonal_(policy.action_head.weight)
    return Frozen(policy, "a policy", "", 0)


def linear(observation: Observation, task: Tensor) -> PolicyOutput:
    """Scores 2 a + 3 b, 4 b and -b of the observation (a, b, c)."""
    weight = torch.tensor([[2.0, 0.0, 0.0], [3.0, 4.0, -1.0], [0.0, 0.0, 0.0]])
    return PolicyOutput(logits=observation["policy"] @ weight)


def test_a_label_holds_what_is_asked_for_and_nothing_else():
    teacher = teacher_of(mlp((8,)), VECTOR)
    observation = {"policy": torch.randn(5, 3)}
    for needs, more in (((), set()), (("features",), {"features"}), (("jacobian",), {"jacobian"})):
        labeller = Labeller(teacher, needs, ("policy",), None)
        label = labeller(observation, TASK)
        there = {name for name, value in vars(label).items() if value is not None}
        assert there == {"logits", *more}
        assert not any(getattr(label, name).requires_grad for name in there)
        assert there <= set(labeller.fields)


def test_maps_and_attention_are_of_the_last_convolution():
    teacher = teacher_of(conv(), BYTES)
    observation = {"policy": torch.randint(0, 256, (5, 2, 6, 6), dtype=torch.uint8)}
    label = Labeller(teacher, ("attention", "maps"), ("policy",), None)(observation, TASK)
    layers = teacher.module.encoder.layers
    # A 3x3 convolution over 6x6 pixels and its nonlinearity: 16 channels of 4x4 places.
    maps = layers[:2](observation["policy"] / 255)
    assert label.maps.shape == (5, 16, 4, 4)
    # Tolerance: dividing by 255 and multiplying by its inverse round differently.
    torch.testing.assert_close(label.maps, maps)
    torch.testing.assert_close(label.attention, maps.square().sum(1))
    # Who has no convolution shows none, and who is not asked says nothing.
    flat = teacher_of(mlp((8,)), VECTOR)
    seen = {"policy": torch.randn(5, 3)}
    assert Labeller(flat, ("attention",), ("policy",), None)(seen, TASK).attention is None
    assert teacher(observation, TASK).maps is None and teacher(observation, TASK).attention is None


def test_the_gradient_is_of_the_largest_output_by_hand():
    observation = {"policy": torch.tensor([[1.0, 1.0, 0.0], [-1.0, 1.0, 9.0], [0.0, -1.0, 0.0]])}
    # Scores (5, 4, -1), (1, 4, -1), (-3, -4, 1): the first, the second, the third is the largest.
    expected = [[2, 3, 0], [0, 4, 0], [0, -1, 0]]
    label = Labeller(CallableTeacher(linear), ("jacobian",), ("policy",), None)(
        observation, torch.zeros(3, dtype=torch.int64)
    )
    assert label.jacobian.tolist() == expected
    # A student's is of the same outputs, whatever is the largest of its own.
    student = PolicyOutput()

    def contrary(seen: Observation) -> PolicyOutput:
        return PolicyOutput(logits=-linear(seen, TASK).logits)

    student = network_output(contrary, observation, ("jacobian",), ("policy",), label)
    assert (-student.jacobian).tolist() == expected
    # A rollout's own tensors stay without gradients.
    assert not observation["policy"].requires_grad


def test_the_gradient_is_only_by_what_the_student_sees():
    def both(observation: Observation, task: Tensor) -> PolicyOutput:
        return PolicyOutput(mean=observation["a"] + 2 * observation["b"] ** 2)

    observation = {"a": torch.ones(5, 1), "b": torch.full((5, 1), 3.0), "c": torch.ones(5, 2)}
    for groups, expected in ((("b",), [12]), (("a", "b"), [1, 12]), (("c", "a"), [0, 0, 1])):
        labeller = Labeller(CallableTeacher(both), ("jacobian",), groups, None)
        assert labeller(observation, TASK).jacobian.tolist() == [expected] * 5
    assert Labeller(CallableTeacher(both), ("jacobian",), ("c",), None)(
        observation, TASK
    ).jacobian is None  # fmt: skip


def test_gradients_of_a_frozen_network_by_bytes_against_differences():
    teacher = teacher_of(conv(), BYTES)
    observation = {"policy": torch.randint(0, 256, (5, 2, 6, 6), dtype=torch.uint8)}
    with torch.no_grad():  # as in a rollout
        label = Labeller(teacher, ("jacobian",), ("policy",), None)(observation, TASK)
    assert label.jacobian.shape == (5, 72) and label.jacobian.any()
    best = label.logits.argmax(-1, keepdim=True)
    nudge = 0.05 * label.jacobian / label.jacobian.norm(dim=-1, keepdim=True)
    values = [
        teacher.module({"policy": observation["policy"] + sign * nudge.view(5, 2, 6, 6)}, TASK)
        .logits.gather(-1, best)
        .squeeze(-1)
        for sign in (1, -1)
    ]
    # Along its own direction a function grows by the gradient's length. Tolerance: kinks of ReLUs.
    slope = (values[0] - values[1]) / (2 * nudge.norm(dim=-1))
    torch.testing.assert_close(slope, label.jacobian.norm(dim=-1), rtol=0.02, atol=0)
    assert all(parameter.grad is None for parameter in teacher.module.parameters())


def test_a_student_learns_from_its_gradient():
    torch.manual_seed(0)
    student = Policy(PolicySpec(mlp((8,)), VECTOR, spaces.Discrete(4), value=False))
    observation = {"policy": torch.randn(5, 3)}
    label = PolicyOutput(logits=torch.randn(5, 4))
    output = network_output(student, observation, ("jacobian",), ("policy",), label)
    output.jacobian.square().sum().backward()
    weight = student.encoder.layers[0].weight
    assert weight.grad is not None and weight.grad.any()
    # A teacher's gradient is no function of anything.
    assert not network_output(
        student, observation, ("jacobian",), ("policy",)
    ).jacobian.requires_grad


def test_teachers_without_gradients():
    def steps(observation: Observation, task: Tensor) -> PolicyOutput:
        return PolicyOutput(logits=nn.functional.one_hot(observation["policy"].argmax(-1)).float())

    labeller = Labeller(CallableTeacher(steps), ("jacobian",), ("policy",), None)
    assert labeller({"policy": torch.eye(3)}, TASK[:3]).jacobian is None


@pytest.mark.parametrize("kind", ["logits", "q_values"])
def test_labels_have_the_actions_of_their_task(kind: str):
    mask = torch.tensor([[True, True, False], [True, True, True]])

    def says(observation: Observation, task: Tensor) -> PolicyOutput:
        # Two actions, or three.
        return PolicyOutput(**{kind: observation["policy"]})

    task = torch.tensor([0, 1])
    labeller = Labeller(CallableTeacher(says), (), ("policy",), mask)
    wide = labeller({"policy": torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])}, task)
    assert wide.preferences().tolist() == [[1, 2, MASKED], [1, 2, 3]]
    assert wide.greedy().tolist() == [1, 2]
    narrow = labeller({"policy": torch.tensor([[1.0, 2.0], [2.0, 1.0]])}, task)
    assert narrow.preferences().tolist() == [[1, 2, MASKED], [2, 1, MASKED]]


def test_teachers_with_fewer_features_and_actions_give_labels_of_one_size():
    mask = torch.tensor([[True, True, False], [True, True, True]])

    def says(observation: Observation, task: Tensor) -> PolicyOutput:
        # Of both tasks together, or of the first task alone.
        size = 3 if task.any() else 2
        ones = torch.ones(len(task), size)
        return PolicyOutput(logits=ones, features=ones)

    labeller = Labeller(CallableTeacher(says), ("features",), ("policy",), mask)
    seen = {"policy": torch.zeros(2, 1)}
    assert labeller(seen, torch.tensor([0, 1])).features.tolist() == [[1, 1, 1]] * 2
    alone = labeller(seen, torch.tensor([0, 0]))
    assert alone.features.tolist() == [[1, 1, 0]] * 2
    assert alone.logits.tolist() == [[1, 1, MASKED]] * 2
    # What knows more actions than there are is left for the objective to refuse.
    mask = mask[:, :1]
    assert Labeller(CallableTeacher(says), (), ("policy",), mask)(
        seen, torch.tensor([0, 1])
    ).logits.shape == (2, 3)
