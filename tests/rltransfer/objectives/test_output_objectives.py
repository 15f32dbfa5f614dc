"""Reverse KL, Jensen-Shannon, Huber; masks of both sides; all terms at extremes and in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from rltransfer.errors import InputError
from rltransfer.learning.learner import Learner, Loss
from rltransfer.objectives.objective import Objective
from rltransfer.objectives.outputs import JS, KL, MSE, NLL, Huber, ReverseKL
from rltransfer.policies.network import mlp
from rltransfer.policies.output import MASKED, PolicyOutput
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.policies.scores import log_policy

# The running example: p = (0.8, 0.2) and q = (0.4, 0.6).
TEACHER, STUDENT = (0.8, 0.2), (0.4, 0.6)
ALL = [KL(), ReverseKL(), JS(), NLL(), MSE(), Huber()]


def logs(probabilities: Sequence[float]) -> Tensor:
    """Logits of one sample with these probabilities."""
    return torch.tensor([probabilities]).log()


def score(term: Objective, student: Tensor, teacher: Tensor, kind: str = "logits") -> Tensor:
    values = term(PolicyOutput(logits=student), PolicyOutput(**{kind: teacher}))
    return torch.stack(list(values.values())).sum()


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        # 0.4 ln(0.4 / 0.8) + 0.6 ln(0.6 / 0.2) = -0.277259 + 0.659167; the other way: 0.334795.
        (ReverseKL(), 0.381908),
        # m = (0.6, 0.4). KL(p || m) = 0.8 ln(4/3) + 0.2 ln(1/2) = 0.230146 - 0.138629,
        # KL(q || m) = 0.4 ln(2/3) + 0.6 ln(3/2) = -0.162186 + 0.243279; half of their sum.
        (JS(), 0.086305),
    ],
)
def test_divergences_by_hand(term: Objective, expected: float):
    # Logits may be shifted: a softmax is meant.
    value = score(term, logs(STUDENT) - 5, logs(TEACHER) + 3).item()
    assert value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("term", "expected"), [("ReverseKL", 0.381908), ("JS", 0.086305)])
def test_temperature_is_on_the_teacher_alone(term: str, expected: float):
    # softmax((ln 2, 0) / 0.5) = softmax(2 ln 2, 0) = (4, 1) / 5.
    teacher = torch.tensor([[math.log(2), 0.0]])
    value = score(Objective.of(f"{term}(temperature=0.5)"), logs(STUDENT), teacher).item()
    assert value == pytest.approx(expected, abs=1e-6)
    # Q-values are sharpened by themselves: 0.01 * 2 ln 2 apart.
    sharp = score(Objective.of(term), logs(STUDENT), 0.02 * teacher, "q_values").item()
    assert sharp == pytest.approx(expected, abs=1e-5)


def test_jensen_shannon_is_symmetric_and_at_most_ln_2():
    assert score(JS(), logs(TEACHER), logs(STUDENT)).item() == pytest.approx(0.086305, abs=1e-6)
    apart = score(JS(), torch.tensor([[0.0, 1e4]]), torch.tensor([[1e4, 0.0]])).item()
    assert apart == pytest.approx(math.log(2), abs=1e-6)


def test_divergences_see_the_gaussian_and_errors_the_action():
    # A teacher's Gaussian around 4 whose actions end at 2, and a student's around 1.
    four, one, zero = torch.tensor([[4.0]]), torch.tensor([[1.0]]), torch.zeros(1, 1)
    teacher = PolicyOutput(mean=four, log_std=zero, low=-2 * one, high=2 * one)
    student = PolicyOutput(mean=one, log_std=zero)
    expected = {
        KL(): 4.5,  # (4 - 1)^2 / 2
        ReverseKL(): 4.5,
        MSE(): 1.0,  # (2 - 1)^2
        Huber(): 0.5,
        NLL(): 0.5 + 0.5 * math.log(2 * math.pi),  # of the action 2
    }
    for term, value in expected.items():
        assert sum(term(student, teacher).values()).item() == pytest.approx(value, abs=1e-6)


def test_reverse_kl_of_gaussians_against_torch():
    torch.manual_seed(0)
    teacher_mean, teacher_log_std, mean, log_std = torch.randn(4, 6, 3)
    student = PolicyOutput(mean=mean, log_std=log_std)
    teacher = PolicyOutput(mean=teacher_mean, log_std=teacher_log_std)
    for temperature in (1.0, 4.0):
        # The teacher's variance times the temperature. Tolerance: float32.
        wide = Normal(teacher_mean, math.sqrt(temperature) * teacher_log_std.exp())
        expected = kl_divergence(Normal(mean, log_std.exp()), wide).sum(-1).mean()
        value = ReverseKL(temperature=temperature)(student, teacher)["reverse_kl"]
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(("delta", "expected"), [(1.0, 2.625), (2.0, 4.125), (10.0, 4.625)])
def test_huber_by_hand(delta: float, expected: float):
    # Errors 0.5 and 3. delta 1: 0.125 + (3 - 0.5); 2: 0.125 + 2 (3 - 1); 10: 0.125 + 4.5.
    one, other = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.5, -1.0]])
    for student, teacher in (
        (PolicyOutput(q_values=one), PolicyOutput(q_values=other)),
        (PolicyOutput(logits=one), PolicyOutput(logits=other)),
        (PolicyOutput(mean=one), PolicyOutput(mean=other)),
    ):
        assert Huber(delta=delta)(student, teacher)["huber"].item() == expected


@pytest.mark.parametrize("term", [ReverseKL(), JS(), Huber()])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_zero_at_equality_with_zero_gradient(term: Objective, size: float):
    torch.manual_seed(0)
    scores = size * torch.randn(8, 5)
    student = scores.clone().requires_grad_()
    value = score(term, student, scores)
    # ln 2 - softplus(0) is not exactly 0.
    assert abs(value.item()) < 1e-7
    value.backward()
    assert student.grad is not None
    # Tolerance: the rounding of a softmax in float32.
    torch.testing.assert_close(student.grad, torch.zeros(8, 5), atol=1e-7, rtol=0)


def test_reverse_kl_of_gaussians_is_zero_at_equality_with_zero_gradient():
    torch.manual_seed(0)
    mean, log_std = torch.randn(2, 8, 3)
    own_mean, own_log_std = (t.clone().requires_grad_() for t in (mean, log_std))
    student = PolicyOutput(mean=own_mean, log_std=own_log_std)
    value = ReverseKL()(student, PolicyOutput(mean=mean, log_std=log_std))["reverse_kl"]
    value.backward()
    assert value.item() == 0.0
    assert not own_mean.grad.any() and not own_log_std.grad.any()


@pytest.mark.parametrize("term", ALL)
def test_a_repeated_batch_says_the_same(term: Objective):
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 16, 5)
    once = score(term, student, teacher)
    # Tolerance: float32; a sum over the batch would be three times as large.
    torch.testing.assert_close(score(term, student.repeat(3, 1), teacher.repeat(3, 1)), once)
    assert once > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("term", [*ALL, ReverseKL(temperature=0.01), JS(temperature=100.0)])
def test_extremes_stay_finite(term: Objective, dtype: torch.dtype):
    # The last row is masked on both sides.
    teacher = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4], [1e4, MASKED, -1e4]]).to(dtype)
    # As Q-values, the teacher's are divided by 0.01: up to a million.
    for kind in ("logits", "q_values"):
        student = torch.tensor([[-1e4, 1e4, 0.0], [0.0, 1e4, -1e4], [-1e4, MASKED, 1e4]])
        student = student.to(dtype).requires_grad_()
        value = score(term, student, teacher, kind)
        assert value.isfinite() and value > 0
        value.backward()
        assert student.grad is not None and student.grad.isfinite().all()
        assert not student.grad[2, 1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_gaussians_stay_finite(dtype: torch.dtype):
    for term in (KL(), ReverseKL(), NLL(), MSE(), Huber()):
        mean = torch.tensor([[1e4, -1e4]], dtype=dtype, requires_grad=True)
        log_std = torch.tensor([[-5.0, 2.0]], requires_grad=True)
        teacher = PolicyOutput(
            mean=torch.tensor([[-1e4, 1e4]]), log_std=torch.tensor([[2.0, -5.0]])
        )
        (value,) = term(PolicyOutput(mean=mean, log_std=log_std), teacher).values()
        assert value.isfinite() and value > 0
        value.backward()
        assert mean.grad is not None and mean.grad.isfinite().all() and mean.grad.any()
        assert log_std.grad is None or log_std.grad.isfinite().all()


def masked(scores: Tensor, legal: Sequence[bool]) -> Tensor:
    return scores.masked_fill(~torch.tensor(legal), MASKED)


@pytest.mark.parametrize("term", ALL)
@pytest.mark.parametrize("kind", ["logits", "q_values"])
def test_only_actions_of_the_task_count(term: Objective, kind: str):
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 16, 4)
    # What the task does not have is what the teacher would do, and the student's best as well.
    teacher[:, 3] += 100
    student[:, 3] += 100
    own = student.clone().requires_grad_()
    wide = score(term, masked(own, [True, True, True, False]), teacher, kind)
    narrow = score(term, student[:, :3], teacher[:, :3], kind)
    # Tolerance: float32.
    torch.testing.assert_close(wide, narrow)
    wide.backward()
    assert own.grad is not None
    assert own.grad[:, :3].any() and not own.grad[:, 3].any()


@pytest.mark.parametrize("term", ALL)
@pytest.mark.parametrize("kind", ["logits", "q_values"])
def test_what_the_teacher_takes_for_illegal_it_never_does(term: Objective, kind: str):
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 16, 4)
    teacher = masked(teacher, [True, True, True, False])
    student.requires_grad_()
    value = score(term, student, teacher, kind)
    value.backward()
    assert value.isfinite() and student.grad is not None and student.grad.isfinite().all()
    if isinstance(term, MSE | Huber):
        # Nothing is known of its value.
        assert not student.grad[:, 3].any()
    else:
        assert (student.grad[:, 3] > 0).all()


@pytest.mark.parametrize("temperature", [1e-6, 1.0, 1e9])
def test_no_temperature_moves_probability_to_illegal_actions(temperature: float):
    # -1e4 / 1e-6 lies below the constant of illegal actions, and that over 1e9 is -1.
    scores = torch.tensor([[-1e4, MASKED, -1e4, MASKED], [-1e4, -1.0, 1e4, MASKED]])
    probabilities = log_policy(scores, temperature).exp()
    assert not probabilities[scores == MASKED].any()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2))
    assert probabilities[0, 0] == 0.5


@pytest.mark.parametrize("term", ALL)
def test_gradients_against_differences_in_float64(term: Objective):
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 4, 3, dtype=torch.float64)
    legal = [True, False, True]
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda own: score(term, own, teacher), (student,))
    assert torch.autograd.gradcheck(
        lambda own: score(term, masked(own, legal), teacher), (student,)
    )
    if not isinstance(term, JS):
        mean, log_std, *own = torch.randn(4, 4, 3, dtype=torch.float64)
        wanted = PolicyOutput(mean=mean, log_std=log_std)

        def continuous(mean: Tensor, log_std: Tensor) -> Tensor:
            (value,) = term(PolicyOutput(mean=mean, log_std=log_std), wanted).values()
            return value

        assert torch.autograd.gradcheck(continuous, [part.requires_grad_() for part in own])


@pytest.mark.parametrize(
    "texts",
    [
        ("ReverseKL", "ReverseKL(temperature=0.5)", "ReverseKL(temperature=2)"),
        ("JS", "JS(temperature=0.5)", "JS(temperature=2)"),
        ("Huber", "Huber(delta=0.5)", "Huber(delta=0.1)"),
        ("KL", "ReverseKL", "JS", "NLL", "MSE", "Huber"),
    ],
)
def test_every_option_changes_something(texts: tuple[str, ...]):
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 8, 4)
    values = {score(Objective.of(text), student, teacher).item() for text in texts}
    assert len(values) == len(texts)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Huber(delta=0.0),
            "The delta of Huber is 0.0: it must be finite and above 0.",
        ),
        (
            lambda: ReverseKL(temperature=-1.0),
            "The temperature of ReverseKL is -1.0: it must be finite and above 0.",
        ),
        (
            lambda: score(KL(), torch.zeros(2, 3), torch.zeros(2, 4)),
            "The teacher has 4 discrete actions and the student 3 discrete actions: use a teacher "
            "with the same actions.",
        ),
        (
            lambda: JS()(
                PolicyOutput(mean=torch.zeros(1, 2), log_std=torch.zeros(1, 2)),
                PolicyOutput(mean=torch.zeros(1, 2), log_std=torch.zeros(1, 2)),
            ),
            "JS is for discrete actions: use KL or ReverseKL for continuous ones.",
        ),
        (
            lambda: ReverseKL()(
                PolicyOutput(mean=torch.zeros(1, 2)), PolicyOutput(mean=torch.zeros(1, 2))
            ),
            "ReverseKL needs a teacher with a distribution, but in some task this one's actions "
            "are deterministic: use MSE or NLL.",
        ),
        *(
            (
                lambda term=term: term(
                    PolicyOutput(mean=torch.zeros(1, 6), log_std=torch.zeros(1, 6)),
                    PolicyOutput(mean=torch.zeros(1, 1), log_std=torch.zeros(1, 1)),
                ),
                "The teacher has 1-dimensional continuous actions and the student 6-dimensional "
                "continuous actions: use a teacher with the same actions.",
            )
            for term in (KL(), ReverseKL(), NLL(), MSE())
        ),
        (
            lambda: KL()(
                PolicyOutput(mean=torch.zeros(1, 2)), PolicyOutput(logits=torch.zeros(1, 2))
            ),
            "The teacher has 2 discrete actions and the student 2-dimensional continuous actions: "
            "use a teacher with the same actions.",
        ),
        (
            lambda: MSE()(
                PolicyOutput(logits=torch.zeros(1, 2)), PolicyOutput(mean=torch.zeros(1, 2))
            ),
            "The teacher has 2-dimensional continuous actions and the student 2 discrete actions: "
            "use a teacher with the same actions.",
        ),
    ],
)
def test_refusals(make: Callable[[], Any], sentence: str):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == sentence


@pytest.mark.parametrize("text", ["ReverseKL", "JS", "Huber"])
def test_a_student_learns_its_teachers_policy(text: str):
    torch.manual_seed(0)
    space = spaces.Dict({"policy": spaces.Box(-9.0, 9.0, (3,), np.float32)})
    student = Policy(PolicySpec(mlp((32,)), space, spaces.Discrete(3), value=False))
    weights = torch.tensor([[2.0, 0.0, -1.0], [0.0, 2.0, 1.0], [-1.0, 1.0, 0.0]])
    objective = Objective.of(text)

    def loss(batch: dict[str, Any]) -> Loss:
        values = objective(student({"policy": batch["seen"]}), PolicyOutput(logits=batch["label"]))
        return Loss(torch.stack(list(values.values())).sum())

    batches = ({"seen": seen, "label": seen @ weights} for seen in torch.randn(300, 64, 3))
    Learner(student, learning_rate=3e-3).update(batches, loss)
    seen = torch.randn(500, 3)
    with torch.no_grad():
        own = student({"policy": seen}).logits.softmax(-1)
    apart = (own - (seen @ weights).softmax(-1)).abs().mean().item()
    # A fresh student is 0.30 away; a loss of the wrong sign, or of the wrong rows, no nearer.
    assert apart < 0.06
