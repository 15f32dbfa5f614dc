"""Configurations as JSON and back: dataclasses, numbers, strings, and what has a text form."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rltransfer.aliases import option_name
from rltransfer.errors import InputError

T = TypeVar("T")


def to_builtin(value: Any) -> Any:
    """Returns a value with numbers and arrays of numpy and torch as Python's own.

    What a user gives an option by is then written as text that can be read again.
    """
    if hasattr(value, "tolist"):
        return to_builtin(value.tolist())
    if isinstance(value, tuple | list):
        return tuple(to_builtin(part) for part in value)
    if isinstance(value, Mapping):
        return {name: to_builtin(part) for name, part in value.items()}
    return value


def to_json(value: Any) -> Any:
    """Returns a configuration's JSON form.

    Dataclasses become objects, tuples lists; a value that has a `describe` becomes what that
    returns, unless it can be loaded from its text (`loadable`); everything else, e.g. a path or an
    objective, becomes its text.
    """
    if hasattr(value, "tolist"):
        value = to_builtin(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if getattr(value, "loadable", False):
        return str(value)
    if hasattr(value, "describe"):
        return value.describe()
    # A class that can be written as text says so by its own __str__.
    has_text = "__str__" in vars(type(value))
    if dataclasses.is_dataclass(value) and not has_text:
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): to_json(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(part) for part in value]
    return str(value)


def from_json(kind: type[T], data: Mapping[str, Any]) -> T:
    """Returns the dataclass that `to_json` wrote; fields that take text get it as text.

    Raises:
        InputError: A field is missing, there is one that the dataclass has not, or one held an
            object that no text stands for.
    """
    hints = typing.get_type_hints(kind)
    data = {option_name(name, hints): value for name, value in data.items()}
    apart = {field.name for field in dataclasses.fields(kind)} ^ data.keys()  # type: ignore[arg-type]
    if apart:
        raise InputError(
            f"The field {min(apart)!r} of a {kind.__name__} is unknown or missing: "
            "the configuration was written by another version."
        )
    values = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        hint, value = hints[field.name], data[field.name]
        if isinstance(value, dict) and isinstance(hint, types.UnionType) and str in hint.__args__:
            raise InputError(
                f"The {field.name} of this {kind.__name__} was made in Python and cannot be made "
                "again from a configuration, e.g. as it holds a function: go on in Python, with "
                "train(..., resume=True)."
            )
        values[field.name] = _restore(hint, value)
    return kind(**values)


def _restore(kind: Any, value: Any) -> Any:
    """Returns a field's value."""
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return from_json(typing.cast(type, kind), value)
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and Path in typing.get_args(kind):
        return Path(value)
    return value
