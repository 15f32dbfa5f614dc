"""Curves in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter


class Tracker:
    """Writes scalars to the run's TensorBoard event file.

    Args:
        run_dir: The run directory; None writes nothing, as in all processes but the first.
        purge_step: After a resume, the first step after the checkpoint: TensorBoard hides earlier
            points from this step on, which a killed process wrote. None hides nothing.
    """

    def __init__(self, run_dir: Path | None, purge_step: int | None = None) -> None:
        self.writer: SummaryWriter | None = None
        if run_dir is not None:
            self.writer = SummaryWriter(str(run_dir), purge_step=purge_step, flush_secs=30)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes scalars at an environment step."""
        if self.writer is None:
            return
        # One event for all scalars takes a sixth of the time of one each.
        summary = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self.writer._get_file_writer().add_summary(Summary(value=summary), step)

    def text(self, name: str, value: str) -> None:
        """Writes a text, e.g. the hyperparameters."""
        if self.writer is not None:
            self.writer.add_text(name, value)

    def close(self) -> None:
        """Flushes and closes the file."""
        if self.writer is not None:
            self.writer.close()
