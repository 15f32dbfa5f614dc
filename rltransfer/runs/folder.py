"""Run directories: creating them, and checking that a run may resume in one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rltransfer.aliases import with_current_names
from rltransfer.errors import InputError
from rltransfer.files import atomic, checkpoint
from rltransfer.files.untrusted import damage_refused
from rltransfer.policies.policy import Policy
from rltransfer.policies.saving import load_policy
from rltransfer.runs.config import FRAMES, read_config

LONGEST_SHOWN = 60
"""Maximum number of characters of two values in an error message."""

MEASURED_FIELDS = (FRAMES, "recorded_return")
"""Fields of a teacher's specification that may become known after it was first written."""


@contextlib.contextmanager
def io_errors_as_input_errors(folder: Path) -> Iterator[None]:
    """Turns I/O errors of the block into errors that name the folder.

    Raises:
        InputError: The folder cannot be written, e.g. because the disk is full.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{folder} cannot be written: {reason}.") from error


def check_free(run_dir: Path) -> None:
    """Checks that a folder does not exist or is empty.

    Raises:
        InputError: The folder contains something.
    """
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise InputError(
            f"{run_dir} already exists: use another --run-dir, or resume it with --resume."
        )


def make_folder(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Creates a folder with a configuration.

    Raises:
        InputError: The folder contains something, or cannot be written.
    """
    check_free(run_dir)
    with io_errors_as_input_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    write_json(run_dir / "config.json", config)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes a file of a run directory, whole or not at all.

    Raises:
        InputError: The folder cannot be written.
    """
    with io_errors_as_input_errors(path.parent):
        atomic.write_text_whole(path, json.dumps(data, indent=1) + "\n")


def check_same(run_dir: Path, config: Mapping[str, Any], teacher_moves: bool = False) -> None:
    """Checks that a folder contains a run with this configuration.

    Args:
        run_dir: The folder.
        config: The requested configuration.
        teacher_moves: Whether the teacher may be in another place: only its weights are compared.

    Raises:
        InputError: A setting differs, or the folder is not a run.
    """
    stored = {name: value for name, value in read_config(run_dir).items() if name != FRAMES}
    old, new = with_current_names(stored), with_current_names(json.loads(json.dumps(config)))
    with damage_refused(f"{run_dir} is not a complete run: its config.json is damaged."):
        weights = [(one.get("teacher") or {}).get("sha256") for one in (old, new)]
        if teacher_moves and None not in weights:
            old, new = _without_place(old), _without_place(new)
    kind, requested = (
        f"a chain with --generations {count}" if count else "a single run"
        for count in (one.get("generations") for one in (old, new))
    )
    found = difference(old, new, "")
    if kind != requested or found:
        wrong = f"{kind}, not {requested}" if kind != requested else f"a run with another {found}"
        raise InputError(
            f"{run_dir} contains {wrong}: resume it with its original settings, or use another "
            "--run-dir."
        )


def _without_place(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that identifies its teacher by the weights instead of the place."""
    method = {k: v for k, v in config["method"].items() if k not in ("teacher", "vecnormalize")}
    teacher = config["teacher"]
    read = (teacher.get("spec") or {}).get("preprocessing")
    return {**config, "method": method, "teacher": {"sha256": teacher["sha256"], "read": read}}


def difference(old: Any, new: Any, path: str, known_only: bool = False) -> str:
    """The first setting in which two configurations differ, or "".

    The result is the option's name, followed by both values if they are short.

    Args:
        old: The stored configuration.
        new: The requested configuration.
        path: The configurations' name.
        known_only: Whether to ignore fields that `old` lacks. Teacher specs are compared this way:
            older versions stored fewer fields, and measured returns may be added later.
    """
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        parts = [(path, a, b) for a, b in zip(old, new, strict=True)]
    elif isinstance(old, dict) and isinstance(new, dict):
        known_only = known_only or path == "teacher"
        names = [n for n in old if n not in MEASURED_FIELDS] if known_only else {**old, **new}
        # Not an option, but a part of the suite: "another name" alone would be unclear.
        within = "suite " if path == "suite" else ""
        parts = [(f"{within}{name}", old.get(name), new.get(name)) for name in names]
    elif old == new:
        return ""
    else:
        values = f"({json.dumps(old)}, not {json.dumps(new)})"
        return f"{path} {values}" if len(values) <= LONGEST_SHOWN else path
    return next(filter(None, (difference(a, b, name, known_only) for name, a, b in parts)), "")


def load_run_policy(run_dir: Path) -> Policy:
    """Loads a run's newest policy."""
    read_config(run_dir)  # raises if the folder is not a run
    return load_policy(checkpoint.newest_checkpoint(run_dir) / "policy")
