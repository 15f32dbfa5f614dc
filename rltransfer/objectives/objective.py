"""Objectives: how far a student is from its teacher, as terms that add and scale as on paper.

An objective is a formula, `KL(temperature=0.01) + 0.01 * FeatureRegression()`. Fitted to a student,
a teacher and tasks, it is a module that contains what its terms learn. A term scores each sample of
a batch; the objective is the mean over the batch, so that its size does not depend on the batch's.
"""

from __future__ import annotations

import abc
import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rltransfer.errors import InputError, check_number, unknown
from rltransfer.expression import Call, Expression, Name, Operation, is_literal, read, shown
from rltransfer.options import normalize, to_builtin
from rltransfer.policies.output import PolicyOutput
from rltransfer.schedule import Schedule

Weight = float | Schedule
"""The factor of a term: a number, or one that changes over the run."""


class Objective(abc.ABC):
    """Scores a student's outputs against a teacher's; adds and scales as on paper."""

    @abc.abstractmethod
    def terms(self) -> tuple[tuple[Weight, Term], ...]:
        """The terms with their weights."""

    @property
    def needs(self) -> frozenset[str]:
        """Fields of PolicyOutput that are needed besides distributions, values and actions."""
        return frozenset().union(*(term.needs for _, term in self.terms()))

    @property
    def learns_values(self) -> bool:
        """Whether a student learns Q-values from a teacher's Q-values, and not a policy."""
        return {term.learns for _, term in self.terms()} - {"features"} == {"values"}

    def describe_terms(self) -> dict[str, str]:
        """The first line of each term's docstring, by the term's name."""
        return {
            term.name: (inspect.getdoc(type(term)) or "").partition("\n")[0]
            for _, term in self.terms()
        }

    def fitted(
        self, student: PolicyOutput, teacher: PolicyOutput, tasks: Sequence[str] = ()
    ) -> FittedObjective:
        """The module that scores the outputs of this student and this teacher."""
        return FittedObjective(self, student, teacher, tasks)

    def __call__(self, student: PolicyOutput, teacher: PolicyOutput) -> dict[str, Tensor]:
        """Each term's weighted mean over the batch, by the term's name.    () each

        For objectives without weights of their own; schedules are at their start.
        """
        fitted = self.fitted(student, teacher)
        if any(True for _ in fitted.parameters()):
            raise ValueError(f"{self} learns a map: score with the module that `fitted` returns.")
        values: dict[str, Tensor] = fitted(student, teacher)
        return values

    # NumPy would otherwise multiply and add element by element, and return arrays.
    __array_ufunc__ = None

    def __add__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        return Sum(self.terms() + other.terms())

    def __mul__(self, factor: float | str | Schedule) -> Objective:
        return Sum(tuple((_product(weight, factor), term) for weight, term in self.terms()))

    __rmul__ = __mul__

    def describe(self) -> str:
        """The text that `of` reads: the objective in JSON."""
        return str(self)

    @staticmethod
    def of(text: str | Objective) -> Objective:
        """The objective of a text such as "kl" or "KL(temperature=0.01) + 0.5 * MSE()".

        Raises:
            InputError: The text is not an objective, a weight is negative, or all weights are 0.
        """
        if not isinstance(text, str | Objective):
            raise InputError(f"{text!r} is not an objective: write 'kl', or KL() in Python.")
        objective = _parse(text) if isinstance(text, str) else text
        schedules = [(Schedule.of(weight), term) for weight, term in objective.terms()]
        for schedule, term in schedules:
            schedule.check(f"The weight of {term}", "at least 0")
        if all(schedule.is_zero for schedule, _ in schedules):
            raise _no_weight(objective)
        return objective


def _no_weight(objective: Objective) -> InputError:
    return InputError(f"Every weight of {str(objective)!r} is 0: one must be above 0.")


