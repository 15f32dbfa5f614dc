"""Objectives: how far a student is from its teacher, and how such terms add.

Every function here takes tensors, sums over actions, leaves the batch alone and says its direction
and where the temperature goes. An `Objective` takes the mean over the batch, so that its size does
not depend on the batch's.
"""

from __future__ import annotations

import abc
import ast
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from rltransfer.errors import InputError, unknown
from rltransfer.policy_output import ILLEGAL, PolicyOutput

LARGEST = 1e38
"""What a number in an objective's text must be below, to be finite in float32."""
Q_VALUE_TEMPERATURE = 0.01
"""Rusu 2015, section 4: sharpens, as gaps between Q-values are small."""


def categorical_kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Returns KL(softmax(teacher / temperature) || softmax(student)).    (...)

    The temperature is on the teacher alone; the student's softmax is plain.

    Source: Rusu 2015 (arXiv 1511.06295), eq. 3.

    Args:
        teacher: The teacher's logits or Q-values.    (..., num_actions)
        student: The student's logits.                (..., num_actions)
        temperature: tau; below 1 sharpens the teacher, above 1 softens it.
    """
    target = F.log_softmax(teacher.float() / temperature, -1)
    guess = F.log_softmax(student.float(), -1)
    return (target.exp() * (target - guess)).sum(-1)


def gaussian_kl(
    teacher_mean: Tensor, teacher_log_std: Tensor, mean: Tensor, log_std: Tensor, temperature: float
) -> Tensor:
    """Returns KL(N(teacher) || N(student)) of diagonal Gaussians.    (...)

    The temperature multiplies the teacher's variance, as it does for a softmax's density.

    Args:
        teacher_mean: The teacher's mean.                      (..., action_dim)
        teacher_log_std: Logarithm of its standard deviation.  (..., action_dim)
        mean: The student's mean.                              (..., action_dim)
        log_std: Logarithm of its standard deviation.          (..., action_dim)
        temperature: tau.
    """
    target_log_std = teacher_log_std + 0.5 * math.log(temperature)
    variance_ratio = (2 * (target_log_std - log_std)).exp()
    distance = ((teacher_mean - mean) / log_std.exp()).square()
    return (0.5 * (variance_ratio + distance - 1) + log_std - target_log_std).sum(-1)


def squared_error(teacher: Tensor, student: Tensor) -> Tensor:
    """Returns the squared distance, summed over actions.    (...)

    Source: Rusu 2015, eq. 1.

    Args:
        teacher: Q-values, logits or actions.    (..., n)
        student: The same of the student.        (..., n)
    """
    return (teacher - student).square().sum(-1)


class Objective(abc.ABC):
    """Scores a student's output against a teacher's; adds and scales as on paper."""

    @abc.abstractmethod
    def terms(self) -> tuple[tuple[float, Term], ...]:
        """Returns the terms with their weights."""

    def __call__(self, student: PolicyOutput, teacher: PolicyOutput) -> dict[str, Tensor]:
        """Returns each term's weighted mean over the batch, by the term's name.    () each"""
        values: dict[str, Tensor] = {}
        for weight, term in self.terms():
            value = weight * term.score(student, teacher).mean()
            values[term.name] = values[term.name] + value if term.name in values else value
        return values

    def __add__(self, other: Objective) -> Objective:
        return Sum(self.terms() + other.terms())

    def __mul__(self, factor: float) -> Objective:
        return Sum(tuple((weight * float(factor), term) for weight, term in self.terms()))

    __rmul__ = __mul__

    @staticmethod
    def of(text: str | Objective) -> Objective:
        """Returns the objective that a text spells, "kl" or "KL(temperature=0.01) + 0.5 * MSE()".

        Raises:
            InputError: The text is no such expression.
        """
        return text if isinstance(text, Objective) else _parse(text)


@dataclass(frozen=True)
class Sum(Objective):
    """Weighted terms."""

    weighted: tuple[tuple[float, Term], ...]

    def terms(self) -> tuple[tuple[float, Term], ...]:
        """Returns the terms with their weights."""
        return self.weighted

    def __str__(self) -> str:
        return " + ".join(f"{weight!r} * {term}" for weight, term in self.weighted)


class Term(Objective):
    """One term of an objective."""

    name: str

    @abc.abstractmethod
    def score(self, student: PolicyOutput, teacher: PolicyOutput) -> Tensor:
        """Returns each sample's score, zero where the student is its teacher's equal.    (...)"""

    def terms(self) -> tuple[tuple[float, Term], ...]:
        """Returns this term with weight one."""
        return ((1.0, self),)


@dataclass(frozen=True)
class KL(Term):
    """KL(teacher / temperature || student).

    Source: Rusu 2015, eq. 3. Gaussians take the closed form.
    """

    temperature: float | None = None
    """tau, on the teacher alone; None means the paper's 0.01 for Q-values, and 1 for policies."""
    name = "kl"

    def __post_init__(self) -> None:
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise InputError(
                f"The temperature of KL is {self.temperature}: it must be finite and above 0."
            )

    def score(self, student: PolicyOutput, teacher: PolicyOutput) -> Tensor:
        """Returns the divergence of each sample.    (...)"""
        if teacher.mean is None:
            sharp = Q_VALUE_TEMPERATURE if teacher.logits is None else 1.0
            temperature = self.temperature or sharp
            return categorical_kl(teacher.preferences(), student.preferences(), temperature)
        if teacher.log_std is None:
            raise InputError(
                "KL needs a teacher with a distribution, but this one's actions are deterministic: "
                "take MSE or NLL."
            )
        assert student.mean is not None and student.log_std is not None
        return gaussian_kl(
            teacher.mean, teacher.log_std, student.mean, student.log_std, self.temperature or 1.0
        )

    def __str__(self) -> str:
        return f"KL(temperature={self.temperature})"


