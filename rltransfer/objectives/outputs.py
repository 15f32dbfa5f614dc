"""Terms on what two policies output: distributions, Q-values and actions.

Actions that the student's task does not have are masked: they are left out of every softmax and
every sum, on both sides, and so is the padding of continuous actions. An action of the task that
the teacher masks is one that the teacher never takes, and its value is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.objectives.divergences import (
    categorical_kl,
    categorical_reverse_kl,
    gaussian_kl,
    gaussian_reverse_kl,
    huber_error,
    jensen_shannon,
    squared_error,
)
from rltransfer.objectives.objective import Term
from rltransfer.policies.output import MASKED, PolicyOutput, upcast
from rltransfer.policies.scores import Q_VALUE_TEMPERATURE, is_masked, log_policy


@dataclass(frozen=True)
class KL(Term):
    """KL(teacher / temperature || student) in nats: the student covers all that the teacher does.

    Source: Rusu 2015 (arXiv 1511.06295), eq. 3. Gaussians have a closed form.
    """

    temperature: float | None = None
    """tau, on the teacher alone; by default the paper's 0.01 for Q-values, and 1 for policies."""
    name: ClassVar[str] = "kl"
    positive: ClassVar[str | None] = "temperature"

    def score(self, student: PolicyOutput, teacher: PolicyOutput, *_: object) -> Tensor:
        """The divergence of each sample.    (...)"""
        return _divergence(self, student, teacher, categorical_kl, gaussian_kl)


@dataclass(frozen=True)
class ReverseKL(Term):
    """KL(student || teacher / temperature) in nats: the student does what the teacher does most.

    Actions that the teacher masks have a log-probability of -1e9: the student first learns to avoid
    them, before anything else.

    Source: Czarnecki 2019 (arXiv 1902.02186). Gaussians have a closed form.
    """

    temperature: float | None = None
    """tau, as for `KL`."""
    name: ClassVar[str] = "reverse_kl"
    positive: ClassVar[str | None] = "temperature"

    def score(self, student: PolicyOutput, teacher: PolicyOutput, *_: object) -> Tensor:
        """The divergence of each sample.    (...)"""
        return _divergence(self, student, teacher, categorical_reverse_kl, gaussian_reverse_kl)


@dataclass(frozen=True)
class JS(Term):
    """The Jensen-Shannon divergence of teacher / temperature and student, in nats; at most ln 2.

    Source: Lin 1991, "Divergence measures based on the Shannon entropy". Gaussians do not have a
    closed form.
    """

    temperature: float | None = None
    """tau, as for `KL`."""
    name: ClassVar[str] = "js"
    positive: ClassVar[str | None] = "temperature"

    def score(self, student: PolicyOutput, teacher: PolicyOutput, *_: object) -> Tensor:
        """The divergence of each sample.    (...)"""
        return _divergence(self, student, teacher, jensen_shannon, None)


@dataclass(frozen=True)
class NLL(Term):
    """-log pi(a) in nats, with a the teacher's greedy action.

    Source: Rusu 2015, eq. 2.
    """

    name: ClassVar[str] = "nll"

    def score(self, student: PolicyOutput, teacher: PolicyOutput, *_: object) -> Tensor:
        """The negative log-likelihood of each sample.    (...)"""
        if teacher.mean is not None:
            return -student.log_prob(teacher.greedy())
        target, scores = masked_scores(student, teacher)
        greedy = target.argmax(-1, keepdim=True)
        return -log_policy(scores, 1.0).gather(-1, greedy).squeeze(-1)


@dataclass(frozen=True)
class MSE(Term):
    """Squared error of Q-values, logits or continuous actions, summed over actions.

    Continuous actions are compared in the units of the student's outputs: standard deviations of
    the teacher's actions, or half-ranges of the bounds with RL.

    Source: Rusu 2015, eq. 1.
    """

    name: ClassVar[str] = "mse"
    learns: ClassVar[str] = "values"

    def score(self, student: PolicyOutput, teacher: PolicyOutput, *_: object) -> Tensor:
        """The error of each sample.    (...)"""
        return squared_error(*_values(student, teacher))


@dataclass(frozen=True)
class Huber(Term):
    """Half the squared error up to delta, linear beyond; of Q-values, logits or actions.

    Source: Huber 1964.
    """

    delta: float = 1.0
    """The error at which the linear part begins, in the units of what is compared."""
    name: ClassVar[str] = "huber"
    learns: ClassVar[str] = "values"
    positive: ClassVar[str | None] = "delta"

    def score(self, student: PolicyOutput, teacher: PolicyOutput, *_: object) -> Tensor:
        """The error of each sample.    (...)"""
        return huber_error(*_values(student, teacher), self.delta)


def masked_scores(student: PolicyOutput, teacher: PolicyOutput) -> tuple[Tensor, Tensor]:
    """The teacher's and the student's logits or Q-values, both masked where the student's are.

    In float32.    (..., num_actions) each
    """
    target, scores = upcast(teacher.preferences()), upcast(student.preferences())
    return target.masked_fill(is_masked(scores), MASKED), scores


def _values(student: PolicyOutput, teacher: PolicyOutput) -> tuple[Tensor, Tensor]:
    """The teacher's and the student's scores or actions, 0 where masked.    (..., n) each

    Actions are in the units of the student's outputs.
    """
    if teacher.mean is not None and student.mean is not None:
        scale = 1.0 if student.action_scale is None else student.action_scale
        return student.mask_padding(teacher.greedy()) / scale, student.mean / scale
    target, scores = masked_scores(student, teacher)
    masked = is_masked(target)
    return target.masked_fill(masked, 0), scores.masked_fill(masked, 0)


def _divergence(
    term: KL | ReverseKL | JS,
    student: PolicyOutput,
    teacher: PolicyOutput,
    discrete: Callable[[Tensor, Tensor, float], Tensor],
    continuous: Callable[..., Tensor] | None,
) -> Tensor:
    """The divergence of the teacher's and the student's distributions, in nats.    (...)

    Args:
        term: The term, with its temperature.
        student: The student's outputs.
        teacher: The teacher's outputs.
        discrete: Takes the teacher's and the student's scores, and the temperature.
        continuous: Takes Gaussians as `gaussian_kl` does; None if there is no closed form.

    Raises:
        InputError: The divergence is not defined for the teacher's actions.
    """
    if teacher.mean is None:
        default = Q_VALUE_TEMPERATURE if teacher.logits is None else 1.0
        return discrete(*masked_scores(student, teacher), term.temperature or default)
    name = type(term).__name__
    if continuous is None:
        raise InputError(
            f"{name} is for discrete actions: use KL or ReverseKL for continuous ones."
        )
    if teacher.log_std is None:
        raise InputError(
            f"{name} needs a teacher with a distribution, but in some task this one's actions are "
            "deterministic: use MSE or NLL."
        )
    return continuous(
        teacher.mean, teacher.log_std, student.mean, student.log_std, term.temperature or 1.0,
        student.padding_mask,
    )  # fmt: skip