def _product(weight: Weight, factor: float | str | Schedule) -> Weight:
    """A weight times a factor, at most one of which changes over the run."""
    other = Schedule.of(factor) if isinstance(factor, str) else to_builtin(factor)
    if not isinstance(other, Schedule):
        check_number("The factor of an objective", other)
        return weight.scaled(other) if isinstance(weight, Schedule) else weight * float(other)
    if isinstance(weight, Schedule):
        raise InputError(f"The weight of a term is {weight} times {other}: use one schedule.")
    return other.scaled(weight)


@dataclass(frozen=True)
class Sum(Objective):
    """Weighted terms."""

    weighted: tuple[tuple[Weight, Term], ...]

    def terms(self) -> tuple[tuple[Weight, Term], ...]:
        """The terms with their weights."""
        return self.weighted

    def __str__(self) -> str:
        return " + ".join(
            f"{(str(weight) if isinstance(weight, Schedule) else weight)!r} * {term}"
            for weight, term in self.weighted
        )


@dataclass(frozen=True)
class Term(Objective):
    """One term of an objective; each direct subclass can be written in text, by its name."""

    weights: Mapping[str, float] | None = dataclasses.field(default=None, kw_only=True)
    """Factor on the samples of each task, 1 for tasks without one; by the task's id, or by its name
    in results where tasks share an id."""
    name: ClassVar[str]
    """The name of the term in logs."""
    learns: ClassVar[str] = "policy"
    """What it brings the student closer to: the teacher's "policy", "values" or "features"."""
    positive: ClassVar[str | None] = None
    """The option that must be finite and above 0."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        normalize(self, "The {} of " + name)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == self.positive and value != field.default:
                check_number(f"The {field.name} of {name}", value, "finite and above 0")
        if self.weights is None:
            return
        if not isinstance(self.weights, Mapping):
            raise InputError(
                f"The weights of {name} are {self.weights!r}: pass one for each task, as in "
                "{'CartPole-v1': 2}. A weight for all tasks goes before the term."
            )
        for task, weight in self.weights.items():
            what = f"The weight of the task {task!r} in {name}"
            if isinstance(weight, str | Schedule):
                raise InputError(
                    f"{what} is {str(weight)!r}: it must be a number. A schedule goes before the "
                    "term."
                )
            check_number(what, weight, "finite and at least 0")

    @property
    def needs(self) -> frozenset[str]:
        """Fields of PolicyOutput that it needs of both, besides what every label contains."""
        return frozenset()

    @abc.abstractmethod
    def score(
        self,
        student: PolicyOutput,
        teacher: PolicyOutput,
        task: Tensor | None,
        learned: nn.Module | None,
        /,
    ) -> Tensor:
        """Each sample's score, zero where student and teacher are equal.    (...)

        Args:
            student: The student's outputs.
            teacher: The teacher's outputs.
            task: Index of each sample's task; None if there is only one.    (...)
            learned: The result of `to_learn`.
        """

    def to_learn(
        self, student: PolicyOutput, teacher: PolicyOutput, num_tasks: int
    ) -> nn.Module | None:
        """What the term itself learns along with the student, if anything.

        Raises:
            InputError: The two cannot be compared.
        """
        return None

    def terms(self) -> tuple[tuple[Weight, Term], ...]:
        """This term with weight one."""
        return ((1.0, self),)

    def __str__(self) -> str:
        options = ", ".join(
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        )
        return f"{type(self).__name__}({options})"


class FittedObjective(nn.Module):
    """An objective with what its terms learn, for one student and one teacher.

    Args:
        objective: The objective.
        student: The student's outputs for some observations.
        teacher: The teacher's outputs for them.
        tasks: The names of the tasks, in the order of their index.

    Raises:
        InputError: A term cannot compare the two, or every weight is 0.
    """

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
        teaches = False
        for index, (weight, term) in enumerate(objective.terms()):
            _check_outputs(term, student, teacher)
            learned = term.to_learn(student, teacher, max(len(tasks), 1))
            if learned is not None:
                self.learned[str(index)] = learned
            factors = _task_factors(term, tasks)
            self.register_buffer(f"task_factors_{index}", factors, persistent=False)
            counts = factors is None or bool(factors.any())
            teaches = teaches or (counts and not Schedule.of(weight).is_zero)
        if not teaches:
            raise _no_weight(objective)

    def forward(
        self,
        student: PolicyOutput,
        teacher: PolicyOutput,
        task: Tensor | None = None,
        progress: float = 0.0,
        weight: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Each term's weighted mean over the batch, by the term's name.    () each

        Args:
            student: The student's outputs.
            teacher: The teacher's outputs.
            task: Index of each sample's task.    (...)
            progress: The fraction of the run that is done, 0 to 1, for schedules.
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


COMPARED = {
    "features": "the last hidden layers",
    "maps": "the last convolutions",
    "attention": "the last convolutions",
    "jacobian": "gradients by the observation",
}
"""The fields that a term may need, in words."""


def _check_outputs(term: Term, student: PolicyOutput, teacher: PolicyOutput) -> None:
    """Checks that both output what a term needs, and have the same actions if it compares them.

    Raises:
        InputError: They do not.
    """
    for who, output in (("teacher", teacher), ("student", student)):
        for field in term.needs:
            if getattr(output, field) is None:
                raise InputError(
                    f"{type(term).__name__} compares {COMPARED[field]}, but this {who} does not "
                    f"output them: use another {who} or another objective."
                )
    if term.learns != "features" and _actions(teacher) != _actions(student):
        raise InputError(
            f"The teacher has {_actions(teacher)} and the student {_actions(student)}: use a "
            "teacher with the same actions."
        )


def _actions(output: PolicyOutput) -> str:
    if output.mean is not None:
        return f"{output.mean.shape[-1]}-dimensional continuous actions"
    return f"{output.preferences().shape[-1]} discrete actions"


def _task_factors(term: Term, tasks: Sequence[str]) -> Tensor | None:
    """A term's factor for each task; None without any.    (num_tasks,)"""
    if term.weights is None:
        return None
    for task in term.weights:
        if task not in tasks:
            raise unknown(f"task to weigh in {type(term).__name__}", task, tasks)
    return torch.tensor([float(term.weights.get(task, 1.0)) for task in tasks])


