"""A run's folder: what it says of the run, and who may write there or go on with it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rltransfer.errors import InputError
from rltransfer.files import atomic, checkpoint
from rltransfer.policies.policy import Policy
from rltransfer.policies.saving import load_policy
from rltransfer.runs.config import FRAMES, read_config

LONGEST_SHOWN = 60
"""Characters of two values that a sentence may hold."""

MEASURED = (FRAMES, "recorded_return")
"""What a teacher's specification says of its own run, as far as that is known."""


@contextlib.contextmanager
def io_errors_as_input_errors(folder: Path) -> Iterator[None]:
    """Says which folder it is that the block cannot write.

    Raises:
        InputError: It cannot be written, e.g. as the disk is full.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{folder} cannot be written: {reason}.") from error


def check_free(run_dir: Path) -> None:
    """Checks that a folder is not there yet, or is empty.

    Raises:
        InputError: It holds something already.
    """
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise InputError(
            f"{run_dir} is there already: give another --run-dir, or go on with --resume."
        )


def make_folder(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Makes a folder with a configuration in it.

    Raises:
        InputError: The folder holds something already, or cannot be written.
    """
    check_free(run_dir)
    with io_errors_as_input_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        text = json.dumps(config, indent=1) + "\n"
        atomic.write_text_whole(run_dir / "config.json", text)


def check_same(run_dir: Path, config: Mapping[str, Any], teacher_moves: bool = False) -> None:
    """Checks that a folder holds a run with this configuration.

    Args:
        run_dir: The folder.
        config: What is asked for.
        teacher_moves: Whether the weights of the teacher alone are compared.

    Raises:
        InputError: A setting differs, or the folder is no run.
    """
    old = {name: value for name, value in read_config(run_dir).items() if name != FRAMES}
    new = json.loads(json.dumps(config))
    if teacher_moves and _weights(old) is not None and _weights(new) is not None:
        old, new = _without_place(old), _without_place(new)
    held, asked = (_kind(one.get("generations", 0)) for one in (old, new))
    found = difference(old, new, "")
    if held != asked or found:
        wrong = f"{held}, not {asked}" if held != asked else f"a run with another {found}"
        raise InputError(
            f"{run_dir} holds {wrong}: resume it with its own settings, "
            "or start a new run in another --run-dir."
        )


def _kind(generations: int) -> str:
    """Returns what a folder of so many generations holds, in words."""
    return f"a chain of generations, {generations} in all" if generations else "a single run"


def _without_place(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration that knows its teacher by its weights, wherever it lies."""
    places = ("teacher", "vecnormalize")
    method = {name: value for name, value in config["method"].items() if name not in places}
    read = (config["teacher"].get("spec") or {}).get("preprocessing")
    return {**config, "method": method, "teacher": {"sha256": _weights(config), "read": read}}


def _weights(config: Mapping[str, Any]) -> str | None:
    """Returns the hash of a teacher's weights; None where it has none, or there is no teacher."""
    found: str | None = (config.get("teacher") or {}).get("sha256")
    return found


def difference(old: Any, new: Any, path: str, known_only: bool = False) -> str:
    """Returns the first setting in which two configurations differ, or "".

    It is named, an option as the command line knows it, and where that is short, both values are
    said.

    Args:
        old: What a folder says.
        new: What is asked for.
        path: The name that both go by.
        known_only: Whether what `old` does not say is no difference, as the version that wrote it
            had no such choice. So it is of a teacher, of which earlier versions said less, and of
            which what is measured may become known later.
    """
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        parts = [(path, a, b) for a, b in zip(old, new, strict=True)]
    elif isinstance(old, dict) and isinstance(new, dict):
        known_only = known_only or path == "teacher"
        names = [n for n in old if n not in MEASURED] if known_only else {**old, **new}
        # No option, but a part of the suite: "another name" alone would not say whose.
        within = "suite " if path == "suite" else ""
        parts = [(f"{within}{name}", old.get(name), new.get(name)) for name in names]
    elif old == new:
        return ""
    else:
        values = f"({json.dumps(old)}, not {json.dumps(new)})"
        return f"{path} {values}" if len(values) <= LONGEST_SHOWN else path
    return next(filter(None, (difference(a, b, name, known_only) for name, a, b in parts)), "")


def load_run_policy(run_dir: Path) -> Policy:
    """Returns a run's newest policy."""
    read_config(run_dir)
    return load_policy(checkpoint.newest_checkpoint(run_dir) / "policy")
