"""The specification of a teacher, which is stored with the runs that learn from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gymnasium import spaces

from rltransfer.errors import InputError
from rltransfer.tasks.observation import space_from_json, space_to_json

VERSION = 1
"""The version of the JSON form."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """Where a teacher comes from, and what identifies it."""

    source: str
    """Where it comes from, as a user would write it."""
    kind: str
    """"run", "zoo", "stable-baselines3", "rsl_rl", "skrl", "rl_games", "cleanrl", "state_dict",
    "torchscript", "onnx" or "callable"; for any other teacher the name of its class, e.g.
    "Ensemble"."""
    sha256: str | None = None
    """Hash of the file with its weights, in hexadecimal; None where there is no file."""
    origin: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Where the file was downloaded from: repository, file and revision; empty if local."""
    observation_space: spaces.Dict | None = None
    """The groups that it reads, in their shapes; None while unknown."""
    action_space: spaces.Space[Any] | None = None
    """Its actions; None while unknown."""
    preprocessing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What is done to observations before the first layer: JSON values by name."""
    recorded_return: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Mean return that was measured before, by task id; empty if none was."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The options of a composition, e.g. weights: JSON values by name."""
    members: tuple[TeacherSpec, ...] = ()
    """The members of a composition, each with its spaces and preprocessing."""
    version: int = VERSION
    """The version of the JSON form."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form that `from_json` reads."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("observation_space", "action_space"):
            data[name] = None if data[name] is None else space_to_json(data[name])
        for name in ("origin", "preprocessing", "recorded_return", "options"):
            data[name] = dict(data[name])
        data["members"] = [member.to_json() for member in self.members]
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> TeacherSpec:
        """The specification that `to_json` wrote.

        Raises:
            InputError: It has another version, or is incomplete.
        """
        if data.get("version") != VERSION:
            raise InputError(
                f"The specification of the teacher {data.get('source')!r} has the version "
                f"{data.get('version')!r}: this rltransfer reads version {VERSION}."
            )
        # Earlier versions did not store members.
        members = tuple(TeacherSpec.from_json(member) for member in data.get("members", ()))
        known = {**data, "members": members}
        try:
            for name in ("observation_space", "action_space"):
                known[name] = None if data[name] is None else space_from_json(data[name])
            return TeacherSpec(**known)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"The specification of the teacher {data.get('source')!r} is incomplete: a field "
                "is missing, unknown or of another kind."
            ) from error
