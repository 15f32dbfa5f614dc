"""The one exception that means "what was asked for cannot be done as asked"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: one sentence that names the thing at fault and what would be right.

    The command line prints the sentence on stderr and exits with code 2; nothing was written.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Returns the error for a name that nothing goes by, with the nearest name that something does.

    Args:
        kind: What was looked for, e.g. "agent".
        name: The name that was given.
        known: Every name that would have been right.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return InputError(f"There is no {kind} {name!r}: did you mean {near[0]!r}?")
    if len(names) <= 12:
        return InputError(f"There is no {kind} {name!r}: there are {', '.join(names) or 'none'}.")
    return InputError(f"There is no {kind} {name!r}: `rltransfer list` names all {len(names)}.")
