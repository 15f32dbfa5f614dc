"""Exceptions that the command line turns into a sentence and an exit code."""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import typing
from collections.abc import Callable, Iterable

FEW = 12
"""Names that a sentence may hold."""

RANGES: dict[str, Callable[[float], bool]] = {
    "at least 1": lambda value: value >= 1,
    "at least 0": lambda value: value >= 0,
    "above 0": lambda value: value > 0,
    "finite and above 0": lambda value: 0 < value < math.inf,
    "finite and at least 0": lambda value: 0 <= value < math.inf,
    "from 0 to 1": lambda value: 0 <= value <= 1,
    "at least 0 and below 1": lambda value: 0 <= value < 1,
    "above 0 and below 1": lambda value: 0 < value < 1,
}
"""What an option may have to be, in words; nothing of it holds of NaN."""


class InputError(ValueError):
    """Bad input: one sentence that names the thing at fault and what would be right.

    The command line prints the sentence on stderr and exits with code 2; nothing was written.
    """


class InterruptedRunError(Exception):
    """A signal stopped the run, which wrote a checkpoint first.

    The command line prints how to resume the run and exits with code 130.
    """


def unknown(kind: str, name: str, known: Iterable[str], listing: str | None = None) -> InputError:
    """Returns the error for a name that nothing goes by, with the nearest name that something does.

    Args:
        kind: What was looked for, e.g. "agent".
        name: The name that was given.
        known: Every name that would have been right.
        listing: The command that lists them, where they may be too many for a sentence.
    """
    names = sorted(known)
    small = {one.lower(): one for one in names}
    near = difflib.get_close_matches(name.lower(), small, n=1, cutoff=0.65)
    near = near or [one for one in small if name.lower() in one]
    if len(near) == 1:
        return InputError(f"There is no {kind} {name!r}: did you mean {small[near[0]]!r}?")
    if listing and len(names) > FEW:
        return InputError(f"There is no {kind} {name!r}: `{listing}` names them all.")
    return InputError(f"There is no {kind} {name!r}: there are {', '.join(names) or 'none'}.")


def check_range(options: object, condition: str, *names: str) -> None:
    """Checks numbers among a configuration's options; one that is None is left out.

    Args:
        options: The configuration.
        condition: What the numbers must be, one of `RANGES`.
        names: Those of its fields.

    Raises:
        InputError: A number is not so, or something else is no number.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None:
            check_number(name, value, condition)


def check_number(what: str, value: object, condition: str | None = None) -> None:
    """Checks a number.

    Args:
        what: What it is, at the beginning of a sentence.
        value: The number.
        condition: What it must be, one of `RANGES`; any number will do if None.

    Raises:
        InputError: It is not so, or is no number.
    """
    if not isinstance(value, numbers.Real):
        raise InputError(f"{what} is {value!r}: it must be a number.")
    if condition is not None and not RANGES[condition](float(value)):
        raise InputError(f"{what} is {value}: it must be {condition}.")


def check_kinds(options: object) -> None:
    """Checks a configuration's names, its whole numbers, and the configurations in it.

    Raises:
        InputError: One is something else.
    """
    hints = typing.get_type_hints(type(options))
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        value, hint = getattr(options, field.name), hints[field.name]
        if typing.get_origin(hint) is typing.Literal and value not in typing.get_args(hint):
            raise unknown(field.name, str(value), typing.get_args(hint))
        if hint is int and not (isinstance(value, numbers.Real) and float(value).is_integer()):
            raise InputError(f"{field.name} is {value!r}: it must be a whole number.")
        if dataclasses.is_dataclass(hint) and not isinstance(value, hint):  # type: ignore[arg-type]
            kind = getattr(hint, "__name__", str(hint))
            raise InputError(f"{field.name} is {value!r}: it must be a {kind}.")
