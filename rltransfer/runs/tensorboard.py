"""What TensorBoard shows of a run: curves, histograms, pictures and settings."""

from __future__ import annotations

import io
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import (
    DATA_CLASS_BLOB_SEQUENCE,
    DATA_CLASS_SCALAR,
    DATA_CLASS_TENSOR,
    Summary,
    SummaryMetadata,
)
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter, summary

from rltransfer.files import atomic

SETTINGS = "events.out.tfevents.0.settings"
"""The event file with what is known when a run starts or resumes. Its name sorts before those of
the curves: TensorBoard may stop reading a file once it has found a later one."""

KINDS = {
    "simple_value": ("scalars", DATA_CLASS_SCALAR),
    "histo": ("histograms", DATA_CLASS_TENSOR),
    "image": ("images", DATA_CLASS_BLOB_SEQUENCE),
}
"""The plugin and the class of each field of `Summary.Value`. TensorBoard drops the description of a
value that does not name them."""

NUM_BINS = 30
"""Bins of a histogram, as many as TensorBoard draws."""


def _no_description(tag: str) -> str:
    return ""


class Tracker:
    """Writes curves, histograms and pictures to the run's TensorBoard event file.

    Args:
        run_dir: The run directory; None writes nothing, as in all processes but the first.
        purge_step: After a resume, the first step after the checkpoint: TensorBoard hides earlier
            points from this step on, which a killed process wrote. None hides nothing.
        describe: The description of a tag; empty for none.
    """

    def __init__(
        self,
        run_dir: Path | None,
        purge_step: int | None = None,
        describe: Callable[[str], str] = _no_description,
    ) -> None:
        self.writer: SummaryWriter | None = None
        self._describe = describe
        self._described: set[str] = set()
        if run_dir is not None:
            self.writer = SummaryWriter(str(run_dir), purge_step=purge_step, flush_secs=30)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes scalars at an environment step."""
        # One event for all scalars takes a sixth of the time of one each.
        self._write((Summary.Value(tag=tag, simple_value=v) for tag, v in values.items()), step)

    def histograms(self, values: Mapping[str, Sequence[float]], step: int) -> None:
        """Writes the distribution of each sequence; what is not finite is left out."""
        for tag, sequence in values.items():
            finite = [value for value in sequence if math.isfinite(value)]
            if finite:
                self._write(summary.histogram(tag, np.array(finite), NUM_BINS).value, step)

    def picture(self, tag: str, pixels: NDArray[np.uint8]) -> None:
        """Writes a picture at step 0.

        Args:
            tag: Its name.
            pixels: (height, width, 3)
        """
        self._write(summary.image(tag, pixels, dataformats="HWC").value, 0)

    def finished(self) -> None:
        """Marks the run as finished in the table of hyperparameters."""
        end = plugin_data_pb2.SessionEndInfo(
            status=Status.Value("STATUS_SUCCESS"), end_time_secs=time.time()
        )
        data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
        value = Summary.Value(
            tag=hparams.SESSION_END_INFO_TAG,
            metadata=hparams.create_summary_metadata(data),
            tensor=hparams.NULL_TENSOR,
        )
        self._write([value], 0)

    def _write(self, values: Iterable[Summary.Value], step: int) -> None:
        """Writes values in one event; the first one of a tag gets the tag's description."""
        if self.writer is None:
            return
        written = list(values)
        for value in written:
            if value.tag not in self._described:
                self._described.add(value.tag)
                self._add_description(value)
        self.writer._get_file_writer().add_summary(Summary(value=written), step)

    def _add_description(self, value: Summary.Value) -> None:
        kind, text = KINDS.get(value.WhichOneof("value")), self._describe(value.tag)
        if kind is not None and text:
            plugin = SummaryMetadata.PluginData(plugin_name=kind[0])
            value.metadata.MergeFrom(
                SummaryMetadata(plugin_data=plugin, data_class=kind[1], summary_description=text)
            )

    def close(self) -> None:
        """Flushes and closes the file."""
        if self.writer is not None:
            self.writer.close()


def write_settings(
    run_dir: Path,
    config: str,
    hyperparameters: Mapping[str, bool | float | str],
    charts: Mapping[str, Sequence[str]],
) -> None:
    """Writes the event file with a run's settings, in place of the one of an earlier start.

    TensorBoard keeps the first hyperparameters that it finds of a run, and would show those of
    before a resume if both were written.

    Args:
        run_dir: The run directory.
        config: The configuration, as Markdown.
        hyperparameters: What the table of hyperparameters compares, by name.
        charts: The tags of each chart under "Custom Scalars", by the chart's title.
    """
    # No name of the trial: it is then that of the run, so that each run is one row.
    written = [hparams_pb(dict(hyperparameters), trial_id=""), summary.text("config", config)]
    if charts:
        # In a category that all runs share: TensorBoard merges only those of the first run.
        layout = {
            title: ["Multiline", [f"^{re.escape(tag)}$" for tag in tags]]
            for title, tags in charts.items()
        }
        written.append(summary.custom_scalars({"returns": layout}))
    buffer = io.BytesIO()
    records = RecordWriter(buffer)
    now = time.time()
    events: list[Any] = [Event(wall_time=now, file_version="brain.Event:2")]
    events += [Event(wall_time=now, summary=one) for one in written]
    for event in events:
        records.write(event.SerializeToString())
    # TensorBoard would read a partial file whose name contains "tfevents".
    partial = run_dir / ".settings"
    atomic.write_bytes_whole(partial, buffer.getvalue())
    partial.rename(run_dir / SETTINGS)
