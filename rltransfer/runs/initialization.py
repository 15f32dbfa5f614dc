"""A run's initial weights from another run, and the table of what was loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rltransfer.errors import InputError
from rltransfer.files.checkpoint import newest_checkpoint, newest_generation
from rltransfer.files.hashing import weights_sha256
from rltransfer.files.reading import is_folder
from rltransfer.learning.initial_weights import LoadedTensor, load_initial_weights
from rltransfer.machine.tables import FittedTable
from rltransfer.policies.policy import Policy
from rltransfer.policies.saving import load_policy
from rltransfer.runs.config import RunOptions, read_config
from rltransfer.teachers.policy_teacher import PolicyTeacher
from rltransfer.teachers.zoo import ZOO, card_teacher

INIT_FROM = "init_from"
"""The entry of config.json for the policy that a run started from."""


class Source(NamedTuple):
    """A policy whose weights a run starts from."""

    policy: Policy
    name: str
    sha256: str

    def to_json(self) -> dict[str, str]:
        """The entry of config.json."""
        return {"source": self.name, "sha256": self.sha256}


def load_source(text: str) -> Source:
    """Loads the policy of a run directory or of "zoo:ID".

    Raises:
        InputError: There is none, or it is damaged.
    """
    if text.startswith(f"{ZOO}:"):
        teacher = card_teacher(text.removeprefix(f"{ZOO}:"))
        assert isinstance(teacher, PolicyTeacher)
        return Source(teacher.module, text, teacher.sha256)
    if not is_folder(text):
        raise InputError(
            f"init_from is {text}, which is not a run directory: pass a run, or zoo:ID. To start "
            "from the file of another library, distil it into a run first."
        )
    run_dir = newest_generation(Path(text))
    read_config(run_dir)  # raises if the folder is not a run
    stem = newest_checkpoint(run_dir) / "policy"
    return Source(load_policy(stem), str(text), weights_sha256(stem))


def initialize(policy: Policy, source: Source, options: RunOptions) -> list[LoadedTensor]:
    """Copies the source's weights as the options say; see `load_initial_weights`."""
    return load_initial_weights(
        policy, source.policy, source.name, options.init_without, options.init_layers,
        options.init_match,
    )  # fmt: skip


def loading_table(rows: Sequence[LoadedTensor], source: Source) -> FittedTable:
    """What became of each tensor of the policy."""
    table = FittedTable(
        ("tensor", "shape", "weights", "note"), ("shape", "note"), names_task=False,
        title=f"initial weights from {source.name}",
    )  # fmt: skip
    for row in rows:
        table.add_row(row.name, " x ".join(map(str, row.shape)) or "1", row.status, row.note)
    return table
