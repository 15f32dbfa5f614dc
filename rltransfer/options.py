"""Options as Python's own values, whatever numbers a user computed them with.

Each dataclass of options calls `normalize` when it is made. So a value that `config.json` cannot
store is refused before anything is trained, and a resumed run has the values of the first.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rltransfer.errors import InputError, check_number, unknown

LARGEST = 10**18
"""Largest magnitude of a whole number, which leaves room in 64 bits for sums with it."""
DEEPEST = 50
"""Levels of lists and dictionaries in a keyword argument of a task."""
TUPLE = "__tuple__"
"""The key under which JSON holds a tuple in the keyword arguments of a task."""


def normalize(options: object, what: str = "{}") -> None:
    """Replaces each field of a frozen dataclass by Python's own value of the field's type.

    Numbers of NumPy and torch become Python's, 2.0 becomes 2 in a field of whole numbers, a list
    becomes a tuple.

    Args:
        options: The dataclass.
        what: What an error calls a field, with {} for its name.

    Raises:
        InputError: A value is not of its field's type, or is not a number.
    """
    hints = typing.get_type_hints(type(options))
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        value = _own(what.format(field.name), hints[field.name], getattr(options, field.name))
        object.__setattr__(options, field.name, value)


def to_builtin(value: Any) -> Any:
    """Replaces NumPy's and torch's numbers and arrays by Python's, whose text can be parsed."""
    if hasattr(value, "tolist"):
        return to_builtin(value.tolist())
    if isinstance(value, tuple | list):
        return tuple(to_builtin(part) for part in value)
    if isinstance(value, Mapping):
        return {name: to_builtin(part) for name, part in value.items()}
    return value


def flag(what: str, value: object) -> bool:
    """True or False, also NumPy's or torch's.

    Raises:
        InputError: It is something else.
    """
    return bool(_own(what, bool, value))


def whole_number(what: str, value: object, condition: str) -> int:
    """A whole number as Python's own.

    Args:
        what: Its name, at the beginning of a sentence.
        value: The number, which may be NumPy's, torch's or e.g. 2.0.
        condition: One of `RANGES`.

    Raises:
        InputError: It is not a whole number, or does not satisfy the condition.
    """
    number = _own(what, int, value)
    check_number(what, number, condition)
    return int(number)


