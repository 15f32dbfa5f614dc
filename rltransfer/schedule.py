"""Numbers that change over a run."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from rltransfer.errors import RANGES, InputError
from rltransfer.options import normalize, to_builtin

_NUMBER = r"\s*([-+.\deE]+)\s*"
_FORM = re.compile(f"{_NUMBER}(?:->{_NUMBER}(?:@{_NUMBER})?)?")


@dataclass(frozen=True)
class Schedule:
    """A number that changes linearly from `start` to `end`, then stays constant.

    As text, "0.5" is constant, "1->0" falls over the whole run, "1->0@0.25" over its first quarter.
    """

    start: float
    """The value at the start of the run."""
    end: float
    """The value from `until` on."""
    until: float = 1.0
    """The fraction of the run after which the value is `end`."""

    def __post_init__(self) -> None:
        normalize(self, "The {} of a schedule")
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise InputError(f"A schedule from {self.start} to {self.end}: both must be finite.")
        if not 0 < self.until <= 1:
            raise InputError(f"A schedule ends at {self.until} of the run: it must be in (0, 1].")

    @staticmethod
    def of(value: float | str | Schedule) -> Schedule:
        """A schedule from a number, text or a schedule.

        Raises:
            InputError: The text has none of the three forms.
        """
        if isinstance(value, Schedule):
            return value
        if isinstance(value, float):
            return Schedule(value, value)
        match = _FORM.fullmatch(str(to_builtin(value)))
        try:
            numbers = [float(part) for part in match.groups() if part] if match else []
        except ValueError:  # e.g. "--1"
            numbers = []
        if not numbers:
            raise InputError(f"{value!r} is not a schedule: write a number, '1->0' or '1->0@0.5'.")
        return Schedule(numbers[0], *(numbers[1:] or numbers))

    def check(self, what: str, condition: str) -> None:
        """Checks the values over the whole run.

        Args:
            what: What they are, at the start of a sentence.
            condition: What they must be, one of `RANGES`.

        Raises:
            InputError: One of them is not so.
        """
        if not (RANGES[condition](self.start) and RANGES[condition](self.end)):
            raise InputError(f"{what} is {self}: it must be {condition}.")

    def __call__(self, progress: float) -> float:
        """The value after a fraction of the run, from 0 to 1."""
        fraction = min(progress / self.until, 1.0)
        return self.start + (self.end - self.start) * fraction

    def scaled(self, factor: float) -> Schedule:
        """The schedule of the value times a factor."""
        return Schedule(self.start * factor, self.end * factor, self.until)

    @property
    def is_zero(self) -> bool:
        """Whether the value is always 0."""
        return self.start == 0 == self.end

    def __str__(self) -> str:
        if self.start == self.end:
            return _exact(self.start)
        tail = "" if self.until == 1 else f"@{_exact(self.until)}"
        return f"{_exact(self.start)}->{_exact(self.end)}{tail}"


def _exact(number: float) -> str:
    """The shortest text that is read back as exactly this number, as a resumed run does."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))
