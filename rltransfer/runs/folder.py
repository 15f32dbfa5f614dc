"""Run directories: creating them, and checking that a run may resume in one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import stat
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from rltransfer.aliases import with_current_names
from rltransfer.errors import InputError
from rltransfer.files import atomic
from rltransfer.files.checkpoint_names import FINAL, find_checkpoint
from rltransfer.files.serialization import from_json, to_json
from rltransfer.files.untrusted import DAMAGE, damage_refused, read_json
from rltransfer.machine import distributed
from rltransfer.policies.policy import Policy
from rltransfer.policies.saving import load_policy
from rltransfer.runs.config import (
    FRAMES,
    NOT_OPTIONS,
    SOURCES,
    TRANSFER,
    RunOptions,
    read_config,
    with_default_options,
    with_earlier_fields,
)

LONGEST_SHOWN = 60
"""Maximum number of characters of two values in an error message."""

LOCK = ".lock"
"""The file of a run directory that the process which trains there has locked."""

BEGUN = (LOCK, atomic.partial_path(Path("config.json")).name)
"""Files of a run that was killed before it had a configuration."""

RESULT_OPTIONS = frozenset({"total_steps", "episodes", "until"})
"""Options of a run whose change makes its result out of date."""

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


def lock(run_dir: Path) -> IO[str]:
    """Locks a folder for training; closing the returned file or the process's end unlocks it.

    Raises:
        InputError: A run in the folder goes on, or the folder cannot be written or contains links.
    """
    with io_errors_as_input_errors(run_dir):
        _check_no_links(run_dir)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        file = os.fdopen(os.open(run_dir / LOCK, flags, 0o666), "a+")
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            file.close()
            raise InputError(f"{run_dir / LOCK} is not a file of its own: remove it.")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        with file:
            file.seek(0)
            raise InputError(
                f"{run_dir} is in use by {file.read().strip() or 'another process'}: wait until "
                "that run ends, or stop it first."
            ) from error
    except OSError:
        pass  # some network file systems have no locks
    with io_errors_as_input_errors(run_dir):
        file.truncate(0)
        file.write(f"the process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
    _LOCKS.add(file)
    return file


def _check_no_links(run_dir: Path) -> None:
    """Checks that what is written or deleted in a folder is in this folder.

    Raises:
        InputError: It contains a symbolic link, or its checkpoints do.
    """
    for folder in (run_dir, run_dir / "checkpoints"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_symlink():
                raise InputError(
                    f"{path} is a symbolic link, so that training would write or delete files "
                    f"outside of {run_dir}: replace the link by what it leads to."
                )


_LOCKS: weakref.WeakSet[IO[str]] = weakref.WeakSet()


def _close_locks() -> None:
    for file in _LOCKS:
        file.close()


# A forked process that outlives the run, e.g. of an environment that hangs, must not keep the lock.
os.register_at_fork(after_in_child=_close_locks)


def check_free(run_dir: Path, *, resumes: bool = True) -> None:
    """Checks that a folder does not exist or is empty, but for what a killed start left.

    Args:
        run_dir: The folder.
        resumes: Whether what it may contain can be resumed.

    Raises:
        InputError: The folder contains something, or cannot be read.
    """
    with io_errors_as_input_errors(run_dir):
        there = run_dir.exists() and (
            not run_dir.is_dir() or any(path.name not in BEGUN for path in run_dir.iterdir())
        )
    if there:
        instead = ", or resume it with --resume" if resumes else ""
        raise InputError(f"{run_dir} already exists: use another --run-dir{instead}.")


def make_folder(run_dir: Path, config: Mapping[str, Any]) -> IO[str]:
    """Creates a folder with a configuration, and locks it as `lock` does.

    Raises:
        InputError: The folder contains something, or cannot be written.
    """
    check_free(run_dir)
    with io_errors_as_input_errors(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    held = lock(run_dir)
    check_free(run_dir)  # another process may have been faster
    write_json(run_dir / "config.json", config)
    return held


@contextlib.contextmanager
def several_runs(
    folder: Path, config: Mapping[str, Any], options: RunOptions, resume: bool
) -> Iterator[contextlib.ExitStack]:
    """Checks the folder of a chain or a sequence, and yields what holds its lock.

    Args:
        folder: The folder.
        config: The requested configuration.
        options: The options, which a resume stores.
        resume: Whether it is resumed; its lock is then held. If not, whoever makes the folder adds
            the lock.

    Raises:
        InputError: See `check_same` and `check_free`.
    """
    with contextlib.ExitStack() as held:
        if resume:
            check_same(folder, config)
            distributed.wait()
            if distributed.rank() == 0:
                held.enter_context(lock(folder))
                store_options(folder, options)
        elif distributed.rank() == 0:
            check_free(folder)
        yield held


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes a file of a run directory, whole or not at all.

    Raises:
        InputError: The folder cannot be written.
    """
    with io_errors_as_input_errors(path.parent):
        atomic.write_text_whole(path, json.dumps(data, indent=1) + "\n")


