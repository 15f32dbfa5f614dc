"""Configuration files: the `config.json` of a run, or a part of one, by which another run starts.

Nothing in a file is imported or run: its agent is one of those that are installed, its tasks count
as named by a file (see `Task.trusted`), and its teacher is a text that `load_teacher` reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rltransfer.errors import InputError, unknown
from rltransfer.files.reading import is_folder, must_be_readable
from rltransfer.files.serialization import from_json
from rltransfer.files.untrusted import damage_refused, read_json
from rltransfer.learning import methods
from rltransfer.learning.agent import Method
from rltransfer.learning.distillation_recipe import CHOSEN
from rltransfer.runs.config import NOT_OPTIONS, SOURCES, RunOptions
from rltransfer.runs.initialization import INIT_FROM
from rltransfer.tasks.task import Suite

ENTRIES = (
    "agent", "method", "suite", "options", "generations", "sequential", "teacher", CHOSEN,
    INIT_FROM, SOURCES, *NOT_OPTIONS,
)  # fmt: skip
"""What a configuration may contain; only "agent" must be there."""


def read_config_file(path: Path) -> dict[str, Any]:
    """The entries of a configuration file.

    Raises:
        InputError: The file cannot be read, is not a configuration, or has an unknown entry.
    """
    if is_folder(path):
        raise InputError(f"{path} is a folder: pass the file {path / 'config.json'}.")
    refusal = f"{path} is not a configuration: pass the config.json of a run."
    try:
        with must_be_readable():
            entries = read_json(path)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}: pass the config.json of a run.") from error
    except (OSError, ValueError) as error:
        raise InputError(refusal) from error
    if not isinstance(entries, dict) or not isinstance(entries.get("agent"), str):
        raise InputError(refusal)
    for name in entries:
        if name not in ENTRIES:
            raise InputError(f"{path}: {unknown('entry', name, ENTRIES)}")
    return entries


def settings_of(
    path: Path, entries: Mapping[str, Any], teacher: str | None = None
) -> tuple[Method, Suite | None, RunOptions]:
    """The method, the tasks and the options of a configuration file.

    What the file leaves out has its default; tasks have none.

    Args:
        path: The file.
        entries: What `read_config_file` has read.
        teacher: The method's teacher, in the place of the file's.

    Raises:
        InputError: An option is unknown, or its value is invalid.
    """
    kind = methods.find_method(entries["agent"])
    instead = {} if teacher is None else {"teacher": teacher}
    listing = f"rltransfer train {entries['agent']} --help"
    try:
        with damage_refused("one of its entries has the wrong type."):
            suite = Suite.from_json(entries["suite"]) if "suite" in entries else None
            method = from_json(kind, {**entries.get("method", {}), **instead}, listing)
            return method, suite, from_json(RunOptions, entries.get("options", {}), listing)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def changed_weights(stored: Any, described: Any) -> bool:
    """Whether weights of a teacher in a configuration are not among those of the one at hand.

    Args:
        stored: The configuration's entry "teacher".
        described: The description of the teacher at hand.
    """
    return bool(set(_hashes(stored)) - set(_hashes(described)))


def _hashes(value: Any) -> Iterator[str]:
    """Every hash in a description."""
    if isinstance(value, dict):
        if isinstance(value.get("sha256"), str):
            yield value["sha256"]
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _hashes(part)
