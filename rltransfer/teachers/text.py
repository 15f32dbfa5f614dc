"""Compositions of teachers as text, parsed and never executed.

    Ensemble('a.zip', 'runs/b', weights=(1, 2))
    PerTask({'CartPole-v1': 'a.zip', 'LunarLander-v3': Noisy('b.zip', sigma=0.5)})
    Boltzmann(load_teacher('a.zip', vecnormalize='a.pkl'))

The syntax is Python's. A source in quotes is any that `load_teacher` accepts. The teachers of an
Ensemble, a ProductOfExperts or a Vote follow one another, in a list or not.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from rltransfer.aliases import option_name
from rltransfer.errors import InputError, unknown
from rltransfer.expression import Call, Expression, is_literal, read, shown
from rltransfer.tasks.task import Suite
from rltransfer.teachers.adapted import Adapted
from rltransfer.teachers.composition import Composition
from rltransfer.teachers.ensembles import Ensemble, ProductOfExperts
from rltransfer.teachers.per_task import PerTask
from rltransfer.teachers.teacher import Teacher
from rltransfer.teachers.transformed import Boltzmann, MonteCarloDropout, Noisy, Wrapper
from rltransfer.teachers.vote import Vote

KINDS: dict[str, type[Composition]] = {
    kind.__name__: kind
    for kind in (
        Adapted, Boltzmann, Ensemble, MonteCarloDropout, Noisy, PerTask, ProductOfExperts, Vote,
    )
}  # fmt: skip
"""Every composition by its name in text."""
LOAD = "load_teacher"
"""The name in text of the function that loads a source with observation statistics."""
CALL = re.compile(rf"\s*([A-Za-z_]\w*\s*\(.*\)|({'|'.join([*KINDS, LOAD])})\s*\(.*)\s*", re.DOTALL)
"""A name with brackets; only after a known name may they be left open."""


def is_composition(text: str) -> bool:
    """Whether a text is a composition, and not e.g. a path."""
    return CALL.fullmatch(text) is not None


def read_composition(
    text: str, load: Callable[..., Teacher], suite: Suite | None = None
) -> Teacher:
    """The teacher that a text describes; nothing in the text is executed.

    Args:
        text: The composition.
        load: `load_teacher`, for the sources in the text.
        suite: The tasks.

    Raises:
        InputError: The text is not a composition, or a source in it is not a teacher.
    """
    builder = _Builder(text, load)
    return builder.teacher(read(text, builder.refusal), suite)


class _Builder:
    """Builds teachers from expressions."""

    def __init__(self, text: str, load: Callable[..., Teacher]) -> None:
        self.text = shown(text)
        self.load = load
        self.refusal = InputError(
            f"{self.text} is not a composition of teachers: write one such as "
            "\"Ensemble('a.zip', 'runs/b', weights=(1, 2))\", with every source in quotes."
        )

    def teacher(self, expression: Expression, suite: Suite | None) -> Teacher:
        """The teacher of a source or of a call."""
        if isinstance(expression, str):
            return self.load(expression, suite=suite)
        if not isinstance(expression, Call):
            raise self.refusal
        try:
            return self.composition(expression, suite)
        except TypeError as error:
            # Python reports which argument is missing or unknown.
            reported = re.search("(missing|got) .*'", str(error))
            reason = f": {reported[0]}" if reported else ""
            raise InputError(
                f"{expression.name} cannot be built from {self.text}{reason}."
            ) from error

    def composition(self, call: Call, suite: Suite | None) -> Teacher:
        """The teacher of a call: its first argument contains teachers, the others are options."""
        name, arguments = call.name, call.arguments
        known = inspect.signature(KINDS[name]).parameters if name in KINDS else ()
        options = {option_name(o, known): self.literal(value) for o, value in call.options.items()}
        if len(options) < len(call.options):
            raise InputError(f"{self.text} sets an option of {name} under two names: use one.")
        if name == LOAD:
            return self.load(*map(self.literal, arguments), **{"suite": suite, **options})
        if name not in KINDS:
            raise unknown("composition of teachers", name, [*KINDS, LOAD])
        kind: Any = KINDS[name]
        members: Any
        match arguments:
            case [dict() as by_task, *rest] if kind is PerTask:
                members = {name: self.teacher(one, Suite.of(name)) for name, one in by_task.items()}
            case [first, *rest] if kind is PerTask:
                members = self.literal(first)
            case [first, *rest] if issubclass(kind, Wrapper):
                members = self.teacher(first, suite)
            case [tuple() as several, *rest]:
                members = [self.teacher(one, suite) for one in several]
            case _:
                members, rest = [self.teacher(one, suite) for one in arguments], []
        made: Teacher = kind(members, *map(self.literal, rest), **options)
        return made

    def literal(self, expression: Expression) -> Any:
        """The value of an option."""
        if not is_literal(expression):
            raise self.refusal
        return expression
