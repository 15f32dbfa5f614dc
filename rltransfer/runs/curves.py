"""The curves of runs as rows, read from their TensorBoard event files.

An event file is a sequence of records: a length of 8 bytes, its checksum of 4, the record, its
checksum of 4. Each record is an `Event` in the format of protocol buffers.
"""

from __future__ import annotations

import fnmatch
import itertools
import math
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from rltransfer.errors import printable, unknown
from rltransfer.files.checkpoint import column_folder, generation_folder, task_folder
from rltransfer.files.reading import is_folder, must_be_readable
from rltransfer.files.untrusted import LimitError, check_size, is_regular
from rltransfer.machine.terminal import print_line
from rltransfer.runs.config import read_config

HEADER = struct.Struct("<QI")
"""The length of a record, and the checksum of these eight bytes."""
CHECKSUM = struct.Struct("<I")
"""The checksum of a record."""


POINT_GROWTH = 8
"""How many times more memory points may take than their file."""


class CurvePoint(NamedTuple):
    """A point of a curve."""

    run: str
    """The run's folder, as it was passed; of a chain or a sequence, that of one of its
    runs."""
    tag: str
    """The curve's name, e.g. "evaluate/return/CartPole-v1"."""
    step: int
    """Environment steps."""
    wall_time: float
    """When the point was written, in seconds since 1970."""
    value: float
    """The value, in float32's precision."""


def curves(
    runs: str | Path | Sequence[str | Path], tags: str | Sequence[str] = "*"
) -> list[CurvePoint]:
    """The points of runs' curves, sorted by run, curve and step.

    What a resumed run had written after the checkpoint that it resumed from is left out, as in
    TensorBoard. A table of them is `pandas.DataFrame(rt.curves("runs/x"))`.

    Args:
        runs: One or more run directories; of a chain or a sequence, all of its runs.
        tags: The names of curves, or patterns such as "evaluate/*", where * stands for any text.

    Raises:
        InputError: A folder is not a run, or no curve has such a name.
    """
    given = [runs] if isinstance(runs, str | Path) else runs
    patterns = [tags] if isinstance(tags, str) else tags
    points = [
        point
        for run in given
        for folder in _folders(Path(run).expanduser())
        for point in _points(folder)
    ]
    found = [point for point in points if any(_matches(point.tag, one) for one in patterns)]
    if points and not found:
        known = {name for tag in {point.tag for point in points} for name in (tag, _group(tag))}
        raise unknown("curve", ", ".join(patterns), known, f"rltransfer curves {given[0]}")
    return found


def _matches(tag: str, pattern: str) -> bool:
    # The arguments of a task may contain what has a meaning in patterns.
    return tag == pattern or fnmatch.fnmatchcase(tag, pattern)


def _group(tag: str) -> str:
    """The pattern of all curves of a kind, e.g. "evaluate/*"."""
    return f"{tag.partition('/')[0]}/*"


def _folders(run_dir: Path) -> Iterator[Path]:
    """The folder of a run, those of a chain's generations, or a sequence's own and its runs'.

    Raises:
        InputError: It is none of them.
    """
    config = read_config(run_dir)
    if config.get("sequential"):
        yield run_dir
        for number in itertools.count(1):
            target = task_folder(run_dir, number)
            found = [
                one for one in (column_folder(target), target) if is_folder(one / "checkpoints")
            ]
            if not found:
                return
            yield from found
    if not config.get("generations"):
        yield run_dir
        return
    number = 1
    while is_folder(folder := generation_folder(run_dir, number)):
        yield folder
        number += 1


def _points(run_dir: Path) -> list[CurvePoint]:
    """The points of a run, sorted by curve and step."""
    points: list[CurvePoint] = []
    starts: list[tuple[int, int]] = []
    with must_be_readable():
        for path in sorted(run_dir.glob("events.out.tfevents.*")):
            for event in _events(path):
                if event.session_log.status == SessionLog.START:
                    starts.append((len(points), event.step))
                points += [
                    CurvePoint(
                        str(run_dir), sys.intern(printable(one.tag)), event.step, event.wall_time,
                        one.simple_value,
                    )
                    for one in event.summary.value
                    if one.HasField("simple_value")
                ]  # fmt: skip
    return sorted(_without_lost(points, starts), key=lambda point: (point.tag, point.step))


def _without_lost(points: list[CurvePoint], starts: list[tuple[int, int]]) -> Iterator[CurvePoint]:
    """The points of a run without those from before a resume that are of a later step.

    Args:
        points: The points as they were written.
        starts: For each resume, the number of points before it and the step that it began at.
    """
    least = math.inf
    for index in range(len(points) - 1, -1, -1):
        while starts and starts[-1][0] > index:
            least = min(least, starts.pop()[1])
        if points[index].step < least:
            yield points[index]


def _events(path: Path) -> Iterator[Any]:
    """The events of a file; a line names a file that is damaged, and its rest is left out."""
    if not is_regular(path):
        return
    try:
        for record in _records(path):
            yield Event.FromString(record)
    except (PermissionError, LimitError):
        raise
    except Exception:  # the class of protocol buffers' own errors has no types
        print_line(f"{path} is damaged: the rest of it is left out.")


def _records(path: Path) -> Iterator[bytes]:
    """The records of a file. The last one may be incomplete: it is being written, or was cut.

    Raises:
        LimitError: The points may take more memory than the limit of `files/untrusted.py`.
        ValueError: A checksum is wrong.
    """
    left = path.stat().st_size
    check_size(left, path, POINT_GROWTH)
    with path.open("rb") as file:
        while len(header := file.read(HEADER.size)) == HEADER.size:
            size, checksum = HEADER.unpack(header)
            if masked_crc32c(header[: -CHECKSUM.size]) != checksum:
                raise ValueError("a length is damaged")
            left -= HEADER.size + size + CHECKSUM.size
            if left < 0:
                return
            record = file.read(size)
            if masked_crc32c(record) != CHECKSUM.unpack(file.read(CHECKSUM.size))[0]:
                raise ValueError("a record is damaged")
            yield record
