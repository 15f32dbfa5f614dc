"""Sources of policies as users write them: a path or a file on the hub, with options."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qsl

from rltransfer.errors import InputError
from rltransfer.expression import shown
from rltransfer.importers.hub import fetch, is_on_hub

SOURCES = (
    "use a run directory, a Stable-Baselines3 zip, a checkpoint of rsl_rl, skrl, rl_games or "
    "CleanRL, a state_dict, a TorchScript or ONNX file, hf:OWNER/NAME/FILE, or 'zoo'"
)
"""The possible sources of a teacher, for errors."""


def is_zip(source: str) -> bool:
    """Whether the name of a source, local or on the hub, is that of a Stable-Baselines3 zip."""
    place = split_source(source)[0]
    return (place.partition("@")[0] if is_on_hub(place) else place).endswith(".zip")


def located(place: str) -> tuple[Path, dict[str, str]]:
    """The local path of a file, and where it was downloaded from, if it was."""
    if is_on_hub(place):
        file = fetch(place)
        return file.path, file.origin()
    if not os.path.exists(place):
        raise InputError(f"There is no teacher {shown(place)}: {SOURCES}.")
    return Path(place), {}


def split_source(text: str) -> tuple[str, dict[str, list[str]]]:
    """A source without its options, and the values of each option.

    Options supply what a file does not contain, as in a URL:
    `model_1500.pt?activation=tanh&group=policy&group=privileged`.

    Args:
        text: What a user wrote.

    Raises:
        InputError: The options do not have this form.
    """
    place, sign, rest = text.partition("?")
    if not sign or os.path.exists(text):
        return text, {}
    options: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(rest, keep_blank_values=True, strict_parsing=True)
    except ValueError as error:
        raise InputError(
            f"The teacher {place} cannot have the options {rest!r}: write NAME=VALUE, separated by "
            "'&'."
        ) from error
    for name, value in pairs:
        options.setdefault(name, []).append(value)
    return place, options
