"""Objectives: how far a student is from its teacher, and how such terms add and scale.

An objective is what is written on paper, `KL(temperature=0.01) + 0.01 * FeatureRegression()`;
fitted to a student, a teacher and tasks it is a module that holds what its terms learn. A term
scores each sample of a batch; the objective takes the mean over the batch, so that its size does
not depend on the batch's.
"""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from rltransfer import expression
from rltransfer.errors import InputError, check_number, unknown
from rltransfer.expression import Call, Expression, Name, Product, is_literal, shown
from rltransfer.files.serialization import to_builtin
from rltransfer.policies.output import PolicyOutput
from rltransfer.schedule import Schedule

Weight = float | Schedule
"""What a term is multiplied by: a number, or one that changes over the run."""


class Objective(abc.ABC):
    """Scores a student's output against a teacher's; adds and scales as on paper."""

    @abc.abstractmethod
    def terms(self) -> tuple[tuple[Weight, Term], ...]:
        """Returns the terms with their weights."""

    @property
    def needs(self) -> frozenset[str]:
        """What the terms need beside distributions, values and actions: fields of PolicyOutput."""
        return frozenset().union(*(term.needs for _, term in self.terms()))

    @property
    def learns_values(self) -> bool:
        """Whether what is learned from a teacher's Q-values are Q-values, and no policy."""
        kinds = {term.learns for _, term in self.terms()} - {"features"}
        return kinds == {"values"}

    def fitted(
        self, student: PolicyOutput, teacher: PolicyOutput, tasks: Sequence[str] = ()
    ) -> FittedObjective:
        """Returns the objective, ready to score the outputs of this student and this teacher.

        Args:
            student: What the student says of some observations.
            teacher: What the teacher says of them.
            tasks: The names of the tasks, in the order of their index.

        Raises:
            InputError: A term cannot compare the two.
        """
        return FittedObjective(self, student, teacher, tasks)

    def __call__(self, student: PolicyOutput, teacher: PolicyOutput) -> dict[str, Tensor]:
        """Returns each term's weighted mean over the batch, by the term's name.    () each

        For objectives that learn nothing themselves; schedules are at their beginning.
        """
        fitted = self.fitted(student, teacher)
        if any(True for _ in fitted.parameters()):
            raise ValueError(f"{self} learns a map: score with what `fitted` returns.")
        values: dict[str, Tensor] = fitted(student, teacher)
        return values

    def __add__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        return Sum(self.terms() + other.terms())

    def __mul__(self, factor: float | str | Schedule) -> Objective:
        return Sum(tuple((_product(weight, factor), term) for weight, term in self.terms()))

    __rmul__ = __mul__

    def describe(self) -> str:
        """Returns the text that `of` reads, which stands for the objective in JSON."""
        return str(self)

    @staticmethod
    def of(text: str | Objective) -> Objective:
        """Returns the objective that a text spells, "kl" or "KL(temperature=0.01) + 0.5 * MSE()".

        Raises:
            InputError: The text is no such expression, or a weight is negative, or all are zero.
        """
        if not isinstance(text, str | Objective):
            raise InputError(f"{text!r} is no objective: write 'kl', or KL() in Python.")
        objective = text if isinstance(text, Objective) else _parse(text)
        _check_weights(objective)
        return objective


def _check_weights(objective: Objective) -> None:
    """Checks that terms are not fled from, and that there is something to learn."""
    schedules = []
    for weight, term in objective.terms():
        schedule = _schedule(weight)
        if min(schedule.start, schedule.end) < 0:
            raise InputError(f"The weight of {term} is {weight}: it must not be negative.")
        schedules.append(schedule)
    if all(schedule.is_zero for schedule in schedules):
        raise InputError(f"Every weight of {str(objective)!r} is 0: one must be above 0.")


def _schedule(weight: Weight) -> Schedule:
    """Returns a weight as one that may change."""
    return weight if isinstance(weight, Schedule) else Schedule(weight, weight)


