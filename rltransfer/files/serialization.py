"""Conversion of configurations to JSON and back."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from rltransfer.aliases import option_name, with_known_names
from rltransfer.errors import InputError, unknown
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


def from_json(kind: type[T], data: Mapping[str, Any], listing: str | None = None) -> T:
    """Inverse of `to_json`; text forms remain text.

    Args:
        kind: The dataclass.
        data: Its JSON form.
        listing: The command that lists the fields, if a user may have written the data: then
            missing fields have their defaults. None for data that must be complete.

    Raises:
        InputError: A field is missing or unknown, or has no text form.
    """
    hints = typing.get_type_hints(kind)
    named = _complete(kind, data) if listing is None else _partial(kind, data, listing)
    values = {}
    for name, value in named.items():
        hint = hints[name]
        if isinstance(value, dict) and isinstance(hint, types.UnionType) and str in hint.__args__:
            remedy = (
                "resume in Python with train(..., resume=True)"
                if listing is None
                else f"pass --{name.replace('_', '-')}"
            )
            raise InputError(
                f"The {name} of this {kind.__name__} was built in Python and cannot be "
                f"rebuilt from its configuration, e.g. because it contains a function: {remedy}."
            )
        values[name] = _restore(hint, value, listing)
    return kind(**values)


def _complete(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all fields, by their current names.

    Raises:
        InputError: A field is missing or unknown.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    named = {option_name(name, names): value for name, value in data.items()}
    differing = names ^ named.keys()
    if differing or len(named) < len(data):
        raise InputError(
            f"The field {min(differing or data)!r} of a {kind.__name__} is unknown or missing: "
            "the configuration was written by another version."
        )
    return named


def _partial(kind: type[Any], data: Mapping[str, Any], listing: str) -> dict[str, Any]:
    """The values of some fields, by their current names.

    Raises:
        InputError: A field is unknown, given twice, or missing without a default.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    named = with_known_names(data, fields)
    for name in named:
        if name not in fields:
            raise unknown("option", name, fields, listing)
    for name, field in fields.items():
        defaults = field.default, field.default_factory
        if name not in named and defaults == (dataclasses.MISSING, dataclasses.MISSING):
            raise InputError(
                f"The {name} of a {kind.__name__} is missing: add it, or pass "
                f"--{name.replace('_', '-')}."
            )
    return named


def _restore(kind: Any, value: Any, listing: str | None) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return from_json(typing.cast(type, kind), value, listing)
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and Path in typing.get_args(kind):
        return Path(value)
    return value
