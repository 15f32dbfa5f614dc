"""A report as data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rltransfer.metrics import Interval
from rltransfer.reports.comparison import TaskComparison
from rltransfer.reports.fairness import Difference
from rltransfer.reports.matrix import Matrix
from rltransfer.reports.scores import Scores


@dataclass(frozen=True)
class RunRow:
    """A run in the list of runs."""

    path: str
    """Its folder."""
    group: str
    """Its group's label."""
    tasks: tuple[str, ...]
    """Its tasks."""
    seed: int
    """Its seed."""
    status: str
    """Whether it is finished, or where it was cut short."""
    finished: bool
    """Whether it came to its end."""
    counted: bool
    """Whether it counts: False for a repeated seed."""
    steps: int
    """Environment steps that were done."""
    parameters: int | None
    """Parameters of the learned policy; None if unknown."""


@dataclass(frozen=True)
class GroupRow:
    """A group in the list of groups."""

    label: str
    """Its label."""
    tasks: tuple[str, ...]
    """The tasks of its runs."""
    seeds: tuple[int, ...]
    """Its seeds."""
    runs: int
    """Number of runs that count."""
    finished: int
    """Number of those that are finished."""


@dataclass(frozen=True)
class ReportData:
    """What the runs in some directories learned."""

    folders: tuple[str, ...]
    """The directories."""
    runs: tuple[RunRow, ...]
    """All runs."""
    unreadable: tuple[str, ...]
    """A sentence for each run that cannot be read."""
    groups: tuple[GroupRow, ...]
    """The groups, the baseline first."""
    baseline: str | None
    """The baseline's label; None if nothing is compared."""
    baseline_reason: str
    """How the baseline was chosen."""
    warnings: tuple[str, ...]
    """What makes a comparison unfair or uncertain."""
    tasks: tuple[TaskComparison, ...]
    """The comparison on each task."""
    scores: Scores
    """The comparison over tasks."""
    matrices: tuple[Matrix, ...]
    """Results by source and task."""
    differences: tuple[Difference, ...]
    """Settings that differ between groups."""

    def to_json(self) -> dict[str, Any]:
        """All data as JSON: an interval is null, or has null ends, where it is not known."""
        found: dict[str, Any] = _as_json(self)
        return found


def _as_json(value: Any) -> Any:
    if isinstance(value, Interval):
        ends = (value.low, value.high) if value.is_known else (None, None)
        return {
            "estimate": _as_json(value.estimate), "low": ends[0], "high": ends[1],
            "seeds": value.seeds,
        }  # fmt: skip
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: _as_json(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _as_json(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return _as_json(value.tolist())
    if isinstance(value, tuple | list):
        return [_as_json(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
