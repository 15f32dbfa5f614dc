"""`rltransfer export`: a run's policy as an ONNX file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from rltransfer.cli.parsing import parse
from rltransfer.files.checkpoint import newest_generation
from rltransfer.files.checkpoint_names import FINAL
from rltransfer.machine.terminal import console
from rltransfer.runs.onnx_export import Exported, export_run


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Export a run's policy as an ONNX file that acts greedily and needs no Python."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    out: Path
    """The file to write, e.g. policy.onnx. An existing file is never overwritten."""
    checkpoint: str = FINAL
    """"final", the newest checkpoint; "best", the best policy by the evaluations during training;
    or the environment steps of a checkpoint."""
    actions_only: bool = False
    """Export only the greedy action, not logits, Q-values or log_std."""
    samples: int = 256
    """Random observations on which the file is compared with the policy."""
    json: bool = False
    """Print JSON."""


def run(words: list[str]) -> None:
    """Writes a run's policy as an ONNX file."""
    options = parse(ExportOptions, words, "rltransfer export")
    exported = export_run(
        newest_generation(options.run),
        options.out,
        samples=options.samples,
        actions_only=options.actions_only,
        checkpoint=options.checkpoint,
    )
    if options.json:
        print(json.dumps({**dataclasses.asdict(exported), "path": str(exported.path)}))
    else:
        _show(exported)


def _show(exported: Exported) -> None:
    table = Table("", "name", "type and shape")
    for way, values in (("in", exported.inputs), ("out", exported.outputs)):
        for name, kind in values.items():
            table.add_row(way, name, kind)
    lines = [
        f"{exported.path}: {exported.num_bytes:,} bytes. All actions match the policy's on "
        f"{exported.samples} random observations; other outputs differ by at most "
        f"{exported.largest_difference:.1e}."
    ]
    if len(exported.tasks) > 1:
        numbers = ", ".join(f"{index} for {name}" for index, name in enumerate(exported.tasks))
        lines.insert(0, f"task: {numbers}. Pad shorter observations with zeros at the end.")
    out = console()
    out.print(table)
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True)
