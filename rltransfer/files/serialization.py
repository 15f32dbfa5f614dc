"""Conversion of configurations to JSON and back."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rltransfer.aliases import option_name
from rltransfer.errors import InputError
from rltransfer.options import to_builtin

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """JSON form of a configuration.

    - Dataclasses become objects, tuples become lists.
    - A value with a `describe` method becomes its result, unless it is `loadable` from its text.
    - Any other value, e.g. a path or an objective, becomes its text.
    """
    if hasattr(value, "tolist"):
        value = to_builtin(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if getattr(value, "loadable", False):
        return str(value)
    if hasattr(value, "describe"):
        return value.describe()
    # A dataclass with its own __str__ has a text form.
    has_text = "__str__" in vars(type(value))
    if dataclasses.is_dataclass(value) and not has_text:
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): to_json(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(part) for part in value]
    return str(value)


def from_json(kind: type[T], data: Mapping[str, Any]) -> T:
    """Inverse of `to_json`; text forms remain text.

    Raises:
        InputError: A field is missing or unknown, or has no text form.
    """
    hints = typing.get_type_hints(kind)
    named = {option_name(name, hints): value for name, value in data.items()}
    differing = {field.name for field in dataclasses.fields(kind)} ^ named.keys()  # type: ignore[arg-type]
    if differing or len(named) < len(data):
        raise InputError(
            f"The field {min(differing or data)!r} of a {kind.__name__} is unknown or missing: "
            "the configuration was written by another version."
        )
    values = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        hint, value = hints[field.name], named[field.name]
        if isinstance(value, dict) and isinstance(hint, types.UnionType) and str in hint.__args__:
            raise InputError(
                f"The {field.name} of this {kind.__name__} was built in Python and cannot be "
                "rebuilt from its configuration, e.g. because it contains a function: resume in "
                "Python with train(..., resume=True)."
            )
        values[field.name] = _restore(hint, value)
    return kind(**values)


def _restore(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return from_json(typing.cast(type, kind), value)
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and Path in typing.get_args(kind):
        return Path(value)
    return value