def check_same(
    run_dir: Path,
    config: Mapping[str, Any],
    teacher_moves: bool = False,
    sources_move: bool = False,
) -> None:
    """Checks that a folder contains a run with this configuration.

    Of the options of the run, `RunOptions`, only the seed and those of `TRANSFER` must be the same,
    and in a chain or a sequence the steps: its runs have learned from each other.

    Args:
        run_dir: The folder.
        config: The requested configuration.
        teacher_moves: Whether the teacher may be in another place: only its weights are compared.
        sources_move: Whether the other runs that it begins with may be, e.g. as those of a sequence
            move with it.

    Raises:
        InputError: A setting differs, or the folder is not a run.
    """
    stored = {name: v for name, v in read_config(run_dir).items() if name not in NOT_OPTIONS}
    stored["options"] = with_default_options(stored["options"])
    with damage_refused(damaged := f"{run_dir} is not a complete run: its config.json is damaged."):
        if stored["agent"] == config["agent"]:
            stored["method"] = with_earlier_fields(stored["agent"], stored["method"])
    old, new = with_current_names(stored), with_current_names(json.loads(json.dumps(config)))
    with damage_refused(damaged):
        known, sources = old.pop(SOURCES, ()), new.pop(SOURCES, ())
        changed = [one["source"] for one in sources if known and one not in known]
        weights = [(one.get("teacher") or {}).get("sha256") for one in (old, new)]
        if teacher_moves and None not in weights:
            old, new = _without_place(old), _without_place(new)
    if sources_move:
        old, new = _without_sources(old), _without_sources(new)
    kind, requested = map(_kind, (old, new))
    several = new.get("generations") or new.get("sequential")
    fixed = ("seed", *TRANSFER, *(["total_steps"] if several else []))
    free = {name: value for name, value in new["options"].items() if name not in fixed}
    found = difference({**old, "options": {**old["options"], **free}}, new, "")
    if kind != requested or found:
        wrong = f"{kind}, not {requested}" if kind != requested else f"a run with another {found}"
        raise InputError(
            f"{run_dir} contains {wrong}: resume it with its original settings, or use another "
            "--run-dir."
        )
    if changed:
        raise InputError(
            f"{changed[0]} has other weights now than when {run_dir} began: put back the earlier "
            "ones, or use another --run-dir."
        )


def _kind(config: Mapping[str, Any]) -> str:
    """What a configuration is one of."""
    if config.get("sequential"):
        return "a sequence of tasks"
    count = config.get("generations")
    return f"a chain with --generations {count}" if count else "a single run"


def changed_options(run_dir: Path, options: RunOptions) -> dict[str, Any]:
    """The options of a run that a resume changes, with their stored values."""
    old, new = with_current_names(read_config(run_dir)["options"]), to_json(options)
    return {name: value for name, value in old.items() if value != new.get(name)}


def store_options(run_dir: Path, options: RunOptions) -> None:
    """Stores the options of a resumed run.

    A result of fewer steps or other episodes is kept, see `keep_result`.
    """
    changed = changed_options(run_dir, options)
    if changed.keys() & RESULT_OPTIONS:
        keep_result(run_dir)
    if changed:
        config = {**read_config(run_dir), "options": to_json(options)}
        write_json(run_dir / "config.json", config)


def keep_result(run_dir: Path) -> None:
    """Renames the result of a run that trains on to `result-STEPS-EPISODES.json`.

    Raises:
        InputError: The run's options are damaged, or the folder cannot be written.
    """
    result = run_dir / "result.json"
    if not result.exists():
        return
    old = from_json(RunOptions, with_default_options(read_config(run_dir)["options"]))
    steps, done = old.total_steps, stored_result(run_dir).get("env_steps")
    if isinstance(done, int) and 0 <= done < steps:
        steps = done  # a callback stopped the run
    with io_errors_as_input_errors(run_dir):
        result.rename(run_dir / f"result-{steps}-{old.episodes}.json")


def stored_result(run_dir: Path) -> dict[str, Any]:
    """The content of a finished run's `result.json`; empty if there is none, or it is damaged."""
    try:
        result = read_json(run_dir / "result.json")
        return result if isinstance(result["tasks"], dict) else {}
    except DAMAGE:
        return {}


def _without_place(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that identifies its teacher by the weights instead of the place."""
    method = {k: v for k, v in config["method"].items() if k not in ("teacher", "vecnormalize")}
    teacher = config["teacher"]
    read = (teacher.get("spec") or {}).get("preprocessing")
    return {**config, "method": method, "teacher": {"sha256": teacher["sha256"], "read": read}}


def _without_sources(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the places of the runs that it begins with."""
    method = {name: value for name, value in config["method"].items() if name != "columns"}
    options = {**config["options"], "init_from": None, "ewc_from": []}
    return {**config, "method": method, "options": options}


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


def load_run_policy(run_dir: Path, name: str | int = FINAL) -> Policy:
    """Loads the policy of one of a run's checkpoints; see `find_checkpoint` for its name."""
    read_config(run_dir)  # raises if the folder is not a run
    return load_policy(find_checkpoint(run_dir, name) / "policy")
