"""Exceptions that the command line reports as a sentence, and checks that raise them."""

from __future__ import annotations

import difflib
import math
import numbers
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

LONGEST_SENTENCE = 4_000
"""Characters of an error; the middle of a longer one is left out."""

FEW = 12
"""Maximum number of names in a sentence."""

RANGES: dict[str, Callable[[float], bool]] = {
    "at least 1": lambda value: value >= 1,
    "at least 0": lambda value: value >= 0,
    "above 0": lambda value: value > 0,
    "finite and above 0": lambda value: 0 < value < math.inf,
    "finite and at least 0": lambda value: 0 <= value < math.inf,
    "from 0 to 1": lambda value: 0 <= value <= 1,
    "at least 0 and below 1": lambda value: 0 <= value < 1,
    "above 0 and below 1": lambda value: 0 < value < 1,
    "at most 1,024": lambda value: value <= 1_024,
    "at most 10,000": lambda value: value <= 10_000,
    "at most 1,000,000": lambda value: value <= 1_000_000,
    "at most 10,000,000": lambda value: value <= 10_000_000,
}
"""Conditions on numbers, by their description; NaN satisfies none."""


def printable(text: str) -> str:
    """A text whose control characters are escaped, as a terminal would obey them.

    Names in the files of others may contain such characters, e.g. to clear the screen, to turn the
    direction of writing, or halves of characters that cannot be encoded.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode()
        for one in text
    )


class InputError(ValueError):
    """Invalid input: one sentence with the thing at fault and the remedy.

    The command line prints it to stderr and exits with code 2, before anything is written.
    """

    def __init__(self, sentence: str) -> None:
        sentence = printable(sentence)
        if len(sentence) > LONGEST_SENTENCE:  # it shows a value that somebody made up
            half = LONGEST_SENTENCE // 2
            sentence = f"{sentence[:half]} ... {sentence[-half:]}"
        super().__init__(sentence)


class EnvironmentFailureError(InputError):
    """An environment raised an error, hung, or returned what its spaces do not allow."""

    def __init__(self, sentence: str, trace: str = "") -> None:
        super().__init__(sentence)
        self.trace = trace
        """The environment's own traceback, if it raised an error."""
        if trace:
            self.add_note(f"In the environment:\n{trace}")


class InterruptedRunError(Exception):
    """A signal stopped the run or chain, which wrote a checkpoint first.

    The command line prints how to resume it and exits with 128 and the signal's number.
    """

    def __init__(self, agent: str, folder: Path, number: int = signal.SIGINT) -> None:
        super().__init__(f"Stopped: resume with `rltransfer train {agent} --resume {folder}`.")
        self.number = number
        self.exit_code = 128 + number


class TerminatedError(KeyboardInterrupt):
    """SIGTERM stopped the run at once, without another checkpoint."""

    exit_code = 128 + signal.SIGTERM


def unknown(kind: str, name: str, known: Iterable[str], listing: str | None = None) -> InputError:
    """The error for an unknown name, with the nearest known one.

    Args:
        kind: What the name is of, e.g. "agent".
        name: The unknown name.
        known: All known names.
        listing: The command that lists them, for use if they are too many for a sentence.
    """
    names = sorted(known)
    small = {one.lower(): one for one in names}
    near = difflib.get_close_matches(name.lower(), small, n=1, cutoff=0.65)
    near = near or [one for one in small if name.lower() in one]
    if len(near) == 1:
        return InputError(f"There is no {kind} {name!r}: did you mean {small[near[0]]!r}?")
    if listing and len(names) > FEW:
        return InputError(f"There is no {kind} {name!r}: `{listing}` lists them all.")
    return InputError(f"There is no {kind} {name!r}: there are {', '.join(names) or 'none'}.")


def check_choice(kind: str, value: object, choices: Iterable[str]) -> None:
    """Checks that a value is one of several names; see `unknown` for `kind`.

    Raises:
        InputError: It is another one, or something else.
    """
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        raise unknown(kind, str(value), known)


def check_range(options: object, condition: str, *names: str) -> None:
    """Checks that the named fields of a configuration satisfy a condition of `RANGES` or are None.

    Raises:
        InputError: A field is not a number, or does not satisfy the condition.
    """
    for name in names:
        value = getattr(options, name)
        if value is not None:
            check_number(name, value, condition)


def check_number(what: str, value: object, condition: str | None = None) -> None:
    """Checks that a value is a number and satisfies a condition.

    Args:
        what: The name of the value, at the beginning of a sentence.
        value: The value.
        condition: One of `RANGES`; None allows any number.

    Raises:
        InputError: The value is not a number, or does not satisfy the condition.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{what} is {value!r}: it must be a number.")
    if condition is not None and not RANGES[condition](value):  # type: ignore[arg-type]
        raise InputError(f"{what} is {value}: it must be {condition}.")
