"""Objectives: values by hand, direction, temperature, reduction, extremes, and their text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from rltransfer.errors import InputError
from rltransfer.objectives.divergences import categorical_kl, gaussian_kl, squared_error
from rltransfer.objectives.features import (
    AttentionTransfer,
    FeatureRegression,
    JacobianMatching,
    RepresentationalDistance,
)
from rltransfer.objectives.objective import Objective, Sum, Term
from rltransfer.objectives.outputs import JS, KL, MSE, NLL, Huber, ReverseKL
from rltransfer.policies.output import MASKED, PolicyOutput
from rltransfer.schedule import Schedule

# The running example: p = (0.8, 0.2) and q = (0.4, 0.6).
TEACHER, STUDENT = (0.8, 0.2), (0.4, 0.6)
# KL(p || q) = 0.8 ln 2 + 0.2 ln(1/3) = 0.554518 - 0.219722; KL(q || p) = 0.381908 is another.
TEACHER_TO_STUDENT = 0.334795


def logs(probabilities: Sequence[float]) -> Tensor:
    """Logits of one sample with these probabilities."""
    return torch.tensor([probabilities]).log()


def test_numbers_of_numpy_are_written_as_pythons():
    objective = KL(temperature=np.linspace(0.5, 1, 2)[0], weights={"a": np.float64(2)})
    text = "KL(weights={'a': 2.0}, temperature=0.5)"
    assert Objective.of(str(objective)) == objective
    assert str(objective) == text or str(objective) == "KL(temperature=0.5, weights={'a': 2.0})"


def test_kl_by_hand_and_its_direction():
    # Logits may be shifted: a softmax is meant.
    value = categorical_kl(logs(TEACHER) + 3, logs(STUDENT) - 5, 1.0)
    assert value.shape == (1,)
    assert value.item() == pytest.approx(TEACHER_TO_STUDENT, abs=1e-6)
    turned = categorical_kl(logs(STUDENT), logs(TEACHER), 1.0).item()
    assert turned == pytest.approx(0.381908, abs=1e-6)


def test_temperature_is_on_the_teacher_alone():
    # softmax((ln 2, 0) / 0.5) = softmax(2 ln 2, 0) = (4, 1) / 5. With 0.5 on the student as well, q
    # would be (0.16, 0.36) / 0.52 and the divergence 0.516.
    teacher = torch.tensor([[math.log(2), 0.0]])
    value = categorical_kl(teacher, logs(STUDENT), 0.5).item()
    assert value == pytest.approx(TEACHER_TO_STUDENT, abs=1e-6)


def test_kl_is_taken_in_float32():
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 8, 5).bfloat16()
    value = categorical_kl(teacher, student, 0.3)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, categorical_kl(teacher.float(), student.float(), 0.3))


def test_kl_sums_over_actions_and_leaves_the_batch():
    teacher = logs(TEACHER).expand(3, 5, 2)
    values = categorical_kl(teacher, logs(STUDENT).expand(3, 5, 2), 1.0)
    torch.testing.assert_close(values, torch.full((3, 5), TEACHER_TO_STUDENT), atol=1e-6, rtol=0)


def test_gaussian_kl_against_torch():
    torch.manual_seed(0)
    teacher_mean, teacher_log_std, mean, log_std = torch.randn(4, 6, 3)
    teacher, student = Normal(teacher_mean, teacher_log_std.exp()), Normal(mean, log_std.exp())
    value = gaussian_kl(teacher_mean, teacher_log_std, mean, log_std, 1.0)
    # Tolerance: float32.
    torch.testing.assert_close(value, kl_divergence(teacher, student).sum(-1))
    # The teacher's variance times 4, its deviation times 2.
    wide = Normal(teacher_mean, 2 * teacher_log_std.exp())
    value = gaussian_kl(teacher_mean, teacher_log_std, mean, log_std, 4.0)
    torch.testing.assert_close(value, kl_divergence(wide, student).sum(-1))


def test_gaussian_kl_by_hand():
    # Means 1 apart, teacher's deviation 2, student's 1:
    # ln(1 / 2) + (4 + 1) / 2 - 1 / 2 = -0.693147 + 2.
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    value = gaussian_kl(one, one * math.log(2), zero, zero, 1.0).item()
    assert value == pytest.approx(2 - math.log(2), abs=1e-6)


def test_squared_error_by_hand():
    # (1 - 3)^2 + (2 - 1)^2 + 0^2 = 5, summed over actions and not averaged.
    value = squared_error(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[3.0, 1.0, 4.0]]))
    assert value.tolist() == [5.0]


def test_nll_by_hand():
    # The teacher's best action is the first; the student gives it 0.4.
    student = PolicyOutput(logits=logs(STUDENT))
    for teacher in (
        PolicyOutput(q_values=torch.tensor([[7.0, 6.9]])),
        PolicyOutput(logits=logs(TEACHER)),
    ):
        value = NLL()(student, teacher)["nll"].item()
        assert value == pytest.approx(-math.log(0.4), abs=1e-6)


def test_nll_of_continuous_actions():
    # Density of 1.5 under N(1, 0.5): -0.5 * 1 - ln 0.5 - 0.5 ln(2 pi).
    student = PolicyOutput(mean=torch.tensor([[1.0]]), log_std=torch.tensor([[0.5]]).log())
    teacher = PolicyOutput(mean=torch.tensor([[1.5]]))
    expected = 0.5 + math.log(0.5) + 0.5 * math.log(2 * math.pi)
    assert NLL()(student, teacher)["nll"].item() == pytest.approx(expected, abs=1e-6)


def test_mse_of_each_kind_of_policy():
    # (1 - 0)^2 + (2 - 4)^2 = 5.
    one, other = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    for student, teacher in (
        (PolicyOutput(q_values=one), PolicyOutput(q_values=other)),
        (PolicyOutput(logits=one), PolicyOutput(logits=other)),
        (PolicyOutput(mean=one), PolicyOutput(mean=other, log_std=other)),
    ):
        assert MSE()(student, teacher)["mse"].item() == 5.0


def test_default_temperature_sharpens_q_values_and_leaves_logits():
    # Q-values 0.01 ln 2 apart over 0.01: (2, 1) / 3. Against (1/2, 1/2):
    # 2/3 ln(4/3) + 1/3 ln(2/3) = 0.191788 - 0.135155.
    student = PolicyOutput(logits=torch.zeros(1, 2))
    sharp = PolicyOutput(q_values=torch.tensor([[0.01 * math.log(2), 0.0]]))
    assert KL()(student, sharp)["kl"].item() == pytest.approx(0.056633, abs=1e-5)
    plain = PolicyOutput(logits=torch.tensor([[math.log(2), 0.0]]))
    assert KL()(student, plain)["kl"].item() == pytest.approx(0.056633, abs=1e-6)
    # What is asked for counts for either.
    for teacher in (PolicyOutput(q_values=plain.logits), plain):
        asked = KL(temperature=1.0)(student, teacher)["kl"].item()
        assert asked == pytest.approx(0.056633, abs=1e-6)


@pytest.mark.parametrize("term", [KL(), MSE(), KL() + MSE()])
def test_zero_at_equality_with_zero_gradient(term: Objective):
    torch.manual_seed(0)
    scores = 3 * torch.randn(8, 5)
    student = scores.clone().requires_grad_()
    value = sum(term(PolicyOutput(logits=student), PolicyOutput(logits=scores)).values())
    assert isinstance(value, Tensor) and value.item() == 0.0
    value.backward()
    assert student.grad is not None
    # Tolerance: the rounding of a softmax in float32.
    torch.testing.assert_close(student.grad, torch.zeros(8, 5), atol=1e-7, rtol=0)


def test_gaussian_zero_at_equality_with_zero_gradient():
    torch.manual_seed(0)
    mean, log_std = torch.randn(2, 8, 3)
    student_mean, student_log_std = (t.clone().requires_grad_() for t in (mean, log_std))
    student = PolicyOutput(mean=student_mean, log_std=student_log_std)
    value = KL()(student, PolicyOutput(mean=mean, log_std=log_std))["kl"]
    assert value.item() == 0.0
    value.backward()
    for tensor in (student_mean, student_log_std):
        assert tensor.grad is not None and not tensor.grad.any()


@pytest.mark.parametrize("term", [KL(), NLL(), MSE(), 0.5 * KL(temperature=0.1) + MSE()])
def test_batch_size_does_not_matter(term: Objective):
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 16, 5)

    def loss(copies: int) -> Tensor:
        parts = term(
            PolicyOutput(logits=student.repeat(copies, 1)),
            PolicyOutput(logits=teacher.repeat(copies, 1)),
        )
        return torch.stack(list(parts.values())).sum()

    # Tolerance: float32; a sum over the batch would be twice as large.
    torch.testing.assert_close(loss(2), loss(1))
    assert loss(1) > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("objective", ["kl", "nll", "mse", "KL(temperature=0.01)"])
def test_extremes_stay_finite(objective: str, dtype: torch.dtype):
    scores = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4], [200.0, 199.9, -200.0]])
    student = scores.flip(1).to(dtype).requires_grad_()
    # As Q-values, the teacher's are divided by 0.01: up to a million.
    for teacher in (PolicyOutput(logits=scores.to(dtype)), PolicyOutput(q_values=scores.to(dtype))):
        student.grad = None
        values = Objective.of(objective)(PolicyOutput(logits=student), teacher)
        total = torch.stack(list(values.values())).sum()
        assert total.isfinite() and total > 0
        total.backward()
        assert student.grad is not None and student.grad.isfinite().all() and student.grad.any()


def masked(scores: Tensor, legal: Sequence[bool], dtype: torch.dtype) -> Tensor:
    """Scores as a policy of this precision says them, illegal actions masked."""
    return scores.to(dtype).masked_fill(~torch.tensor(legal), MASKED)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("objective", ["kl", "nll", "mse"])
def test_illegal_actions_contribute_nothing(objective: str, dtype: torch.dtype):
    torch.manual_seed(0)
    # In steps of 1/8 up to 4, which bfloat16 holds exactly.
    teacher, student = torch.randint(-32, 33, (2, 16, 4)) / 8
    legal = [True, False, True, True]
    scores = student.clone().requires_grad_()
    for kind in ("logits", "q_values"):
        # A teacher's labels are float32, the student's output is of the learner's precision.
        wide = Objective.of(objective)(
            PolicyOutput(logits=masked(scores, legal, dtype)),
            PolicyOutput(**{kind: masked(teacher, legal, torch.float32)}),
        )
        narrow = Objective.of(objective)(
            PolicyOutput(logits=student[:, legal]), PolicyOutput(**{kind: teacher[:, legal]})
        )
        # Tolerance: float32, as the losses are taken in it.
        torch.testing.assert_close(wide[objective], narrow[objective])
        wide[objective].backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all() and not scores.grad[:, 1].any() and scores.grad[:, 0].any()


def test_deterministic_teacher_has_no_kl():
    student = PolicyOutput(mean=torch.zeros(1, 2), log_std=torch.zeros(1, 2))
    with pytest.raises(InputError) as caught:
        KL()(student, PolicyOutput(mean=torch.zeros(1, 2)))
    assert str(caught.value) == (
        "KL needs a teacher with a distribution, but in some task this one's actions are "
        "deterministic: use MSE or NLL."
    )


def test_sums_and_scales():
    student, teacher = PolicyOutput(logits=logs(STUDENT)), PolicyOutput(logits=logs(TEACHER))
    # 2 * (0.5 * KL + NLL) = KL + 2 NLL; each term goes by its name.
    values = (2 * (0.5 * KL() + NLL()))(student, teacher)
    assert list(values) == ["kl", "nll"]
    assert values["kl"].item() == pytest.approx(TEACHER_TO_STUDENT, abs=1e-6)
    assert values["nll"].item() == pytest.approx(-2 * math.log(0.4), abs=1e-6)
    assert (KL() * 3).terms() == (3 * KL()).terms() == ((3.0, KL()),)


def test_terms_of_the_same_name_add():
    student, teacher = PolicyOutput(logits=logs(STUDENT)), PolicyOutput(logits=logs(TEACHER))
    values = (KL() + 2 * KL(temperature=1.0))(student, teacher)
    assert list(values) == ["kl"]
    assert values["kl"].item() == pytest.approx(3 * TEACHER_TO_STUDENT, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("kl", ((1.0, KL()),)),
        ("KL", ((1.0, KL()),)),
        (" nll ", ((1.0, NLL()),)),
        ("MSE()", ((1.0, MSE()),)),
        ("KL(temperature=0.01)", ((1.0, KL(temperature=0.01)),)),
        ("KL(temperature=None)", ((1.0, KL()),)),
        ("KL(temperature=0.01) + 0.5*MSE()", ((1.0, KL(temperature=0.01)), (0.5, MSE()))),
        ("kl + 2*mse", ((1.0, KL()), (2.0, MSE()))),
        ("0.5 * (kl() + 4 * nll)", ((0.5, KL()), (2.0, NLL()))),
        ("MSE() * 0.5", ((0.5, MSE()),)),
        ("(mse + kl) * 0.5 * 3", ((1.5, MSE()), (1.5, KL()))),
        ("kl * '1->0'", ((Schedule(1.0, 0.0), KL()),)),
    ],
)
def test_text(text: str, terms: tuple[tuple[float, Objective], ...]):
    assert Objective.of(text).terms() == terms


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("reversekl + js", ((1.0, ReverseKL()), (1.0, JS()))),
        ("Huber(delta=0.5)", ((1.0, Huber(delta=0.5)),)),
        ("0.01 * FeatureRegression()", ((0.01, FeatureRegression()),)),
        ("FeatureRegression(map='conv')", ((1.0, FeatureRegression(map="conv")),)),
        (
            "AttentionTransfer + RepresentationalDistance() + 3 * jacobianmatching",
            ((1.0, AttentionTransfer()), (1.0, RepresentationalDistance()),
             (3.0, JacobianMatching())),
        ),
        ("KL(weights={'a': 2, 'b': 0.5})", ((1.0, KL(weights={"a": 2.0, "b": 0.5})),)),
        ("'1->0@0.5' * KL()", ((Schedule(1.0, 0.0, 0.5), KL()),)),
        ("2 * ('1->0' * KL() + nll)", ((Schedule(2.0, 0.0), KL()), (2.0, NLL()))),
    ],
)  # fmt: skip
def test_text_of_every_term(text: str, terms: tuple[tuple[float, Objective], ...]):
    made = Objective.of(text)
    assert made.terms() == terms
    assert Objective.of(str(made)).terms() == terms


def test_a_weight_follows_its_schedule():
    student, teacher = PolicyOutput(logits=logs(STUDENT)), PolicyOutput(logits=logs(TEACHER))
    for objective in (
        Schedule(1.0, 0.0, 0.5) * KL() + MSE(),
        "1->0@0.5" * KL() + MSE(),
        Objective.of("'1->0@0.5' * KL() + MSE()"),
        Objective.of("0.5 * ('2->0@0.5' * KL() + 2 * MSE())"),
    ):
        fitted = objective.fitted(student, teacher)
        for progress, share in ((0.0, 1.0), (0.25, 0.5), (0.5, 0.0), (1.0, 0.0)):
            values = fitted(student, teacher, None, progress)
            expected = share * TEACHER_TO_STUDENT
            assert values["kl"].item() == pytest.approx(expected, abs=1e-6)
            # (ln 0.8 - ln 0.4)^2 + (ln 0.2 - ln 0.6)^2 = 0.480453 + 1.206949.
            assert values["mse"].item() == pytest.approx(1.687402, abs=1e-5)
    with pytest.raises(InputError, match="1->0 times 0->1: use one schedule"):
        "0->1" * ("1->0" * KL())


def test_each_task_has_its_own_weight():
    student = PolicyOutput(q_values=torch.zeros(4, 1))
    teacher = PolicyOutput(q_values=torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    task = torch.tensor([0, 1, 1, 2])
    # Squared errors 1, 4, 9, 16: (3 * 1 + 0 * (4 + 9) + 16) / 4, as "c" is not named.
    objective = MSE(weights={"b": 0.0, "a": 3.0}) + KL()
    fitted = objective.fitted(student, teacher, ["a", "b", "c"])
    assert fitted(student, teacher, task)["mse"].item() == 19 / 4
    with pytest.raises(InputError) as caught:
        objective.fitted(student, teacher, ["aa", "bb"])
    assert str(caught.value).startswith("There is no task to weigh in MSE ")
    assert "did you mean" in str(caught.value)
    with pytest.raises(InputError, match="weight of the task 'a' in KL is -1"):
        Objective.of("KL(weights={'a': -1})")


def test_task_weights_do_not_change_the_divisor():
    # Squared errors 1, 4, 9, 16: (2 * 1 + 0 * (4 + 9) + 16) / 4, not divided by the weights' sum 3.
    student = PolicyOutput(q_values=torch.zeros(4, 1))
    teacher = PolicyOutput(q_values=torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    fitted = MSE(weights={"a": 2, "b": 0}).fitted(student, teacher, ["a", "b", "c"])
    assert fitted(student, teacher, torch.tensor([0, 1, 1, 2]))["mse"].item() == 4.5


def test_what_an_objective_needs_and_learns():
    assert (KL() + 2 * NLL() + MSE()).needs == frozenset()
    made = KL() + FeatureRegression() + 0.1 * JacobianMatching()
    assert made.needs == {"features", "jacobian"}
    assert (FeatureRegression(map="conv") + AttentionTransfer()).needs == {"maps", "attention"}
    # Only from errors of Q-values are Q-values learned, whatever is learned beside them.
    for text, values in (("mse + 2 * huber", True), ("mse + FeatureRegression()", True),
                         ("mse + kl", False), ("FeatureRegression()", False)):  # fmt: skip
        assert Objective.of(text).learns_values == values


@pytest.mark.parametrize(
    "objective",
    [
        KL(),
        KL(temperature=1 / 3),
        NLL(),
        MSE(),
        KL() + 0.123456789 * MSE(),
        (1 / 3) * (KL(temperature=0.01) + NLL()) + 2 * MSE(),
        0.1 * 3 * Huber(delta=1 / 3, weights={"a": 0.1, "b": 2}),
        Schedule(1 / 3, 1e-17, 2 / 3) * ReverseKL() + "1->0@0.5" * JS(temperature=7),
        FeatureRegression(map="conv") + AttentionTransfer() + 1e-9 * JacobianMatching(),
        RepresentationalDistance(weights={"it's": 1, 'a "b"': 2.5}),
    ],
)
def test_text_round_trip(objective: Objective):
    assert Objective.of(str(objective)) == objective
    assert Objective.of(objective) is objective


@pytest.mark.parametrize(
    ("text", "hint"),
    [("KLL()", "'KL'"), ("nl", "'NLL'"), ("kl + msee", "'MSE'"), ("Mse2()", "'MSE'")],
)
def test_unknown_names_with_the_nearest(text: str, hint: str):
    with pytest.raises(InputError) as caught:
        Objective.of(text)
    assert str(caught.value).startswith("There is no objective '")
    assert str(caught.value).endswith(f": did you mean {hint}?")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kl +",
        "kl - mse",
        "kl / 2",
        "2",
        "2 * 3",
        "kl * mse",
        "True * kl",
        "1e999 * kl",
        "KL(temperature=True)",
        "KL(temperature=1e999)",
        "KL(temperature=2 + 1)",
        "KL(weights={1: 2})",
        "KL(weights={**kl})",
        "None * kl",
        "-'1->0' * kl",
        "kl; mse",
        "kl()()",
        "kl.score",
        "lambda: kl",
        "kl\0",
        "(" * 300,
        "1" * 5000 + " * kl",
        "1" * 400 + " * kl",
        "KL(temperature=-True)",
        "KL(temperature=b'1')",
        "KL(temperature=KL())",
        "KL(*[1])",
        "+".join(["kl"] * 3_000),
        "KL(" * 90 + ")" * 90,
        "KL(weights=" + "[" * 150 + "]" * 150 + ")",
        "-" * 3_000 + "1 * kl",
    ],
)
def test_malformed_text(text: str):
    with pytest.raises(InputError) as caught:
        Objective.of(text)
    shown = text if len(text) <= 200 else f"{text[:200]}..."
    sentence = f"{shown!r} is not an objective: write 'kl', 'nll', 'mse', or a sum"
    assert str(caught.value).startswith(sentence)


def test_an_unknown_name_that_is_near_to_none_is_told_each_once():
    with pytest.raises(InputError, match=", JacobianMatching, KL, MSE, NLL, Rep"):
        Objective.of("xyzzy")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("KL(temp=2)", "no option of the objective KL, 'temp': did you mean 'temperature'"),
        ("KL(heat=2)", "no option of the objective KL, 'heat': there are temperature, weights"),
        ("Mse(delta=1)", "no option of the objective Mse, 'delta': there are weights"),
        ("KL(**3)", "no option of the objective KL, '\\*\\*'"),
        ("KL(0.5)", "0.5 in KL has no name: write temperature= or weights= before it"),
        ("1->0 * MSE()", "put the schedule in quotes"),
        ("'1->0' * MSE() + 1->0 * kl", "put the schedule in quotes"),
        ("'1->0' * MSE(", "A bracket is left open in .*: close it"),
        ("KL(weights={'a': 1)", "is not an objective"),
        ("KL(temperature=[1])", "The temperature of KL is .*: it must be a number"),
        ("KL(temperature='hot')", "The temperature of KL is 'hot': it must be a number"),
        ("KL(weights={'a': 'b'})", "task 'a' in KL is 'b': it must be a number. A schedule goes"),
        ("KL(weights={'a': '1->0'})", "A schedule goes before the term"),
        ("KL(weights={'a': None})", "The weight of the task 'a' in KL is None"),
        ("KL(weights=3)", "The weights of KL are 3.*: pass one for each task"),
        ("KL(weights='a')", "The weights of KL are 'a': pass one for each task"),
        ("Huber(delta='wide')", "The delta of Huber is 'wide': it must be a number"),
        ("Huber(delta=None)", "The delta of Huber is None: it must be a number"),
    ],
)
def test_what_would_be_right_is_told(text: str, sentence: str):
    with pytest.raises(InputError, match=sentence):
        Objective.of(text)


@pytest.mark.parametrize("text", ["-1 * mse", "kl + mse * -0.5", "'1->-1' * mse", "'-1->1' * mse"])
def test_a_weight_is_not_negative(text: str):
    with pytest.raises(InputError, match=r"The weight of MSE\(\) is .*: it must be at least 0"):
        Objective.of(text)


@pytest.mark.parametrize("what", [None, KL, [KL()], 1.0])
def test_what_is_no_objective_is_told(what: object):
    with pytest.raises(InputError, match=r"is not an objective: write 'kl', or KL\(\) in Python"):
        Objective.of(what)  # type: ignore[arg-type]


def test_only_objectives_add():
    with pytest.raises(TypeError, match="unsupported operand"):
        KL() + 1  # type: ignore[operator]


def test_some_task_has_a_weight_above_zero():
    student, teacher = (PolicyOutput(logits=torch.zeros(2, 3)) for _ in range(2))
    two = KL(weights={"a": 0}) + 0.0 * MSE()
    with pytest.raises(InputError, match=r"Every weight of .* is 0"):
        two.fitted(student, teacher, ["a"])
    two.fitted(student, teacher, ["a", "b"])
    (KL(weights={"a": 0}) + MSE()).fitted(student, teacher, ["a"])


def test_some_weight_is_above_zero():
    for objective in ("0 * mse + 0 * kl", "'0->0' * mse", 0 * MSE()):
        with pytest.raises(InputError, match="is 0: one must be above 0"):
            Objective.of(objective)
    for text in ("0 * mse + kl", "'0->1' * mse"):
        Objective.of(text)


@pytest.mark.parametrize("temperature", ["0", "-1"])
def test_temperature_must_be_above_zero(temperature: str):
    with pytest.raises(InputError, match=f"The temperature of KL is {temperature}"):
        Objective.of(f"KL(temperature={temperature})")
    with pytest.raises(InputError, match="must be finite and above 0"):
        KL(temperature=float("nan"))


def test_nothing_in_the_text_is_executed(tmp_path):
    trace = tmp_path / "trace"
    for text in (
        f"open({str(trace)!r}, 'w')",
        f"__import__('pathlib').Path({str(trace)!r}).touch()",
        f"KL(temperature=open({str(trace)!r}, 'w'))",
        f"[open({str(trace)!r}, 'w') for _ in 'a'] * KL()",
        f"KL() + open({str(trace)!r}, 'w')",
    ):
        with pytest.raises(InputError):
            Objective.of(text)
    assert not trace.exists()


def test_a_schedule_that_there_is_not():
    with pytest.raises(InputError, match="'fast' is not a schedule"):
        Objective.of("'fast' * kl")


def test_a_term_of_ones_own_can_be_written():
    @dataclass(frozen=True)
    class ZeroOne(Term):
        margin: float = 0.0
        name = "zero_one"
        positive = "margin"

        def score(self, student: PolicyOutput, teacher: PolicyOutput, *_: object) -> Tensor:
            return (student.greedy() != teacher.greedy()).float()

    made = Objective.of("2 * zeroone(margin=3)")
    assert made == 2 * ZeroOne(margin=3) and Objective.of(str(made)) == made
    student, teacher = PolicyOutput(logits=logs(STUDENT)), PolicyOutput(logits=logs(TEACHER))
    assert made(student, teacher)["zero_one"].item() == 2.0
    with pytest.raises(InputError, match="The margin of ZeroOne is -1: it must be finite and"):
        Objective.of("ZeroOne(margin=-1)")


def test_sum_is_an_objective_of_its_own():
    made = Sum(((0.5, KL()), (0.25, MSE())))
    assert made.terms() == (0.5 * (KL() + 0.5 * MSE())).terms()
