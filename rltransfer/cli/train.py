"""`rltransfer train`: trains an agent, or resumes a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rltransfer.cli.parsing import choose, parse, summary, with_method
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
    """Tasks and run directory."""

    run_dir: Path | None = None
    """Directory of the run; defaults to runs/AGENT-TASK-SEED."""
    resume: Path | None = None
    """Directory of a run to resume with its original settings."""
    quiet: bool = False
    """Hide progress."""
    generations: int = 0
    """Students in a chain, each the teacher of the next (Furlanello 2018); 0 for a single run.
    Each trains for --total-steps, in RUN_DIR/generation-1, RUN_DIR/generation-2, ..."""


def run(words: list[str]) -> None:
    """Trains an agent."""
    name, options = choose_agent(words, "rltransfer train", "Train an agent.")
    prog = f"rltransfer train {name}"
    kind = with_method(methods.find_method(name), run=TrainOptions(), training=RunOptions())
    resumed = _value_of("--resume", options)
    made: Any
    if resumed is None:
        made = parse(kind, options, prog)
        suite = requested_suite(made.run)
        default = Path("runs") / f"{name}-{suite.name.replace('/', '-')}-{made.training.seed}"
        run_dir = made.run.run_dir or default
    else:
        run_dir = Path(resumed)
        made, suite = _resumed(kind, name, run_dir, options, prog)
    settings = (name, made.method, suite, made.training, run_dir, made.run.quiet)
    if made.run.generations:
        Chain(*settings, generations=made.run.generations).train(resumed is not None)
        print_results(generation_results(run_dir), run_dir, generations=True)
        return
    training = Run(*settings)
    # A teacher that is given again may have moved: then its weights must be the same.
    training.begin(resumed is not None, teacher_moves=_value_of("--teacher", options) is not None)
    training.execute()
    print_results([training.result], run_dir)


def choose_agent(words: Sequence[str], prog: str, about: str) -> tuple[str, list[str]]:
    """The agent that the first word names, and its options."""
    return choose(
        "agent", methods.method_names(), words, prog, about,
        lambda name: summary(methods.find_method(name)),
    )  # fmt: skip


def _resumed(
    kind: type[Any], name: str, folder: Path, words: list[str], prog: str
) -> tuple[Any, Suite]:
    """The options and tasks of a resumed run: those of its folder, unless others are given."""
    config = read_config(folder)
    if config["agent"] != name:
        raise InputError(
            f"{folder} is a run of the agent {config['agent']!r}: "
            f"use `rltransfer train {config['agent']} --resume {folder}`."
        )
    method, suite, options = configured(config)
    same = TrainOptions(generations=config.get("generations", 0))
    made = parse(kind, words, prog, kind(run=same, method=method, training=options))
    if made.run.run_dir not in (None, folder):
        raise InputError(f"A run resumes in its own directory, {folder}: omit --run-dir.")
    if made.run.suite is not None or made.run.task:
        suite = requested_suite(made.run)
    elif made.run.task_option:
        raise InputError(f"{folder} resumes with its own tasks: omit --task-option.")
    return made, suite


def _value_of(option: str, words: list[str]) -> str | None:
    for index, word in enumerate(words):
        name, sign, value = word.partition("=")
        if name == option:
            return value if sign else next(iter(words[index + 1 :]), None)
    return None


def print_results(results: list[dict[str, Any]], run_dir: Path, generations: bool = False) -> None:
    """Prints the table of a run, or of the generations of a chain."""
    if distributed.rank() > 0:
        return
    out = console()
    if results[-1]["final_evaluation"]:
        out.print(result_table(results, generations))
    else:
        out.print("no final evaluation, as --episodes is 0")
    out.print(f"curves: tensorboard --logdir {run_dir}", highlight=False, soft_wrap=True)
