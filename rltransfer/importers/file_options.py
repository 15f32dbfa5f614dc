"""Options that follow the name of a file: each is known, set once, and has a valid value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rltransfer.errors import InputError, unknown


def checked_once(
    given: Mapping[str, list[str]], known: Sequence[str], path: Path
) -> dict[str, str]:
    """The value of each option, which is known and set once.

    Args:
        given: The values of each option.
        known: The options of such a file, next to `group`.
        path: The file, for errors.

    Raises:
        InputError: An option is unknown or set twice.
    """
    for name, values in given.items():
        if name not in known:
            raise unknown(f"option of the teacher {path}", name, (*known, "group"))
        if len(values) > 1:
            raise InputError(
                f"The option {name!r} of the teacher {path} is set twice: set it once."
            )
    return {name: values[0] for name, values in given.items()}


def scale_of(text: str, path: Path) -> float:
    """The value of the option `scale`, which may be a fraction such as 1/255.

    Args:
        text: The value.
        path: The file, for errors.

    Raises:
        InputError: It is not a finite number other than 0.
    """
    above, _, below = text.partition("/")
    try:
        scale = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"The scale of the teacher {path} is {text!r}: write a number, or a fraction such as "
            "1/255."
        ) from error
    return checked_scale(scale, path)


def checked_scale(scale: float, path: Path) -> float:
    """A factor on observations.

    Raises:
        InputError: It is not finite, or 0.
    """
    if not (math.isfinite(scale) and scale != 0):
        raise InputError(
            f"The scale of the observations of {path} is {scale}: it must be finite and not 0."
        )
    return scale


def truth(text: str, name: str, path: Path) -> bool:
    """The value of an option that is true or false.

    Raises:
        InputError: It is another.
    """
    if text not in ("true", "false"):
        raise InputError(
            f"The option {name!r} of the teacher {path} is {text!r}: write true or false."
        )
    return text == "true"
