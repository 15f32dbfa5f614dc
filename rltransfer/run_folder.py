"""A run's folder: what it says of the run, and who may write there or go on with it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rltransfer import checkpoint, registry
from rltransfer.agent import Method
from rltransfer.errors import InputError, check_kinds, check_range
from rltransfer.policy import Policy, load_policy
from rltransfer.serialization import from_json, to_json
from rltransfer.task import Suite

FRAMES = "frame_stack"
"""What files call the number of frames that an observation stacks."""

LONGEST_SHOWN = 60
"""Characters of two values that a sentence may hold."""

MEASURED = (FRAMES, "recorded_return")
"""What a teacher's specification says of its own run, as far as that is known."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every run has, whatever the method."""

    steps: int = 1_000_000
    """Environment steps in all, over all tasks and environments; whole rollouts, rounded up."""
    seed: int = 0
    """Seed of weights, environments and order of samples."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", ...; "auto" takes CUDA where it is there."""
    threads: int = 0
    """Threads of torch on the CPU; 0 leaves torch's choice. Results may depend on it."""
    compile: bool = False
    """Whether torch.compile builds the policy's kernels; compiling takes up to a minute. Small
    networks are slower by it on a CPU: measure with `rltransfer benchmark train`."""
    checkpoint_every: int = 0
    """Environment steps between checkpoints; 0 means a tenth of the run."""
    evaluate_every: int = 0
    """Environment steps between evaluations; 0 means a quarter of the run."""
    evaluate_episodes: int = 16
    """Episodes of an evaluation during the run; 0 for none."""
    episodes: int = 100
    """Episodes of each evaluation at the end: policy, teacher and random actions."""

    def __post_init__(self) -> None:
        check_kinds(self)
        check_range(self, "at least 1", "steps", "episodes")
        check_range(
            self, "at least 0",
            "evaluate_episodes", "checkpoint_every", "evaluate_every", "seed", "threads",
        )  # fmt: skip


def settings(name: str, method: Method, suite: Suite, options: RunOptions) -> dict[str, Any]:
    """Returns what a run was asked for, as JSON: what `configured` reads."""
    return {
        "agent": name,
        "method": to_json(method),
        "suite": suite.to_json(),
        "options": to_json(options),
    }


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
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
    with writing(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        text = json.dumps(config, indent=1) + "\n"
        checkpoint.write_text_whole(run_dir / "config.json", text)


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


def read_config(run_dir: Path) -> dict[str, Any]:
    """Returns a run's configuration.

    Raises:
        InputError: The folder is no run, or its configuration is damaged.
    """
    path = run_dir / "config.json"
    if not path.is_file():
        raise InputError(f"{run_dir} is no run: it has no config.json.")
    try:
        entries = json.loads(path.read_text())
        Suite.from_json(entries["suite"])
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(run_dir) from error
    return _Config(run_dir, entries)


class _Config(dict[str, Any]):
    """What a run's config.json holds; whoever asks for an entry that is not there is told so."""

    def __init__(self, run_dir: Path, entries: Mapping[str, Any]) -> None:
        super().__init__(entries)
        self.run_dir = run_dir

    def __missing__(self, name: str) -> Any:
        raise _damaged(self.run_dir)


def _damaged(run_dir: Path) -> InputError:
    """Returns the error for a configuration that was cut or changed."""
    return InputError(f"{run_dir} is no whole run: its config.json is damaged.")


def configured(config: Mapping[str, Any]) -> tuple[Method, Suite, RunOptions]:
    """Returns what a configuration describes.

    Raises:
        InputError: It was written by another version, or one of its values is damaged.
    """
    suite = Suite.from_json(config["suite"])
    try:
        method = from_json(registry.find_method(config["agent"]), config["method"])
        return method, suite, from_json(RunOptions, config["options"])
    except (TypeError, AttributeError) as error:
        raise InputError(
            f"The configuration of this run of {config['agent']!r} is damaged: one of its options "
            "is of the wrong kind."
        ) from error


def load_run_policy(run_dir: Path) -> Policy:
    """Returns a run's newest policy."""
    read_config(run_dir)
    return load_policy(checkpoint.newest_checkpoint(run_dir) / "policy")