def _parse(text: str) -> Objective:
    remedy = "write 'kl', 'nll', 'mse', or a sum such as 'KL(temperature=0.01) + 0.5 * MSE()'."
    if "->" in re.sub(r"'[^']*'|\"[^\"]*\"", "", text):
        remedy = "put the schedule in quotes, as in \"'1->0' * MSE()\"."
    refusal = InputError(f"{shown(text)} is not an objective: {remedy}")

    def built(part: Expression) -> Objective:
        match part:
            case Operation("+", left, right):
                return built(left) + built(right)
            case Operation("*", str() | float() | int() as factor, scaled):
                return factor * built(scaled)
            case Operation("*", scaled, str() | float() | int() as factor):
                return factor * built(scaled)
            case Name(name):
                return _term(name, (), {})
            case Call(name, arguments, options) if is_literal((*arguments, *options.values())):
                return _term(name, arguments, options)
        raise refusal

    return built(read(text, refusal))


def _term(name: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> Term:
    """The term of a name, whatever its capitals, with options."""
    terms = {term.__name__: term for term in Term.__subclasses__()}
    kind = {known.lower(): term for known, term in terms.items()}.get(name.lower())
    if kind is None:
        raise unknown("objective", name, terms)
    known = [field.name for field in dataclasses.fields(kind)]
    known = [*known[1:], known[0]]  # the weights of tasks, which every term has, come last
    if arguments:
        names = " or ".join(f"{option}=" for option in known)
        raise InputError(f"{arguments[0]!r} in {name} has no name: write {names} before it.")
    for option in options:
        if option not in known:
            raise unknown(f"option of the objective {name},", option, known)
    return kind(**options)