def path_value(what: str, value: object) -> Path:
    """A path, with a home directory in the place of "~".

    Args:
        what: Its name, at the beginning of a sentence.
        value: Text or a path.

    Raises:
        InputError: It is something else, or no file system and TensorBoard can take the name.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise InputError(f"{what} is {value!r}: it must be a path.")
    text = os.path.expanduser(os.fspath(value))
    if not text:
        raise InputError(f"{what} is empty: it must be a path, such as '.' for this folder.")
    if "\0" in text or not _is_utf8(text):
        raise InputError(f"{what} is {text!r}: it must be UTF-8 text without a zero byte.")
    return Path(text)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def json_value(what: str, value: Any, depth: int = DEEPEST) -> Any:
    """A copy of a value in Python's own types, all of which JSON can hold.

    Args:
        what: Its name, at the beginning of a sentence.
        value: None, a bool, a number, text, or a list, tuple or dictionary of these.
        depth: Levels of lists and dictionaries that it may have.

    Raises:
        InputError: It is something else, e.g. an array or a function, or has more levels.
    """
    if depth == 0:
        raise InputError(f"{what} is nested too deeply.")
    if hasattr(value, "tolist") and not getattr(value, "shape", ()):
        value = value.tolist()
    match value:
        case None | bool():
            return value
        case int():
            return int(value)
        case float() if not math.isnan(value):
            return float(value)
        case str():
            return str.__str__(value)
        case list():
            return [json_value(what, part, depth - 1) for part in value]
        case tuple():
            return tuple(json_value(what, part, depth - 1) for part in value)
        case Mapping() if all(isinstance(key, str) and key != TUPLE for key in value):
            return {
                str.__str__(key): json_value(what, part, depth - 1) for key, part in value.items()
            }
    raise InputError(
        f"{what} is {value!r}: it must be None, a bool, a number, text, or a list, tuple or "
        "dictionary of these, as config.json stores it."
    )


def pack_tuples(value: Any) -> Any:
    """The JSON form of a value of `json_value`, which tells tuples from lists."""
    match value:
        case tuple():
            return {TUPLE: [pack_tuples(part) for part in value]}
        case list():
            return [pack_tuples(part) for part in value]
        case dict():
            return {key: pack_tuples(part) for key, part in value.items()}
    return value


def unpack_tuples(value: Any) -> Any:
    """Inverse of `pack_tuples`."""
    match value:
        case {"__tuple__": list() as parts}:
            return tuple(unpack_tuples(part) for part in parts)
        case list():
            return [unpack_tuples(part) for part in value]
        case dict():
            return {key: unpack_tuples(part) for key, part in value.items()}
    return value


def without_lists(value: Any) -> Any:
    """A value of `json_value` with tuples in place of lists, for comparisons.

    A list on the command line and the tuple that a run was started with mean the same.
    """
    match value:
        case tuple() | list():
            return tuple(without_lists(part) for part in value)
        case dict():
            return {key: without_lists(part) for key, part in value.items()}
    return value


def _own(name: str, hint: Any, value: Any) -> Any:
    """A value in the type of its field.

    Raises:
        InputError: It is of another type.
    """
    if hasattr(value, "tolist"):
        value = to_builtin(value)
    kinds = typing.get_args(hint)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return _own_of_several(name, kinds, value)
    if typing.get_origin(hint) is typing.Literal:
        if value not in kinds:
            kind = name.removeprefix("The ").removeprefix("A value in ").partition(" of ")[0]
            kind = f"kind of {kind}" if kind.endswith("s") else kind
            raise unknown(kind, str(value), kinds)
        return value
    if typing.get_origin(hint) is tuple:
        return _own_tuple(name, kinds, value)
    if hint is bool and not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}: it must be True or False.")
    if hint is int:
        return _own_integer(name, value)
    if hint is float:
        check_number(name, value)
        if abs(value) > sys.float_info.max and not isinstance(value, float):
            raise InputError(f"{name} is too large: the largest number is 1.8e308.")
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    if hint is str:
        if not isinstance(value, str):
            raise InputError(f"{name} is {value!r}: it must be text.")
        return str.__str__(value)
    if hint is Path:
        return path_value(name, value)
    if dataclasses.is_dataclass(hint) and not isinstance(value, hint):  # type: ignore[arg-type]
        raise InputError(f"{name} is {value!r}: it must be a {getattr(hint, '__name__', hint)}.")
    return to_builtin(value) if isinstance(value, Mapping) else value


def _own_of_several(name: str, kinds: tuple[Any, ...], value: Any) -> Any:
    """A value of one of several types; types of this package check their values themselves."""
    if value is None and type(None) in kinds:
        return None
    rest = [kind for kind in kinds if kind is not type(None)]
    if len(rest) == 1:
        return _own(name, rest[0], value)
    if str in rest and isinstance(value, str | os.PathLike):
        return str.__str__(os.fspath(value))
    if float in rest and isinstance(value, numbers.Real):
        return _own(name, float, value)
    return value


def _own_tuple(name: str, kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise InputError(f"{name} is {value!r}: it must be a tuple, such as ({value!r},).")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_own(f"A value in {name}", kinds[0], part) for part in value)
    return tuple(value)


def _own_integer(name: str, value: Any) -> int:
    whole = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not whole or not (isinstance(value, numbers.Integral) or float(value).is_integer()):
        raise InputError(f"{name} is {value!r}: it must be a whole number.")
    number = int(value)
    if abs(number) > LARGEST:
        raise InputError(f"{name} is too large: the largest whole number is 1e18.")
    return number
