"""`rltransfer export`: a run's policy as an ONNX file, or in the format of another library."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from rltransfer.cli.parsing import parse
from rltransfer.errors import InputError
from rltransfer.files.checkpoint import newest_generation
from rltransfer.files.checkpoint_names import FINAL
from rltransfer.machine.terminal import console
from rltransfer.runs.exporters import ONNX, export_as
from rltransfer.runs.onnx_export import Exported, export_run


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Export a run's policy as a file that acts greedily: ONNX, or a Stable-Baselines3 zip."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run directory."""
    out: Path
    """The file to write, e.g. policy.onnx. An existing file is never overwritten."""
    to: str = ONNX
    """The format. onnx: one file for any runtime; sb3: a zip that `PPO.load` or `DQN.load` of
    Stable-Baselines3 opens, and a VecNormalize file with the observation statistics."""
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
    """Writes a run's policy as a file."""
    options = parse(ExportOptions, words, "rltransfer export")
    if options.to != ONNX:
        _export_other(options)
        return
    if options.out.suffix == ".zip":
        raise InputError(
            f"{options.out} is the name of a zip, but the format is {ONNX!r}: add --to sb3, or use "
            f"--out {options.out.stem}.onnx."
        )
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


def _export_other(options: ExportOptions) -> None:
    """Writes a policy in the format of an installed package.

    Raises:
        InputError: An option is for ONNX alone; see `export_as` for others.
    """
    if options.actions_only:
        raise InputError(
            f"--actions-only is for ONNX files, and the format is {options.to!r}: leave it out."
        )
    exported = export_as(
        options.to, newest_generation(options.run), options.out,
        checkpoint=options.checkpoint, samples=options.samples,
    )  # fmt: skip
    if options.json:
        print(json.dumps(dataclasses.asdict(exported), default=str))
        return
    out = console()
    names = " and ".join(map(str, (exported.path, *exported.others)))
    for line in (
        f"{names}: {exported.num_bytes:,} bytes. All actions match the policy's on "
        f"{exported.samples} random observations, with differences of at most "
        f"{exported.largest_difference:.1e}.",
        *exported.notes,
    ):
        out.print(line, highlight=False, soft_wrap=True)


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
