"""Features, attention, distances and gradients: by hand, at extremes, in float64, and learned."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.learning.learner import Learner, Loss
from rltransfer.objectives.features import (
    AttentionTransfer,
    FeatureRegression,
    JacobianMatching,
    RepresentationalDistance,
)
from rltransfer.objectives.objective import FittedObjective, Objective
from rltransfer.policies.network import conv, mlp
from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.teachers.labeller import network_output

FIELDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "FeatureRegression": ("features", (5,)),
    "FeatureRegression(map='conv')": ("maps", (5, 2, 3)),
    "AttentionTransfer": ("attention", (2, 3)),
    "RepresentationalDistance": ("features", (5,)),
    "JacobianMatching": ("jacobian", (7,)),
}
"""What each objective compares, and a shape of it."""


def fitted(
    text: str | Objective, student: PolicyOutput, teacher: PolicyOutput, tasks: Sequence[str] = ()
) -> FittedObjective:
    """The objective; a map is the identity where the shapes allow it."""
    made = Objective.of(text).fitted(student, teacher, tasks)
    for layer in made.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.zeros_(layer.bias)
            nn.init.eye_(layer.weight.flatten(1))
    return made


def value_of(text: str, student: Tensor, teacher: Tensor) -> Tensor:
    field, _ = FIELDS[text]
    one, other = PolicyOutput(**{field: student}), PolicyOutput(**{field: teacher})
    made = fitted(text, one, other).to(student.dtype)
    (value,) = made(one, other).values()
    return value


def test_feature_regression_by_hand():
    # f(1, 2) = (1 * 1 + 2 * 2, 1 * 2) = (5, 2); (5 - 4)^2 + (2 - 4)^2 = 5.
    student = PolicyOutput(features=torch.tensor([[1.0, 2.0]]))
    teacher = PolicyOutput(features=torch.tensor([[4.0, 4.0]]))
    made = fitted(FeatureRegression(), student, teacher)
    (weight, _) = made.parameters()
    weight.data.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    assert made(student, teacher)["feature_regression"].item() == 5


def test_convolutional_regression_sums_channels_and_averages_places():
    # Places (1, 2) and (3, 4) of two channels, wanted 0: 1 + 4 and 9 + 16, 15 on average.
    student = PolicyOutput(maps=torch.tensor([[[[1.0, 3.0]], [[2.0, 4.0]]]]))
    teacher = PolicyOutput(maps=torch.zeros(1, 2, 1, 2))
    made = fitted(FeatureRegression(map="conv"), student, teacher)
    assert made(student, teacher)["feature_regression"].item() == 15


def test_each_task_has_its_own_map():
    # Task 0 doubles the features, task 1 turns their sign: (2 - 0)^2 and (-1 - 0)^2.
    student = PolicyOutput(features=torch.ones(2, 1))
    teacher = PolicyOutput(features=torch.zeros(2, 1))
    made = fitted(FeatureRegression(), student, teacher, ["a", "b"])
    (weight, _) = made.parameters()
    weight.data.copy_(torch.tensor([[2.0], [-1.0]]))
    for task, expected in (([0, 0], 4), ([1, 1], 1), ([1, 0], 2.5)):
        assert made(student, teacher, torch.tensor(task))["feature_regression"].item() == expected


def test_sequences_are_samples():
    torch.manual_seed(0)
    task = torch.randint(2, (3, 4))
    for text in ("FeatureRegression", "RepresentationalDistance"):
        student, teacher = (PolicyOutput(features=torch.randn(3, 4, n)) for n in (5, 6))
        made = fitted(text, student, teacher, ["a", "b"])
        flat = [PolicyOutput(features=one.features.flatten(0, 1)) for one in (student, teacher)]
        (whole,), (samples,) = (
            made(student, teacher, task).values(), made(*flat, task.flatten()).values()
        )  # fmt: skip
        torch.testing.assert_close(whole, samples)


def test_attention_transfer_by_hand():
    # Squares add to (3, 4) over three channels: (0.6, 0.8). The teacher's one channel: (0, 1).
    # 0.36 + 0.04 = 0.4.
    maps = torch.tensor([[[[1.0, 2.0]], [[-1.0, 0.0]], [[1.0, 0.0]]]])
    student, teacher = PolicyOutput(), PolicyOutput()
    student.attention = maps.square().sum(1)
    teacher.attention = torch.tensor([[[0.0, 25.0]]])
    value = AttentionTransfer()(student, teacher)["attention_transfer"].item()
    assert value == pytest.approx(0.4, abs=1e-6)
    # Neither network's scale counts.
    student.attention = 7 * student.attention
    value = AttentionTransfer()(student, teacher)["attention_transfer"].item()
    assert value == pytest.approx(0.4, abs=1e-6)


def test_representational_distance_by_hand():
    # Squared distances of 0, 1, 3: 1, 9, 4, twice each of nine pairs, mean 28 / 9.
    # Of 0, 1, 2: 1, 4, 1, mean 12 / 9. Over their means: (9, 81, 36) / 28 and (3, 12, 3) / 4.
    # Apart by -12 / 28, -3 / 28, 15 / 28: squares add to 378 / 784; twice that, over nine pairs.
    student = PolicyOutput(features=torch.tensor([[0.0], [1.0], [3.0]]))
    # Turned, shifted and scaled, the distances stay.
    line = torch.tensor([[0.0], [1.0], [2.0]])
    expected = 2 * 378 / 784 / 9
    for teacher in (line, 5 - 3 * line, torch.cat([line, -line], 1)):
        value = RepresentationalDistance()(student, PolicyOutput(features=teacher))
        assert value["representational_distance"].item() == pytest.approx(expected, abs=1e-6)


def test_distances_are_of_samples_of_one_task():
    torch.manual_seed(0)
    made = fitted("RepresentationalDistance", *[PolicyOutput(features=torch.ones(1, 1))] * 2)
    rows = torch.tensor([0, 1, 0, 1, 1])
    student, teacher = torch.randn(5, 4), torch.randn(5, 3)

    def distance(own: Tensor, wanted: Tensor, task: Tensor) -> float:
        outputs = PolicyOutput(features=own), PolicyOutput(features=wanted)
        return float(made(*outputs, task)["representational_distance"])

    mixed = distance(student, teacher, rows)
    apart = [distance(student[rows == k], teacher[rows == k], rows[rows == k]) for k in (0, 1)]
    assert mixed == pytest.approx((2 * apart[0] + 3 * apart[1]) / 5, rel=1e-4)
    # Where a task's features lie beside another's says nothing.
    moved = teacher + 100 * rows.unsqueeze(-1)
    assert distance(student, moved, rows) == pytest.approx(mixed, rel=1e-3)


def test_jacobian_matching_by_hand():
    # Directions (0.6, 0.8) and (1, 0): 0.16 + 0.64 = 0.8.
    student = PolicyOutput(jacobian=torch.tensor([[3.0, 4.0]]))
    teacher = PolicyOutput(jacobian=torch.tensor([[5.0, 0.0]]))
    value = JacobianMatching()(student, teacher)["jacobian_matching"].item()
    assert value == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("text", FIELDS)
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_zero_at_equality_with_zero_gradient(text: str, size: float):
    torch.manual_seed(0)
    teacher = size * torch.rand(6, *FIELDS[text][1])
    student = teacher.clone().requires_grad_()
    value = value_of(text, student, teacher)
    value.backward()
    assert value.item() == 0
    assert student.grad is not None and not student.grad.any()


@pytest.mark.parametrize("text", FIELDS)
def test_a_repeated_batch_says_the_same(text: str):
    torch.manual_seed(0)
    student, teacher = torch.rand(2, 6, *FIELDS[text][1])
    repeated = (one.repeat(3, *[1] * (one.dim() - 1)) for one in (student, teacher))
    once = value_of(text, student, teacher)
    # Tolerance: float32; a sum over the batch would be three times as large.
    torch.testing.assert_close(value_of(text, *repeated), once)
    assert once > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("text", FIELDS)
def test_extremes_stay_finite(text: str, dtype: torch.dtype):
    torch.manual_seed(0)
    teacher = torch.randn(6, *FIELDS[text][1])
    student = torch.randn(6, *FIELDS[text][1])
    # Very large, very small, all the same, and nothing at all: dead units have no gradient.
    for scale, shift in ((1e4, 0.0), (1e-20, 0.0), (1.0, 1e4), (0.0, 3.0), (0.0, 0.0)):
        own = (scale * student + shift).to(dtype).requires_grad_()
        for wanted in (teacher, 1e4 * teacher, 0 * teacher):
            own.grad = None
            value = value_of(text, own, wanted.to(dtype))
            assert value.isfinite()
            value.backward()
            assert own.grad is not None and own.grad.isfinite().all()


@pytest.mark.parametrize("text", FIELDS)
def test_gradients_against_differences_in_float64(text: str):
    torch.manual_seed(0)
    student, teacher = torch.rand(2, 4, *FIELDS[text][1], dtype=torch.float64)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda own: value_of(text, own, teacher), (student,))


def test_distances_are_exact_in_mixed_precision():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 16, 5)
    plain = value_of("RepresentationalDistance", student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = value_of("RepresentationalDistance", student, teacher)
    assert torch.equal(plain, mixed)


def test_every_objective_and_map_says_something_else():
    torch.manual_seed(0)
    student, teacher = torch.rand(2, 6, 5), torch.rand(2, 6, 5, 2, 3)
    outputs = [
        PolicyOutput(features=f, maps=m, attention=m.square().sum(1), jacobian=f)
        for f, m in zip(student, teacher, strict=True)
    ]
    values = set()
    for text in FIELDS:
        values.update(v.item() for v in fitted(text, *outputs)(*outputs).values())
    assert len(values) == len(FIELDS)


def test_what_learns_a_map_says_so():
    outputs = [PolicyOutput(features=torch.ones(1, 2))] * 2
    with pytest.raises(ValueError, match="score with the module that `fitted` returns"):
        FeatureRegression()(*outputs)


@pytest.mark.parametrize(
    ("text", "student", "teacher", "sentence"),
    [
        (
            "AttentionTransfer", {"attention": (1, 3, 4)}, {"attention": (1, 7, 7)},
            "AttentionTransfer compares feature maps of the same size, but the student's last "
            "convolution outputs 3 x 4 and the teacher's 7 x 7: use a student with the teacher's "
            "encoder.",
        ),
        (
            "FeatureRegression(map='conv')", {"maps": (1, 9, 3, 4)}, {"maps": (1, 9, 4, 3)},
            "FeatureRegression compares feature maps of the same size, but the student's last "
            "convolution outputs 3 x 4 and the teacher's 4 x 3: use a student with the teacher's "
            "encoder.",
        ),
        (
            "RepresentationalDistance", {"features": (1, 2)}, {},
            "RepresentationalDistance compares the last hidden layers, but this teacher does not "
            "output them: use another teacher or another objective.",
        ),
        (
            "AttentionTransfer", {}, {"attention": (1, 2, 2)},
            "AttentionTransfer compares the last convolutions, but this student does not output "
            "them: use another student or another objective.",
        ),
    ],
)  # fmt: skip
def test_refusals(
    text: str,
    student: dict[str, tuple[int, ...]],
    teacher: dict[str, tuple[int, ...]],
    sentence: str,
):
    one, other = (
        PolicyOutput(**{name: torch.ones(shape) for name, shape in shapes.items()})
        for shapes in (student, teacher)
    )
    with pytest.raises(InputError) as caught:
        Objective.of(text).fitted(one, other)
    assert str(caught.value) == sentence


def test_a_map_that_there_is_not():
    with pytest.raises(InputError, match="no map 'cnov': did you mean 'conv'"):
        Objective.of("FeatureRegression(map='cnov')")


# --- Learning: each objective alone brings a small student closer to a random teacher. ---

VECTOR = spaces.Dict({"policy": spaces.Box(-9.0, 9.0, (6,), np.float32)})
IMAGE = spaces.Dict({"policy": spaces.Box(0, 1, (3, 8, 8), np.float32)})


def networks(image: bool) -> tuple[Policy, Policy]:
    """A teacher, and a student of half the width or less."""
    torch.manual_seed(0)
    shapes = (conv(), conv(width=0.5)) if image else (mlp((32, 32)), mlp((16, 8)))
    space = IMAGE if image else VECTOR
    made = [Policy(PolicySpec(shape, space, spaces.Discrete(4), value=False)) for shape in shapes]
    for one in made:
        nn.init.orthogonal_(one.action_head.weight)
    made[0].eval().requires_grad_(False)
    return made[0], made[1]


def learned(
    text: str,
    image: bool = False,
    steps: int = 300,
    measure: Callable[[Policy, Policy, Tensor], float] | None = None,
) -> tuple[float, float]:
    """What is measured of the student before and after, on observations that it never saw."""
    teacher, student = networks(image)
    objective = Objective.of(text)
    before = copy.deepcopy(teacher.state_dict())

    def draw(count: int) -> Tensor:
        if not image:
            return torch.randn(count, 6)
        return (torch.rand(count, 3, 8, 8) < 0.15).float()

    def both(seen: Tensor) -> tuple[PolicyOutput, PolicyOutput]:
        observation, needs = {"policy": seen}, frozenset(objective.needs)

        def output(policy: Policy, label: PolicyOutput | None = None) -> PolicyOutput:
            forward = functools.partial(policy, needs=needs)
            return network_output(forward, observation, needs, ["policy"], label)

        label = output(teacher)
        return output(student, label), label

    made = objective.fitted(*both(draw(4)))
    fresh = draw(400)

    def left() -> float:
        if measure is not None:
            return measure(student, teacher, fresh)
        (value,) = made(*both(fresh)).values()
        return value.item()

    first = left()

    def loss(batch: dict[str, Any]) -> Loss:
        (value,) = made(*both(batch["seen"])).values()
        return Loss(value)

    learner = Learner(nn.ModuleList([student, made]), learning_rate=3e-3)
    learner.update(({"seen": draw(64)} for _ in range(steps)), loss)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    return first, left()


@torch.no_grad()
def unexplained(student: Policy, teacher: Policy, seen: Tensor) -> float:
    """The share of the variance of the teacher's features that the student's do not predict."""
    own, wanted = (one({"policy": seen}).features for one in (student, teacher))
    own = torch.cat([own, torch.ones(len(own), 1)], 1)
    half = len(seen) // 2
    found = torch.linalg.lstsq(own[:half], wanted[:half]).solution
    error = (own[half:] @ found - wanted[half:]).square().sum()
    return float(error / (wanted[half:] - wanted[half:].mean(0)).square().sum())


# Each bar lies between what is reached and what is reached with the labels of other rows, or with a
# student that gets no gradient.


def test_features_come_to_predict_the_teachers():
    # Reached: 0.30; of other rows 0.88; without a gradient 0.68.
    assert learned("FeatureRegression", measure=unexplained)[1] < 0.45


def test_feature_maps_come_to_predict_the_teachers():
    # Reached: 0.59; of other rows 1.44; without a gradient, with a map that learns, 1.18.
    assert learned("FeatureRegression(map='conv')", image=True, steps=400)[1] < 0.8


def test_attention_moves_to_where_the_teachers_is():
    # Reached: 0.04; of other rows 0.29; without a gradient 0.48.
    assert learned("AttentionTransfer", image=True, steps=150)[1] < 0.12


def test_distances_become_the_teachers():
    # Reached: 0.07; of other rows 0.28; without a gradient 0.80.
    assert learned("RepresentationalDistance")[1] < 0.15


def test_gradients_turn_to_the_teachers():
    # 2 - 2 cos, of which a right angle is 2. Reached: 0.45; of other rows 0.92; without 2.2.
    assert learned("JacobianMatching", steps=600)[1] < 0.65
