"""What is known of a teacher, as a record that is kept beside what learned from it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.observation import space_from_json, space_to_json

VERSION = 1
"""The version of the JSON form."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """Where a teacher comes from, and what tells it from every other."""

    source: str
    """Where it comes from, as a user would write it."""
    kind: str
    """What it is: "run", "zoo", "stable-baselines3", "rsl_rl", "torchscript", "callable"; any other
    goes by the name of its class, e.g. "Ensemble"."""
    sha256: str | None = None
    """Hash of the file that holds its weights, in hexadecimal; None where there is no file."""
    origin: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Where the file was fetched from: repository, file and revision; empty for a local file."""
    observation_space: spaces.Dict | None = None
    """The groups that it reads, as it reads them; None where nobody knows yet."""
    action_space: spaces.Space[Any] | None = None
    """What it says how to act in; None where nobody knows yet."""
    preprocessing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What is done to observations before its first layer: JSON values by name."""
    recorded_return: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Mean return that was measured before, by task id; empty where nobody measured it."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What a composition was made with beside its members, e.g. weights: JSON values by name."""
    members: tuple[TeacherSpec, ...] = ()
    """What a composition is made of, which say spaces and preprocessing each for itself."""
    version: int = VERSION
    """The version of the JSON form."""

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON form that `from_json` reads."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("observation_space", "action_space"):
            data[name] = None if data[name] is None else space_to_json(data[name])
        for name in ("origin", "preprocessing", "recorded_return", "options"):
            data[name] = dict(data[name])
        data["members"] = [member.to_json() for member in self.members]
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> TeacherSpec:
        """Returns the specification that `to_json` wrote.

        Raises:
            InputError: It is of another version, or not whole.
        """
        if data.get("version") != VERSION:
            raise InputError(
                f"The specification of the teacher {data.get('source')!r} has the version "
                f"{data.get('version')!r}: this rltransfer reads version {VERSION}."
            )
        # What an earlier rltransfer wrote has no members.
        members = tuple(TeacherSpec.from_json(member) for member in data.get("members", ()))
        known = {**data, "members": members}
        try:
            for name in ("observation_space", "action_space"):
                known[name] = None if data[name] is None else space_from_json(data[name])
            return TeacherSpec(**known)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"The specification of the teacher {data.get('source')!r} is not whole: a field of "
                "it is missing, unknown or of another kind."
            ) from error


def tensors_sha256(tensors: Sequence[Tensor]) -> str:
    """Returns the hash of tensors' values, in hexadecimal: that of statistics which lie in no file.

    Args:
        tensors: Of any shapes; neither these nor the device are part of the hash.
    """
    content = b"".join(tensor.detach().cpu().contiguous().numpy().tobytes() for tensor in tensors)
    return hashlib.sha256(content).hexdigest()


def split_source(text: str) -> tuple[str, dict[str, list[str]]]:
    """Returns a source without its options, and the values of each option.

    What a file does not say of itself stands behind it, as in an address:
    `model_1500.pt?activation=tanh&group=policy&group=privileged`.

    Args:
        text: What a user wrote.

    Raises:
        InputError: The options are not of this form.
    """
    place, sign, rest = text.partition("?")
    if not sign or Path(text).exists():
        return text, {}
    options: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(rest, keep_blank_values=True, strict_parsing=True)
    except ValueError as error:
        raise InputError(
            f"{rest!r} are no options of the teacher {place}: write NAME=VALUE, several with '&' "
            "between them."
        ) from error
    for name, value in pairs:
        options.setdefault(name, []).append(value)
    return place, options
