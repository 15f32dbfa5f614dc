"""A run's options, and its configuration as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltransfer.errors import InputError, check_kinds, check_range
from rltransfer.files.serialization import from_json, to_json
from rltransfer.files.untrusted import DAMAGE, LimitError, damage_refused, read_json
from rltransfer.learning import methods
from rltransfer.learning.agent import Method
from rltransfer.tasks.task import Suite

FRAMES = "frame_stack"
"""The entry of config.json for the number of frames that an observation stacks."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every run, whatever the method."""

    total_steps: int = 1_000_000
    """Environment steps over all tasks and environments, rounded up to whole rollouts."""
    seed: int = 0
    """Seed of weights, environments and sampling order."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", ...; "auto" uses CUDA if available."""
    threads: int = 0
    """CPU threads of torch; 0 keeps torch's default. Results may depend on it."""
    compile: bool = False
    """Compile the policy's kernels with torch.compile, which takes up to a minute.
    Small networks become slower on a CPU: measure with `rltransfer benchmark train`."""
    checkpoint_every: int = 0
    """Environment steps between checkpoints; 0 means a tenth of the run."""
    evaluate_every: int = 0
    """Environment steps between evaluations; 0 means a quarter of the run."""
    evaluate_episodes: int = 16
    """Episodes of each evaluation during training; 0 for none."""
    episodes: int = 100
    """Episodes of each evaluation at the end: policy, teacher and random policy."""

    def __post_init__(self) -> None:
        check_kinds(self)
        check_range(self, "at least 1", "total_steps", "episodes")
        check_range(
            self, "at least 0",
            "evaluate_episodes", "checkpoint_every", "evaluate_every", "seed", "threads",
        )  # fmt: skip


def settings(name: str, method: Method, suite: Suite, options: RunOptions) -> dict[str, Any]:
    """A run's settings as JSON, as `configured` reads them."""
    return {
        "agent": name,
        "method": to_json(method),
        "suite": suite.to_json(),
        "options": to_json(options),
    }


def read_config(run_dir: Path) -> dict[str, Any]:
    """Reads a run's configuration.

    Raises:
        InputError: The folder is not a run, or its configuration is damaged.
    """
    path = run_dir / "config.json"
    if not path.is_file():
        raise InputError(f"{run_dir} is not a run: it has no config.json.")
    try:
        entries = read_json(path)
        Suite.from_json(entries["suite"])
        return _Config(run_dir, entries)
    except LimitError:
        raise
    except DAMAGE as error:
        raise _damaged(run_dir) from error


class _Config(dict[str, Any]):
    """The contents of config.json; a missing entry means that the file is damaged."""

    def __init__(self, run_dir: Path, entries: Mapping[str, Any]) -> None:
        super().__init__(entries)
        self.run_dir = run_dir

    def __missing__(self, name: str) -> Any:
        raise _damaged(self.run_dir)


def _damaged(run_dir: Path) -> InputError:
    return InputError(f"{run_dir} is not a complete run: its config.json is damaged.")


def configured(config: Mapping[str, Any]) -> tuple[Method, Suite, RunOptions]:
    """The method, suite and options of a configuration.

    Raises:
        InputError: It was written by another version, or one of its values is damaged.
    """
    suite = Suite.from_json(config["suite"])
    with damage_refused(
        f"The configuration of this run of {config['agent']!r} is damaged: one of its options has "
        "the wrong type."
    ):
        method = from_json(methods.find_method(config["agent"]), config["method"])
        return method, suite, from_json(RunOptions, config["options"])
