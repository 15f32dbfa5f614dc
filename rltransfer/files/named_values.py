"""Values in words such as NAME=VALUE."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rltransfer.errors import InputError
from rltransfer.expression import shown
from rltransfer.files.untrusted import parse_json


def named_values(words: Sequence[str], what: str) -> dict[str, Any]:
    """The values of words, by name.

    Args:
        words: NAME=VALUE; the value is JSON or plain text.
        what: What an error calls one, e.g. "task option".

    Raises:
        InputError: A word is not of this form, or a name occurs twice.
    """
    values: dict[str, Any] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign:
            article = "an" if what[0] in "aeiou" else "a"
            raise InputError(f"{word!r} is not {article} {what}: write NAME=VALUE.")
        if key in values:
            raise InputError(f"The {what} {key!r} has two values: set it once.")
        try:
            values[key] = parse_json(value)
        except json.JSONDecodeError:
            # Anything but JSON is text.
            values[key] = {"True": True, "False": False}.get(value, value)
        except ValueError as error:
            raise InputError(f"The {what} {key!r} is {shown(value)}: {error}.") from error
    return values
