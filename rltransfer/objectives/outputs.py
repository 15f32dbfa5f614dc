"""Objectives on what two policies say: their distributions, Q-values and actions.

Actions that the student's task does not have, and such numbers of a continuous action, are left
out of every softmax and every sum, on both sides. An action of the task that the teacher takes for
illegal is one that it never takes; nothing is known of its value.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from rltransfer.errors import InputError, check_number
from rltransfer.objectives.divergences import (
    categorical_kl,
    categorical_reverse_kl,
    gaussian_kl,
    huber_error,
    jensen_shannon,
    squared_error,
)
from rltransfer.objectives.objective import Term, in_text
from rltransfer.policies.output import ILLEGAL, PolicyOutput, upcast
from rltransfer.policies.scores import Q_VALUE_TEMPERATURE, is_illegal, log_policy


def legal_scores(student: PolicyOutput, teacher: PolicyOutput) -> tuple[Tensor, Tensor]:
    """Returns logits or Q-values of both, illegal where the student's are.

    Args:
        student: Over discrete actions, illegal where its task does not have them.
        teacher: Over the same actions.

    Returns:
        The teacher's and the student's, in float32.    (..., num_actions) each

    Raises:
        InputError: They are over different numbers of actions.
    """
    wanted, scores = upcast(teacher.preferences()), upcast(student.preferences())
    _check_alike(wanted, scores, "actions")
    return wanted.masked_fill(is_illegal(scores), ILLEGAL), scores


def masked_means(student: PolicyOutput, teacher: PolicyOutput) -> tuple[Tensor, Tensor]:
    """Returns the continuous actions of both, 0 where the student's task has no such number.

    Args:
        student: Over continuous actions.
        teacher: Over the same actions.

    Returns:
        The teacher's and the student's.    (..., action_dim) each
    """
    assert teacher.mean is not None and student.mean is not None
    return student.mask_padding(teacher.mean), student.mean


def _check_alike(wanted: Tensor, said: Tensor, what: str) -> None:
    """Checks that teacher and student say as much."""
    if wanted.shape[-1] != said.shape[-1]:
        raise InputError(
            f"The teacher knows {wanted.shape[-1]} {what} and the student {said.shape[-1]}: "
            "take a teacher of the same actions."
        )


@dataclass(frozen=True)
class OutputTerm(Term):
    """A term on distributions, Q-values or actions, sample by sample."""

    def score(
        self,
        student: PolicyOutput,
        teacher: PolicyOutput,
        task: Tensor | None,
        learned: nn.Module | None,
    ) -> Tensor:
        """Returns each sample's score.    (...)

        Raises:
            InputError: The teacher's actions are others than the student's.
        """
        if teacher.mean is None and student.mean is None:
            return self.score_discrete(*legal_scores(student, teacher), teacher)
        if teacher.mean is None or student.mean is None:
            kinds = ("discrete", "continuous")
            teachers, students = kinds if teacher.mean is None else kinds[::-1]
            raise InputError(
                f"The teacher's actions are {teachers} and the student's {students}: "
                "take a teacher of the same actions."
            )
        _check_alike(teacher.mean, student.mean, "numbers of an action")
        return self.score_continuous(student, teacher)

    @abc.abstractmethod
    def score_discrete(self, wanted: Tensor, scores: Tensor, teacher: PolicyOutput) -> Tensor:
        """Returns each sample's score.    (...)

        Args:
            wanted: The teacher's logits or Q-values.    (..., num_actions)
            scores: The student's.                       (..., num_actions)
            teacher: What the teacher says.
        """

    @abc.abstractmethod
    def score_continuous(self, student: PolicyOutput, teacher: PolicyOutput) -> Tensor:
        """Returns each sample's score where actions are continuous.    (...)"""


