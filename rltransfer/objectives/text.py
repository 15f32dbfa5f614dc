"""The text that spells an objective: "KL(temperature=0.01) + 0.5 * MSE()"; nothing is executed."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field, replace
from typing import Any

from rltransfer.errors import InputError
from rltransfer.expression import LARGEST


@dataclass(frozen=True)
class WrittenTerm:
    """A term as it is written."""

    name: str
    """Its name, in capitals or not."""
    options: dict[str, Any] = field(default_factory=dict)
    """What stands in the brackets: numbers, text, None, and numbers by text."""
    factors: tuple[float | str, ...] = ()
    """What it is multiplied by: numbers, and schedules as text."""
    nameless: tuple[Any, ...] = ()
    """What stands in the brackets without an option's name."""


def read(text: str) -> list[WrittenTerm]:
    """Returns the terms of a sum.

    Raises:
        InputError: The text is no sum of terms.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        if "->" in re.sub(r"'[^']*'|\"[^\"]*\"", "", text):
            raise InputError(
                f"{text!r} is no objective: a schedule stands in quotes, as in \"'1->0' * MSE()\"."
            ) from error
        raise malformed(text) from error
    return _terms(node, text)


def _terms(node: ast.expr, text: str) -> list[WrittenTerm]:
    """Returns the terms of one node of the expression."""
    match node:
        case ast.BinOp(left, ast.Add(), right):
            return _terms(left, text) + _terms(right, text)
        case ast.BinOp(left, ast.Mult(), right):
            factor, product = left, right
            if isinstance(right, ast.Constant | ast.UnaryOp):
                factor, product = right, left
            weight = _constant(factor, text)
            if isinstance(weight, float | str):
                terms = _terms(product, text)
                return [replace(term, factors=(*term.factors, weight)) for term in terms]
        case ast.Call(ast.Name(name), values, keywords):
            options = {keyword.arg or "**": _constant(keyword.value, text) for keyword in keywords}
            nameless = tuple(_constant(value, text) for value in values)
            return [WrittenTerm(name, options, nameless=nameless)]
        case ast.Name(name):
            return [WrittenTerm(name)]
    raise malformed(text)


def _constant(node: ast.expr, text: str) -> Any:
    """Returns the finite number, text, None, or numbers by text, that a node is."""
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node, sign = node.operand, -1
    match node:
        case ast.Constant(None | str() as value) if sign == 1:
            return value
        case ast.Constant(bool()):
            pass
        case ast.Constant(int() | float() as number) if abs(number) < LARGEST:
            return sign * float(number)
        case ast.Dict(keys, values) if sign == 1:
            names = [key.value for key in keys if isinstance(key, ast.Constant)]
            if len(names) == len(keys) and all(isinstance(name, str) for name in names):
                numbers = [_constant(value, text) for value in values]
                return dict(zip(names, numbers, strict=True))
    raise malformed(text)


def malformed(text: str) -> InputError:
    """Returns the error for a text that is no objective."""
    return InputError(
        f"{text!r} is no objective: write 'kl', 'nll', 'mse', or a sum such as "
        "'KL(temperature=0.01) + 0.5 * MSE()'."
    )
