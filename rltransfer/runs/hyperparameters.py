"""A run's settings as a flat table, by which TensorBoard compares runs."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Iterator
from typing import Any

from rltransfer.files.serialization import to_json
from rltransfer.learning.agent import Method
from rltransfer.runs.config import RunOptions
from rltransfer.tasks.task import Suite

Value = bool | float | str
"""What a column of the table contains."""


def hyperparameters(
    name: str, method: Method, suite: Suite, options: RunOptions
) -> dict[str, Value]:
    """The method, its options, the tasks, the seed and the number of steps.

    Options have their names on the command line. Each column has values of one type, also where an
    option is a number or text, so that TensorBoard can filter it. Infinite numbers are left out:
    TensorBoard cannot show them.
    """
    first: dict[str, Value] = {
        "agent": name,
        "suite": suite.name,
        "seed": options.seed,
        "total_steps": options.total_steps,
    }
    return {**first, **dict(_flat(method))}


def _flat(settings: Any) -> Iterator[tuple[str, Value]]:
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value, kind = getattr(settings, field.name), hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from _flat(value)
        elif kind not in (bool, int, float):
            yield field.name, _as_text(to_json(value))
        elif math.isfinite(value):
            yield field.name, value


def _as_text(data: Any) -> str:
    """An option's value as on the command line, e.g. "64 64"; dictionaries as JSON."""
    if isinstance(data, list):
        return " ".join(map(_as_text, data))
    return json.dumps(data) if isinstance(data, dict) else str(data)