def _product(weight: Weight, factor: float | str | Schedule) -> Weight:
    """Returns a weight times a factor, of which one may change over the run."""
    other = Schedule.of(factor) if isinstance(factor, str) else factor
    if isinstance(other, Schedule):
        if isinstance(weight, Schedule):
            raise InputError(f"A term's weight is {weight} times {other}: take one schedule.")
        return Schedule(weight * other.start, weight * other.end, other.until)
    number = float(other)
    if isinstance(weight, Schedule):
        return Schedule(weight.start * number, weight.end * number, weight.until)
    return weight * number


@dataclass(frozen=True)
class Sum(Objective):
    """Weighted terms."""

    weighted: tuple[tuple[Weight, Term], ...]

    def terms(self) -> tuple[tuple[Weight, Term], ...]:
        """Returns the terms with their weights."""
        return self.weighted

    def __str__(self) -> str:
        return " + ".join(
            f"{(str(weight) if isinstance(weight, Schedule) else weight)!r} * {term}"
            for weight, term in self.weighted
        )


@dataclass(frozen=True)
class Term(Objective):
    """One term of an objective."""

    weights: Mapping[str, float] | None = dataclasses.field(default=None, kw_only=True)
    """Factor on the samples of each task; 1 for those that are not named. By the task's id, or by
    its name in results where the tasks share an id."""
    name: ClassVar[str]
    """What it is logged as."""
    learns: ClassVar[str] = "policy"
    """What it brings the student closer to: the teacher's "policy", "values" or "features"."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, to_builtin(getattr(self, field.name)))
        if self.weights is None:
            return
        name = type(self).__name__
        if not isinstance(self.weights, Mapping):
            raise InputError(
                f"The weights of {name} are {self.weights!r}: name a task for each, as in "
                "{'CartPole-v1': 2}; what weighs all tasks stands before the term."
            )
        for task, weight in self.weights.items():
            what = f"The weight of the task {task!r} in {name}"
            if isinstance(weight, str | Schedule):
                raise InputError(
                    f"{what} is {str(weight)!r}: it must be a number; a schedule stands before the "
                    "term."
                )
            check_number(what, weight, "finite and at least 0")

    @property
    def needs(self) -> frozenset[str]:
        """Fields of PolicyOutput that it needs of both, beside what every label holds."""
        return frozenset()

    @abc.abstractmethod
    def score(
        self,
        student: PolicyOutput,
        teacher: PolicyOutput,
        task: Tensor | None,
        learned: nn.Module | None,
    ) -> Tensor:
        """Returns each sample's score, zero where the student is its teacher's equal.    (...)

        Args:
            student: What the student says.
            teacher: What the teacher says.
            task: Index of each sample's task; None where there is only one.    (...)
            learned: What `to_learn` returned.
        """

    def to_learn(
        self, student: PolicyOutput, teacher: PolicyOutput, num_tasks: int
    ) -> nn.Module | None:
        """Returns what the term itself learns along with the student, if anything.

        Raises:
            InputError: The two cannot be compared.
        """
        return None

    def terms(self) -> tuple[tuple[Weight, Term], ...]:
        """Returns this term with weight one."""
        return ((1.0, self),)

    def __str__(self) -> str:
        options = ", ".join(
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        )
        return f"{type(self).__name__}({options})"


class FittedObjective(nn.Module):
    """An objective at work: with what its terms learn, for one student, one teacher and tasks."""

    def __init__(
        self,
        objective: Objective,
        student: PolicyOutput,
        teacher: PolicyOutput,
        tasks: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.objective = objective
        self.learned = nn.ModuleDict()
        weighs = False
        for index, (weight, term) in enumerate(objective.terms()):
            _check_said(term, student, teacher)
            learned = term.to_learn(student, teacher, max(len(tasks), 1))
            if learned is not None:
                self.learned[str(index)] = learned
            factors = _task_factors(term, tasks)
            self.register_buffer(f"task_factors_{index}", factors, persistent=False)
            counts = factors is None or bool(factors.any())
            weighs = weighs or (counts and not _schedule(weight).is_zero)
        if not weighs:
            raise InputError(f"Every weight of {str(objective)!r} is 0: one must be above 0.")

    def forward(
        self,
        student: PolicyOutput,
        teacher: PolicyOutput,
        task: Tensor | None = None,
        progress: float = 0.0,
        weight: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Returns each term's weighted mean over the batch, by the term's name.    () each

        Args:
            student: What the student says.
            teacher: What the teacher says.
            task: Index of each sample's task.    (...)
            progress: The share of the run that is done, 0 to 1, which schedules follow.
            weight: Factor on each sample; 1 if None.    (...)
        """
        values: dict[str, Tensor] = {}
        for index, (factor, term) in enumerate(self.objective.terms()):
            name = str(index)
            learned = self.learned[name] if name in self.learned else None  # noqa: SIM401
            score = term.score(student, teacher, task, learned)
            factors = getattr(self, f"task_factors_{index}")
            if factors is not None:
                assert task is not None
                score = score * factors[task]
            if weight is not None:
                score = score * weight
            number = factor(progress) if isinstance(factor, Schedule) else factor
            value = number * score.mean()
            values[term.name] = values[term.name] + value if term.name in values else value
        return values


