"""The shell's face of exporting: `rltransfer export RUN --out policy.onnx`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from rich.table import Table
from rich.text import Text

from rltransfer.cli.parsing import parse
from rltransfer.errors import InputError
from rltransfer.files.checkpoint import newest_generation
from rltransfer.machine.terminal import console
from rltransfer.runs.onnx_export import Exported, export_run


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """A run's newest policy as an ONNX file, which acts greedily and without Python."""

    out: Path
    """The file, e.g. policy.onnx; must not be there yet."""
    actions_only: bool = False
    """Export only the greedy action, not logits, Q-values or log_std."""
    samples: int = 256
    """Random observations on which the file must act as the policy does."""
    json: bool = False
    """Whether to print JSON."""


def export_command(words: list[str]) -> None:
    """Writes a run's policy as an ONNX file."""
    prog = "rltransfer export"
    asks_help = bool({"-h", "--help"} & set(words))
    if not asks_help and (not words or words[0].startswith("-")):
        raise InputError("`rltransfer export` needs a run directory first: RUN --out policy.onnx.")
    options = parse(
        ExportOptions, words if asks_help else words[1:], f"{prog} RUN" if asks_help else prog
    )
    exported = export_run(
        newest_generation(Path(words[0])),
        options.out,
        samples=options.samples,
        actions_only=options.actions_only,
    )
    if options.json:
        print(json.dumps({**dataclasses.asdict(exported), "path": str(exported.path)}))
    else:
        _show(exported)


def _show(exported: Exported) -> None:
    """Prints what was written, and how it compares."""
    table = Table("", "name", "type and shape")
    for way, values in (("in", exported.inputs), ("out", exported.outputs)):
        for name, kind in values.items():
            table.add_row(way, name, Text(kind))  # its brackets are no markup
    out = console()
    out.print(table)
    if len(exported.tasks) > 1:
        numbers = ", ".join(f"{index} for {name}" for index, name in enumerate(exported.tasks))
        out.print(
            f"task: {numbers}; an observation that is shorter than the shape ends in zeros",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    out.print(
        f"{exported.path}: {exported.num_bytes:,} bytes; the policy's actions in all of "
        f"{exported.samples} random observations, other outputs within "
        f"{exported.largest_difference:.1e}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
