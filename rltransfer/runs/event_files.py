"""A run's curves, read from its TensorBoard event files, which others may have written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import SessionLog

from rltransfer.errors import InputError
from rltransfer.files.reading import must_be_readable
from rltransfer.files.untrusted import check_size, damage_refused, is_regular

PATTERN = "*tfevents*"
"""The names of event files."""


@dataclass(frozen=True)
class Scalars:
    """The points of one curve."""

    steps: NDArray[np.int64]
    """Environment steps, in increasing order.    (points,)"""
    values: NDArray[np.float64]
    """The value at each of them.                 (points,)"""


NO_POINTS = Scalars(np.zeros(0, dtype=np.int64), np.zeros(0))
"""A curve in which nothing was logged."""


def read_scalars(run_dir: Path) -> dict[str, Scalars]:
    """All curves of a run by name, without the points that a resume has replaced.

    Points that a killed process wrote after its last checkpoint are dropped, as TensorBoard does.
    Where a step occurs twice, the later point counts. The incomplete end of a file that is being
    written, or was cut off, is ignored.

    Args:
        run_dir: The run's folder; without event files there are no curves.

    Raises:
        InputError: An event file is damaged, is not a regular file, exceeds the limit, or may not
            be read.
    """
    points: dict[str, dict[int, float]] = {}
    with must_be_readable():
        paths = sorted(run_dir.glob(PATTERN))
    for path in paths:
        for event in _events(path):
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                points = {
                    name: {step: value for step, value in curve.items() if step < event.step}
                    for name, curve in points.items()
                }
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    points.setdefault(value.tag, {})[event.step] = value.simple_value
    return {name: _scalars(curve) for name, curve in points.items() if curve}


def _events(path: Path) -> Iterator[Any]:
    """The events of a file up to its end, or to the first damaged record."""
    if not is_regular(path):
        raise InputError(f"{path} is not an event file: it must be a regular file.")
    with must_be_readable():
        path.open("rb").close()
        check_size(path.stat().st_size, path)
    with damage_refused(f"{path} is not an event file, or is damaged."):
        try:
            yield from LegacyEventFileLoader(str(path)).Load()
        except DecodeError as error:
            raise ValueError("not an event") from error


def _scalars(curve: dict[int, float]) -> Scalars:
    steps = np.array(sorted(curve), dtype=np.int64)
    return Scalars(steps, np.array([curve[step] for step in steps.tolist()], dtype=np.float64))