def _check_said(term: Term, student: PolicyOutput, teacher: PolicyOutput) -> None:
    """Checks that both say what a term needs."""
    for who, output in (("teacher", teacher), ("student", student)):
        for field in term.needs:
            if getattr(output, field) is None:
                raise InputError(
                    f"{type(term).__name__} compares {SHOWN[field]}, which this {who} has not or "
                    f"does not show: take another {who}, or another objective."
                )


SHOWN = {
    "features": "the last hidden layers",
    "maps": "the last convolutions",
    "attention": "the last convolutions",
    "jacobian": "gradients by the observation",
}
"""What the fields are that a term may need, in words."""


def _task_factors(term: Term, tasks: Sequence[str]) -> Tensor | None:
    """Returns a term's factor of each task; None where it has none.    (num_tasks,)"""
    if term.weights is None:
        return None
    for task in term.weights:
        if task not in tasks:
            raise unknown(f"task to weigh in {type(term).__name__}", task, tasks)
    return torch.tensor([float(term.weights.get(task, 1.0)) for task in tasks])


TERMS: dict[str, type[Term]] = {}
"""Every term by the name that it goes by in text."""
TermType = TypeVar("TermType", bound=type[Term])


def in_text(term: TermType) -> TermType:
    """Lets a class of terms be written in text, by its name."""
    TERMS[term.__name__] = term
    return term


def _parse(text: str) -> Objective:
    """The objective that a text describes."""
    remedy = "write 'kl', 'nll', 'mse', or a sum such as 'KL(temperature=0.01) + 0.5 * MSE()'."
    if "->" in re.sub(r"'[^']*'|\"[^\"]*\"", "", text):
        remedy = "put the schedule in quotes, as in \"'1->0' * MSE()\"."
    refusal = InputError(f"{shown(text)} is not an objective: {remedy}")
    return _built(expression.read(text, refusal), refusal)


def _built(part: Expression, refusal: InputError) -> Objective:
    """The objective of a sum, a product, a call or a name.

    Raises:
        InputError: A name is unknown or a value is not valid; otherwise `refusal`.
    """
    match part:
        case expression.Sum(left, right):
            return _built(left, refusal) + _built(right, refusal)
        case Product(str() | float() | int() as factor, scaled):
            return factor * _built(scaled, refusal)
        case Product(scaled, str() | float() | int() as factor):
            return factor * _built(scaled, refusal)
        case Name(name):
            return _term(name, (), {})
        case Call(name, arguments, options) if is_literal((*arguments, *options.values())):
            return _term(name, arguments, options)
    raise refusal


def _term(name: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> Term:
    """The term of a name, whatever its capitals, with options."""
    kind = {known.lower(): term for known, term in TERMS.items()}.get(name.lower())
    if kind is None:
        raise unknown("objective", name, TERMS)
    known = [field.name for field in dataclasses.fields(kind)]
    known = [*known[1:], known[0]]  # the weights of tasks, which every term has, come last
    if arguments:
        names = " or ".join(f"{option}=" for option in known)
        raise InputError(f"{arguments[0]!r} in {name} has no name: write {names} before it.")
    for option in options:
        if option not in known:
            raise unknown(f"option of the objective {name},", option, known)
    # As floats, whole numbers beyond the range of int64 are numbers like any others.
    values: dict[str, Any] = {
        option: float(value) if isinstance(value, int) else value
        for option, value in options.items()
    }
    return kind(**values)
