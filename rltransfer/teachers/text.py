"""Compositions of teachers as text, parsed and never executed.

    Ensemble('a.zip', 'runs/b', weights=(1, 2))
    PerTask({'CartPole-v1': 'a.zip', 'LunarLander-v3': Noisy('b.zip', sigma=0.5)})
    Boltzmann(load_teacher('a.zip', vecnormalize='a.pkl'))

It reads as it would in Python: a source in quotes is any that `load_teacher` knows. The teachers of
an Ensemble, a ProductOfExperts or a Vote stand one after the other, with or without brackets.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
from typing import Any, Protocol

from rltransfer.aliases import option_name
from rltransfer.errors import InputError, unknown
from rltransfer.expression import LARGEST
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
"""Every composition by the name that it goes by in text."""
LOAD = "load_teacher"
"""What a source with observation statistics is called by."""
LONGEST_SHOWN = 200
"""Characters of a text that an error shows."""
CALL = re.compile(rf"\s*([A-Za-z_]\w*\s*\(.*\)|({'|'.join([*KINDS, LOAD])})\s*\(.*)\s*", re.DOTALL)
"""A name before brackets; what is left open only after a name that there is."""


class Load(Protocol):
    """Returns the teacher of a source; see `load_teacher`."""

    def __call__(
        self, source: str, vecnormalize: str | None = None, suite: Suite | None = None
    ) -> Teacher:
        """Returns the teacher."""


def is_composition(text: str) -> bool:
    """Tells whether a text is one of a composition, and not e.g. a path."""
    return CALL.fullmatch(text) is not None


def read_composition(text: str, load: Load, suite: Suite | None = None) -> Teacher:
    """Returns the teacher that a text spells; nothing in the text is executed.

    Args:
        text: The composition.
        load: Returns the teacher of each source in it.
        suite: The tasks.

    Raises:
        InputError: The text is no composition, or a source in it is no teacher.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if text.count("(") > text.count(")"):
            raise InputError(f"A bracket is left open in {_shown(text)}: close it.") from error
        raise _malformed(text) from error
    return _Reader(text, load).teacher(node, suite)


class _Reader:
    """Turns the nodes of an expression into teachers and options."""

    def __init__(self, text: str, load: Load) -> None:
        self.text = text
        self.load = load

    def teacher(self, node: ast.expr, suite: Suite | None) -> Teacher:
        """Returns the teacher of a node: a source or a composition."""
        match node:
            case ast.Constant(str() as source):
                return self.load(source, suite=suite)
            case ast.Call(ast.Name(name), arguments, keywords):
                known = inspect.signature(KINDS[name]).parameters if name in KINDS else ()
                options = {
                    option_name(word.arg or "**", known): self.value(word.value)
                    for word in keywords
                }
                try:
                    return self._made(name, arguments, options, suite)
                except TypeError as error:
                    # Python tells which argument is missing or unknown.
                    told = re.search("(missing|got) .*'", str(error))
                    reason = f": {told[0]}" if told else ""
                    raise InputError(
                        f"{name} does not take what stands in its brackets, {_shown(self.text)}"
                        f"{reason}."
                    ) from error
        raise _malformed(self.text)

    def _made(
        self, name: str, arguments: list[ast.expr], options: dict[str, Any], suite: Suite | None
    ) -> Teacher:
        """Returns the teacher of a call."""
        if name == LOAD:
            values = [self.value(argument) for argument in arguments]
            return functools.partial(self.load, suite=suite)(*values, **options)
        if name not in KINDS:
            raise unknown("composition of teachers", name, [*KINDS, LOAD])
        kind: Any = KINDS[name]
        if kind is PerTask:
            return PerTask(*(self._by_task(argument) for argument in arguments), **options)
        if issubclass(kind, Wrapper):
            first, *rest = arguments or [ast.Constant(None)]
            wrapped: Teacher = kind(
                self.teacher(first, suite), *(self.value(one) for one in rest), **options
            )
            return wrapped
        more: list[ast.expr] = []
        match arguments:
            case [ast.List(elements) | ast.Tuple(elements), *more]:
                arguments = elements
        several: Teacher = kind(
            [self.teacher(one, suite) for one in arguments],
            *(self.value(one) for one in more),
            **options,
        )
        return several

    def _by_task(self, node: ast.expr) -> dict[str, Teacher]:
        """Returns the teacher of each task."""
        if not isinstance(node, ast.Dict):
            raise InputError(
                "PerTask takes a teacher for each task, as in PerTask({'CartPole-v1': 'a.zip'}), "
                f"and not what stands in {_shown(self.text)}."
            )
        teachers = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
                raise _malformed(self.text)
            teachers[key.value] = self.teacher(value, Suite.of(key.value))
        return teachers

    def value(self, node: ast.expr) -> Any:
        """Returns the number, text, None, tuple or dictionary of these that a node is."""
        match node:
            case ast.Constant(bool()):
                pass
            case ast.Constant(None | str() as value):
                return value
            case ast.Constant(int() | float() as number) if abs(number) < LARGEST:
                return number
            case ast.UnaryOp(ast.USub(), ast.Constant(int() | float()) as positive):
                return -self.value(positive)
            case ast.Tuple(elements) | ast.List(elements):
                return tuple(self.value(element) for element in elements)
            case ast.Dict(keys, values) if None not in keys:
                return {
                    self.value(key): self.value(value)
                    for key, value in zip(keys, values, strict=True)
                    if key is not None
                }
        raise _malformed(self.text)


def _shown(text: str) -> str:
    """Returns a text in quotes, cut where it is too long for a sentence."""
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}...")


def _malformed(text: str) -> InputError:
    return InputError(
        f"{_shown(text)} is no composition of teachers: write one such as "
        "\"Ensemble('a.zip', 'runs/b', weights=(1, 2))\", with every source in quotes."
    )