@dataclass(frozen=True)
class Divergence(OutputTerm):
    """A divergence of the teacher's and the student's distribution, in nats."""

    temperature: float | None = None
    """tau, on the teacher alone; None means the paper's 0.01 for Q-values, and 1 for policies."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature is not None:
            what = f"The temperature of {type(self).__name__}"
            check_number(what, self.temperature, "finite and above 0")

    def score_discrete(self, wanted: Tensor, scores: Tensor, teacher: PolicyOutput) -> Tensor:
        """Returns the divergence of each sample.    (...)"""
        sharp = Q_VALUE_TEMPERATURE if teacher.logits is None else 1.0
        return self.of_softmax(wanted, scores, self.temperature or sharp)

    def score_continuous(self, student: PolicyOutput, teacher: PolicyOutput) -> Tensor:
        """Returns the divergence of each sample.    (...)"""
        if teacher.log_std is None:
            raise InputError(
                f"{type(self).__name__} needs a teacher with a distribution, but in some task this "
                "one's actions are deterministic: take MSE or NLL."
            )
        return self.of_gaussians(student, teacher, self.temperature or 1.0)

    @abc.abstractmethod
    def of_softmax(self, wanted: Tensor, scores: Tensor, temperature: float) -> Tensor:
        """Returns the divergence of softmax distributions.    (...)

        Args:
            wanted: The teacher's logits or Q-values.    (..., num_actions)
            scores: The student's.                       (..., num_actions)
            temperature: tau.
        """

    @abc.abstractmethod
    def of_gaussians(
        self, student: PolicyOutput, teacher: PolicyOutput, temperature: float
    ) -> Tensor:
        """Returns the divergence of Gaussians with `mean` and `log_std`.    (...)"""


@in_text
@dataclass(frozen=True)
class KL(Divergence):
    """KL(teacher / temperature || student): the student covers all that the teacher does.

    Source: Rusu 2015 (arXiv 1511.06295), eq. 3. Gaussians take the closed form.
    """

    name: ClassVar[str] = "kl"

    def of_softmax(self, wanted: Tensor, scores: Tensor, temperature: float) -> Tensor:
        """Returns the divergence of softmax distributions.    (...)"""
        return categorical_kl(wanted, scores, temperature)

    def of_gaussians(
        self, student: PolicyOutput, teacher: PolicyOutput, temperature: float
    ) -> Tensor:
        """Returns the divergence of Gaussians.    (...)"""
        assert teacher.mean is not None and teacher.log_std is not None
        assert student.mean is not None and student.log_std is not None
        return gaussian_kl(
            teacher.mean, teacher.log_std, student.mean, student.log_std, temperature,
            student.padding_mask,
        )  # fmt: skip


@in_text
@dataclass(frozen=True)
class ReverseKL(Divergence):
    """KL(student || teacher / temperature): the student keeps to what the teacher does most.

    What the teacher takes for illegal has the logarithm -1e9 of a probability: the student's own
    probability of it is pressed down before anything else is learned.

    Source: Czarnecki 2019 (arXiv 1902.02186). Gaussians take the closed form.
    """

    name: ClassVar[str] = "reverse_kl"

    def of_softmax(self, wanted: Tensor, scores: Tensor, temperature: float) -> Tensor:
        """Returns the divergence of softmax distributions.    (...)"""
        return categorical_reverse_kl(wanted, scores, temperature)

    def of_gaussians(
        self, student: PolicyOutput, teacher: PolicyOutput, temperature: float
    ) -> Tensor:
        """Returns the divergence of Gaussians.    (...)"""
        assert teacher.mean is not None and teacher.log_std is not None
        assert student.mean is not None and student.log_std is not None
        # The temperature multiplies the teacher's variance here too.
        log_std = teacher.log_std + 0.5 * math.log(temperature)
        return gaussian_kl(
            student.mean, student.log_std, teacher.mean, log_std, 1.0, student.padding_mask
        )


@in_text
@dataclass(frozen=True)
class JS(Divergence):
    """The Jensen-Shannon divergence of teacher / temperature and student; at most ln 2.

    Source: Lin 1991, "Divergence measures based on the Shannon entropy". Gaussians have no closed
    form.
    """

    name: ClassVar[str] = "js"

    def of_softmax(self, wanted: Tensor, scores: Tensor, temperature: float) -> Tensor:
        """Returns the divergence of softmax distributions.    (...)"""
        return jensen_shannon(wanted, scores, temperature)

    def of_gaussians(
        self, student: PolicyOutput, teacher: PolicyOutput, temperature: float
    ) -> Tensor:
        """Refuses: there is no closed form."""
        raise InputError("JS is for discrete actions: take KL or ReverseKL for continuous ones.")


@in_text
@dataclass(frozen=True)
class NLL(OutputTerm):
    """-log pi(a), with a the teacher's greedy action.

    Source: Rusu 2015, eq. 2.
    """

    name: ClassVar[str] = "nll"

    def score_discrete(self, wanted: Tensor, scores: Tensor, teacher: PolicyOutput) -> Tensor:
        """Returns the negative log-likelihood of each sample.    (...)"""
        greedy = wanted.argmax(-1, keepdim=True)
        return -log_policy(scores, 1.0).gather(-1, greedy).squeeze(-1)

    def score_continuous(self, student: PolicyOutput, teacher: PolicyOutput) -> Tensor:
        """Returns the negative log-likelihood of each sample.    (...)"""
        return -student.log_prob(teacher.greedy())


@dataclass(frozen=True)
class ErrorTerm(OutputTerm):
    """An error of Q-values, logits or continuous actions, summed over them."""

    learns: ClassVar[str] = "values"

    def score_discrete(self, wanted: Tensor, scores: Tensor, teacher: PolicyOutput) -> Tensor:
        """Returns the error of each sample; illegal actions have none.    (...)"""
        illegal = is_illegal(wanted)
        return self.error(wanted.masked_fill(illegal, 0), scores.masked_fill(illegal, 0))

    def score_continuous(self, student: PolicyOutput, teacher: PolicyOutput) -> Tensor:
        """Returns the error of each sample.    (...)"""
        return self.error(*masked_means(student, teacher))

    @abc.abstractmethod
    def error(self, wanted: Tensor, said: Tensor) -> Tensor:
        """Returns the error, summed over the last axis.    (...)

        Args:
            wanted: What the teacher says.    (..., n)
            said: What the student says.      (..., n)
        """


@in_text
@dataclass(frozen=True)
class MSE(ErrorTerm):
    """Squared error of Q-values, logits or continuous actions.

    Source: Rusu 2015, eq. 1.
    """

    name: ClassVar[str] = "mse"

    def error(self, wanted: Tensor, said: Tensor) -> Tensor:
        """Returns the squared error.    (...)"""
        return squared_error(wanted, said)


@in_text
@dataclass(frozen=True)
class Huber(ErrorTerm):
    """Half the squared error up to delta, a straight line beyond; of Q-values, logits or actions.

    Source: Huber 1964.
    """

    delta: float = 1.0
    """The error at which the straight line begins, in the units of what is compared."""
    name: ClassVar[str] = "huber"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("The delta of Huber", self.delta, "finite and above 0")

    def error(self, wanted: Tensor, said: Tensor) -> Tensor:
        """Returns the Huber error.    (...)"""
        return huber_error(wanted, said, self.delta)
