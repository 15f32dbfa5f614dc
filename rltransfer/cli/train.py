"""The `train` command."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rltransfer.cli.parsing import parse
from rltransfer.cli.task_options import TaskOptions, requested_suite
from rltransfer.errors import InputError
from rltransfer.learning import methods
from rltransfer.machine import distributed
from rltransfer.machine.terminal import console
from rltransfer.runs.config import RunOptions, configured, read_config
from rltransfer.runs.generations import Chain, generation_results
from rltransfer.runs.report import result_table
from rltransfer.runs.run import Run
from rltransfer.tasks.task import Suite


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(TaskOptions):
    """Where a run is, and what it is about."""

    run_dir: Path | None = None
    """Folder of the run; runs/AGENT-TASK-SEED if not given."""
    resume: Path | None = None
    """Folder of a run to go on with, with its own settings."""
    quiet: bool = False
    """Whether to show no progress."""
    generations: int = 0
    """Students in a chain, each the next one's teacher (Furlanello 2018), in RUN_DIR/generation-1
    and so on, of --steps each; 0 for one run, in RUN_DIR itself."""


def train_command(words: list[str]) -> None:
    """Trains an agent."""
    if not words or words[0].startswith("-"):
        raise InputError(
            "`rltransfer train` needs an agent, before its options: "
            f"{', '.join(methods.method_names())}."
        )
    name, rest = words[0], words[1:]
    method_class = methods.find_method(name)
    prog = f"rltransfer train {name}"
    kind = dataclasses.make_dataclass(
        "Train",
        [
            ("run", TrainOptions, dataclasses.field(default=TrainOptions())),
            ("training", RunOptions, dataclasses.field(default=RunOptions())),
            ("method", method_class, dataclasses.MISSING),
        ],
        frozen=True,
        kw_only=True,
        namespace={"__doc__": method_class.__doc__, "__module__": __name__},
    )
    resumed = _value_of("--resume", rest)
    made: Any
    if resumed is None:
        made = parse(kind, rest, prog)
        suite = requested_suite(made.run)
        default = Path("runs") / f"{name}-{suite.name.replace('/', '-')}-{made.training.seed}"
        run_dir = made.run.run_dir or default
    else:
        run_dir = Path(resumed)
        made, suite = _as_before(kind, name, run_dir, rest, prog)
    asked = (name, made.method, suite, made.training, run_dir, made.run.quiet)
    if made.run.generations:
        Chain(*asked, generations=made.run.generations).train(resumed is not None)
        print_results(generation_results(run_dir), run_dir, generations=True)
        return
    run = Run(*asked)
    # Whoever says where the teacher lies may have moved it: then its weights must be the same.
    run.begin(resumed is not None, teacher_moves=_value_of("--teacher", rest) is not None)
    run.execute()
    print_results([run.result], run_dir)


def _as_before(
    kind: type[Any], name: str, folder: Path, words: list[str], prog: str
) -> tuple[Any, Suite]:
    """Returns the options and the tasks of a run that goes on: its own, but for what is given."""
    config = read_config(folder)
    if config["agent"] != name:
        raise InputError(f"{folder} is a run of the agent {config['agent']!r}, not of {name!r}.")
    method, suite, options = configured(config)
    same = TrainOptions(generations=config.get("generations", 0))
    made = parse(kind, words, prog, kind(run=same, method=method, training=options))
    if made.run.run_dir not in (None, folder):
        raise InputError(f"A run goes on in its own folder, {folder}: leave --run-dir out.")
    if made.run.suite is not None or made.run.task:
        suite = requested_suite(made.run)
    elif made.run.task_option:
        raise InputError(f"{folder} keeps its tasks as they are: leave --task-option out.")
    return made, suite


def _value_of(option: str, words: list[str]) -> str | None:
    """Returns what follows an option, if it is there."""
    for index, word in enumerate(words):
        if word == option and index + 1 < len(words):
            return words[index + 1]
        if word.startswith(option + "="):
            return word.split("=", 1)[1]
    return None


def print_results(
    results: Sequence[dict[str, Any]], run_dir: Path, generations: bool = False
) -> None:
    """Prints the table of a run, or of the generations of a chain."""
    if distributed.rank() > 0:
        return
    out = console()
    out.print(result_table(results, generations))
    out.print(f"curves: tensorboard --logdir {run_dir}", highlight=False, soft_wrap=True)
