"""Numbers that change over a run."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from rltransfer.errors import InputError

_FORM = re.compile(r"^\s*([-+.\deE]+)\s*(?:->\s*([-+.\deE]+)\s*(?:@\s*([-+.\deE]+)\s*)?)?$")


@dataclass(frozen=True)
class Schedule:
    """A number that goes in a straight line from `start` to `end`, then stays.

    In text "0.5" stays, "1->0" falls over the whole run, "1->0@0.25" over its first quarter.
    """

    start: float
    """The value at the run's beginning."""
    end: float
    """The value from `until` on."""
    until: float = 1.0
    """The share of the run after which the value is `end`."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise InputError(
                f"A schedule goes from {self.start} to {self.end}: both must be finite."
            )
        if not 0 < self.until <= 1:
            raise InputError(f"A schedule ends at {self.until} of the run: it must be in (0, 1].")

    @staticmethod
    def of(value: float | str | Schedule) -> Schedule:
        """Returns a schedule from a number, from text or from a schedule.

        Raises:
            InputError: The text is none of the three forms.
        """
        if isinstance(value, Schedule):
            return value
        match = _FORM.match(str(value))
        try:
            start, end, until = match.groups() if match else (None, None, None)
            first = float(start or "")
            return Schedule(first, first if end is None else float(end), float(until or 1))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{value!r} is no schedule: write a number, '1->0' or '1->0@0.5'."
            ) from error

    def __call__(self, progress: float) -> float:
        """Returns the value at a share of the run, from 0 to 1."""
        share = min(progress / self.until, 1.0)
        return self.start + (self.end - self.start) * share

    @property
    def is_zero(self) -> bool:
        """Whether the value is 0 throughout."""
        return self.start == 0 == self.end

    def __str__(self) -> str:
        if self.start == self.end:
            return _exact(self.start)
        tail = "" if self.until == 1 else f"@{_exact(self.until)}"
        return f"{_exact(self.start)}->{_exact(self.end)}{tail}"


def _exact(number: float) -> str:
    """Returns the shortest text that says exactly this number: a resumed run reads it."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))