@dataclass(frozen=True)
class NLL(Term):
    """-log pi(a), with a the teacher's greedy action.

    Source: Rusu 2015, eq. 2.
    """

    name = "nll"

    def score(self, student: PolicyOutput, teacher: PolicyOutput) -> Tensor:
        """Returns the negative log-likelihood of each sample.    (...)"""
        return -student.log_prob(teacher.greedy())

    def __str__(self) -> str:
        return "NLL()"


@dataclass(frozen=True)
class MSE(Term):
    """Squared error of Q-values, logits or continuous actions.

    Source: Rusu 2015, eq. 1.
    """

    name = "mse"

    def score(self, student: PolicyOutput, teacher: PolicyOutput) -> Tensor:
        """Returns the squared error of each sample.    (...)"""
        if teacher.mean is not None:
            assert student.mean is not None
            return squared_error(teacher.mean, student.mean)
        wanted, scores = teacher.preferences().float(), student.preferences().float()
        # In bfloat16 the constant of illegal actions is rounded: they would differ by a million.
        illegal = wanted <= ILLEGAL / 2
        return squared_error(wanted.masked_fill(illegal, 0), scores.masked_fill(illegal, 0))

    def __str__(self) -> str:
        return "MSE()"


TERMS: dict[str, Callable[..., Term]] = {"KL": KL, "NLL": NLL, "MSE": MSE}
"""Every term by the name that it goes by in text."""


def _parse(text: str) -> Objective:
    """Returns the objective that a text spells; nothing in the text is executed."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise _malformed(text) from error
    return _read(node, text)


def _read(node: ast.expr, text: str) -> Objective:
    """Returns the objective of one node of the expression."""
    match node:
        case ast.BinOp(left, ast.Add(), right):
            return _read(left, text) + _read(right, text)
        case ast.BinOp(factor, ast.Mult(), right):
            weight = _constant(factor, text)
            if weight is not None:
                return weight * _read(right, text)
        case ast.Call(ast.Name(name), [], keywords):
            options = {keyword.arg or "**": _constant(keyword.value, text) for keyword in keywords}
            try:
                return _term(name)(**options)
            except TypeError as error:
                raise InputError(
                    f"The objective {name} has not these options: {text!r}."
                ) from error
        case ast.Name(name):
            return _term(name)()
    raise _malformed(text)


def _term(name: str) -> Callable[..., Term]:
    """Returns the term of a name, in capitals or not."""
    if name.upper() not in TERMS:
        raise unknown("objective", name, [*TERMS, *(term.lower() for term in TERMS)])
    return TERMS[name.upper()]


def _constant(node: ast.expr, text: str) -> float | None:
    """Returns the finite number, or the None, that a node of the expression is."""
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node, sign = node.operand, -1
    match node:
        case ast.Constant(None) if sign == 1:
            return None
        case ast.Constant(bool()):
            pass
        case ast.Constant(int() | float() as number) if abs(number) < LARGEST:
            return sign * float(number)
    raise _malformed(text)


def _malformed(text: str) -> InputError:
    return InputError(
        f"{text!r} is no objective: write 'kl', 'nll', 'mse', or a sum such as "
        "'KL(temperature=0.01) + 0.5 * MSE()'."
    )
