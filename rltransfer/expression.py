"""The reader of text that users write: it parses Python's syntax and executes nothing.

An expression is a literal (None, a string, a finite number, a tuple or list of expressions, a dict
of expressions by string), a name, a call, a sum or a product.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from typing import TypeAlias

from rltransfer.errors import InputError

LARGEST = 1e38
"""What a number must be below, to be finite in float32."""
EXACT = 2**53
"""The largest whole number up to which floats represent all."""
DEEPEST = 100
"""Levels of nesting that a text may have: far fewer than Python's own recursion allows."""
LONGEST_SHOWN = 200
"""Characters of a text that an error shows."""

Literal: TypeAlias = "str | float | tuple[Expression, ...] | dict[str, Expression] | None"
Expression: TypeAlias = "Literal | Name | Call | Operation"


@dataclass(frozen=True)
class Name:
    """A name without brackets."""

    name: str


@dataclass(frozen=True)
class Call:
    """A name with arguments in brackets."""

    name: str
    arguments: tuple[Expression, ...]
    options: dict[str, Expression]
    """Keyword arguments; "**" is the name of what follows two asterisks."""


@dataclass(frozen=True)
class Operation:
    """A sum or a product."""

    sign: str
    """Either "+" or "*"."""
    left: Expression
    right: Expression


def read(text: str, refusal: InputError) -> Expression:
    """The expression that a text contains.

    Args:
        text: What the user wrote.
        refusal: The error to raise if the text is not an expression.

    Raises:
        InputError: A bracket is left open, or `refusal`.
    """
    if _brackets(text) > DEEPEST:
        raise refusal
    try:
        return _read(ast.parse(text.strip(), mode="eval").body, DEEPEST)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if "was never closed" in str(error):
            raise InputError(f"A bracket is left open in {shown(text)}: close it.") from error
        raise refusal from error


def _brackets(text: str) -> int:
    """Levels of brackets; Python's parser takes more for a lack of memory."""
    level = deepest = 0
    for one in text:
        level += (one in "([{") - (one in ")]}")
        deepest = max(deepest, level)
    return deepest


def is_literal(expression: Expression) -> bool:
    """Whether an expression is data alone, without names, calls, sums and products."""
    match expression:
        case tuple():
            return all(map(is_literal, expression))
        case dict():
            return all(map(is_literal, expression.values()))
    return not isinstance(expression, Name | Call | Operation)


def shown(text: str) -> str:
    """A text in quotes, shortened to fit into an error."""
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}...")


def _read(node: ast.expr, depth: int) -> Expression:
    """The expression of a node.

    Raises:
        ValueError: The node is something else, or is nested more than `depth` levels deep.
    """
    inner = functools.partial(_read, depth=depth - 1)
    match node:
        case _ if depth == 0:
            pass
        case ast.Constant(None | str() as value):
            return value
        case ast.Constant(value):
            return _number(value)
        case ast.UnaryOp(ast.USub(), ast.Constant(value)):
            return -_number(value)
        case ast.Tuple(elements) | ast.List(elements):
            return tuple(map(inner, elements))
        case ast.Dict(keys, values):
            names = [inner(key) for key in keys if key]
            words = [name for name in names if isinstance(name, str)]
            if len(words) == len(keys):
                return dict(zip(words, map(inner, values), strict=True))
        case ast.Name(name):
            return Name(name)
        case ast.Call(ast.Name(name), arguments, keywords):
            options = {keyword.arg or "**": inner(keyword.value) for keyword in keywords}
            return Call(name, tuple(map(inner, arguments)), options)
        case ast.BinOp(left, ast.Add() | ast.Mult() as sign, right):
            return Operation("+" if isinstance(sign, ast.Add) else "*", inner(left), inner(right))
    raise ValueError(type(node).__name__)


def _number(value: object) -> float:
    """A finite number; whole numbers that a float may not represent are read as floats.

    Raises:
        ValueError: The value is a boolean, too large, or not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= LARGEST:
        raise ValueError(type(value).__name__)
    return value if abs(value) < EXACT else float(value)
