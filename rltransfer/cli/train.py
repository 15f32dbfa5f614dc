"""`rltransfer train`: trains an agent, or resumes a run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rltransfer.cli.parsing import choose, parse, with_method
from rltransfer.cli.task_options import (
    TaskOptions,
    option_words,
    requested_suite,
    with_options,
    with_timeout,
)
from rltransfer.entry_points import entries, load_entry, summarize
from rltransfer.errors import InputError
from rltransfer.files.untrusted import damage_refused
from rltransfer.learning import methods
from rltransfer.machine import distributed
from rltransfer.machine.tables import FittedTable
from rltransfer.machine.terminal import console, print_line
from rltransfer.options import path_value
from rltransfer.runs.config import SOURCES, RunOptions, configured, read_config
from rltransfer.runs.config_file import changed_weights, read_config_file, settings_of
from rltransfer.runs.generations import Chain, generation_results, no_teacher
from rltransfer.runs.report import result_table, with_interval
from rltransfer.runs.run import Run
from rltransfer.runs.sequence import SEQUENTIAL, TaskSequence, check_sequence, evaluations
from rltransfer.tasks.task import Suite

TRAINERS = "rltransfer.trainers"
"""The group of entry points of what trains by itself: dataclasses of options with a `run`."""
LONGEST_NAME = 100
"""Bytes of the tasks in the name of a folder; longer lists of tasks are shortened."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(TaskOptions):
    """Tasks and run directory."""

    run_dir: Path | None = None
    """Directory of the run; defaults to runs/AGENT-TASK-SEED, shortened for many tasks."""
    config: Path | None = None
    """Start a run with the options and tasks of a file: the config.json of another run, or a part
    of one. Other options on the command line replace its own."""
    resume: Path | None = None
    """Directory of a run to resume with its original settings. More --total-steps extend it;
    --episodes, --device, --threads and the options of checkpoints and evaluations may change."""
    quiet: bool = False
    """Hide progress."""
    sequential: bool = False
    """Learn the tasks one after the other, each for --total-steps, in RUN_DIR/task-1,
    RUN_DIR/task-2, ..., and evaluate on all tasks so far."""
    compress_steps: int = 0
    """With --sequential, steps of the distillation of each column into a knowledge base, which the
    next column sees instead (Progress & Compress, Schwarz 2018); 0 for none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainOptions(TrainOptions):
    """Tasks and run directory."""

    generations: int = 0
    """Students in a chain, each the teacher of the next (Furlanello 2018); 0 for a single run.
    Each trains for --total-steps, in RUN_DIR/generation-1, RUN_DIR/generation-2, ..."""


def run(words: list[str]) -> None:
    """Trains an agent."""
    if words and words[0].startswith("-"):
        words = [*_agent_of(words), *words]
    trainers = {entry.name: entry for entry in entries(TRAINERS)}
    name, options = choose(
        "agent", [*methods.method_names(), *trainers], words, "rltransfer train",
        "Train an agent.",
        lambda one: summarize(trainers[one]) if one in trainers else methods.summarize_method(one),
    )  # fmt: skip
    if name in trainers:
        parse(load_entry(trainers[name]), options, f"rltransfer train {name}").run()
        return
    prog = f"rltransfer train {name}"
    method = methods.find_method(name)
    # Only a method with a teacher can learn from the previous generation.
    has_teacher = any(field.name == "teacher" for field in dataclasses.fields(method))
    folder = ChainOptions if has_teacher else TrainOptions
    if not has_teacher and _value_of("--generations", options) is not None:
        raise no_teacher(name)
    kind = with_method(method, run=folder(), training=RunOptions())
    resumed, config = (_value_of(option, options) for option in ("--resume", "--config"))
    if resumed is not None and config is not None:
        raise InputError("--config starts a run, --resume continues one: pass only one of them.")
    made: Any
    if resumed is not None:
        run_dir = path_value("--resume", resumed)
        made, suite = _resumed(kind, name, run_dir, options, prog)
    else:
        if config is not None:
            made, suite = _configured(kind, name, path_value("--config", config), options, prog)
        else:
            made = parse(kind, options, prog)
            suite = requested_suite(made.run)
        run_dir = made.run.run_dir or default_folder(name, suite, made.training.seed)
    if resumed is not None or config is not None:
        _check_folders(made.method, run_dir, options)
    settings = (name, made.method, suite, made.training, run_dir, made.run.quiet)
    check_sequence(
        made.run.sequential, made.run.compress_steps, getattr(made.run, "generations", 0)
    )
    if made.run.sequential:
        sequence = TaskSequence(*settings, compress_steps=made.run.compress_steps)
        sequence.train(resumed is not None)
        print_sequence(run_dir)
        return
    if generations := getattr(made.run, "generations", 0):
        Chain(*settings, generations=generations).train(resumed is not None)
        print_results(generation_results(run_dir), run_dir, generations=True)
        return
    training = Run(*settings)
    if config is not None and _value_of("--teacher", options) is None:
        _compare_teacher(Path(config), training)
    # A teacher that is given again may have moved: then its weights must be the same.
    training.begin(resumed is not None, teacher_moves=_value_of("--teacher", options) is not None)
    training.execute()
    print_results([training.result], run_dir)


def choose_agent(words: Sequence[str], prog: str, about: str) -> tuple[str, list[str]]:
    """The agent that the first word names, and its options."""
    return choose(
        "agent", methods.method_names(), words, prog, about,
        methods.summarize_method,
    )  # fmt: skip


def _agent_of(words: Sequence[str]) -> list[str]:
    """The agent of a command that begins with an option: that of the run or the file it names."""
    if resumed := _value_of("--resume", words):
        return [str(read_config(path_value("--resume", resumed))["agent"])]
    if config := _value_of("--config", words):
        return [str(read_config_file(path_value("--config", config))["agent"])]
    return []


def _configured(
    kind: type[Any], name: str, path: Path, words: list[str], prog: str
) -> tuple[Any, Suite]:
    """The options and tasks of a configuration file, unless others are given."""
    entries = read_config_file(path)
    agent, count = entries["agent"], entries.get("generations", 0)
    if agent != name:
        raise InputError(
            f"{path} is a configuration of the agent {agent!r}: use `rltransfer train {agent} "
            f"--config {path}`."
        )
    method, suite, options = settings_of(path, entries, _value_of("--teacher", words))
    if count and not hasattr(method, "teacher"):
        raise no_teacher(name)
    same = _stored_options(entries, method)
    made = parse(kind, words, prog, kind(run=same, method=method, training=options))
    if suite is None or made.run.suite is not None or made.run.task:
        requested = requested_suite(made.run)
        if suite is None or [task.id for task in requested] != [task.id for task in suite]:
            return made, requested
        # The user names the tasks of the file, and so trusts them.
        suite = dataclasses.replace(suite, tasks=tuple(task.trusted() for task in suite))
    return made, with_timeout(with_options(suite, option_words(made.run)), made.run)


def _stored_options(config: Mapping[str, Any], method: Any) -> TrainOptions:
    """The options of a chain or a sequence that a configuration contains."""
    sequence = config.get(SEQUENTIAL)
    steps = sequence.get("compress_steps", 0) if isinstance(sequence, Mapping) else 0
    given: dict[str, Any] = {"sequential": sequence is not None, "compress_steps": steps}
    if hasattr(method, "teacher"):
        return ChainOptions(generations=config.get("generations", 0), **given)
    return TrainOptions(**given)


def _compare_teacher(path: Path, training: Run) -> None:
    """Says whether a teacher or a column has other weights than in a configuration file."""
    described, entries = training.config(), read_config_file(path)
    changed = []
    with damage_refused(f"{path} is not a configuration: its sources are damaged."):
        if changed_weights(entries.get("teacher"), described["teacher"]):
            changed.append(f"The teacher {training.agent.teacher}")
        known = {one["source"]: one["sha256"] for one in entries.get(SOURCES, ())}
        changed += [
            one["source"]
            for one in training.agent.sources
            if known.get(one["source"], one["sha256"]) != one["sha256"]
        ]
    for name in changed:
        print_line(f"{name} has other weights than in {path}.", quiet=distributed.rank() > 0)


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
    same = _stored_options(config, method)
    made = parse(kind, words, prog, kind(run=same, method=method, training=options))
    if made.run.run_dir not in (None, folder):
        raise InputError(f"A run resumes in its own directory, {folder}: omit --run-dir.")
    if made.run.suite is not None or made.run.task:
        requested = requested_suite(made.run)
        ids = [task.id for task in requested]
        if option_words(made.run) or ids != [task.id for task in suite]:
            suite = requested  # refused if the run has others
        else:
            suite = dataclasses.replace(suite, tasks=tuple(task.trusted() for task in suite))
    elif option_words(made.run):
        option = "--task-option" if made.run.task_option else "--transform"
        raise InputError(f"{folder} resumes with its own tasks: omit {option}.")
    return made, with_timeout(suite, made.run)


def _check_folders(method: Any, run_dir: Path, words: Sequence[str]) -> None:
    """Checks that no folder outside of a run's own is written to that only a file names.

    Raises:
        InputError: One would be.
    """
    given = {word.partition("=")[0].replace("_", "-") for word in words}
    for name in (field.name for field in dataclasses.fields(method) if field.name.endswith("_dir")):
        option, value = f"--{name.replace('_', '-')}", getattr(method, name)
        inside = value is None or value.resolve().is_relative_to(run_dir.resolve())
        if not inside and option not in given:
            raise InputError(
                f"The configuration of this run names the folder {value} as {name}, which is "
                f"outside of {run_dir}: if training may write there, add {option} {value}."
            )


def default_folder(name: str, suite: Suite, seed: int) -> Path:
    """The run directory if none is given, with a name that every file system allows."""
    tasks = suite.name.replace("/", "-")
    if len(tasks.encode()) > LONGEST_NAME:
        first = tasks.partition("+")[0].encode()[:LONGEST_NAME].decode(errors="ignore")
        others = f"+{len(suite) - 1}" if len(suite) > 1 else ""
        tasks = f"{first}{others}-{hashlib.sha256(suite.name.encode()).hexdigest()[:8]}"
    return Path("runs") / f"{name}-{tasks}-{seed}"


def _value_of(option: str, words: Sequence[str]) -> str | None:
    for index, word in enumerate(words):
        name, sign, value = word.partition("=")
        if name == option:
            return value if sign else next(iter(words[index + 1 :]), None)
    return None


def print_sequence(run_dir: Path) -> None:
    """Prints the returns of a sequence after each of its tasks."""
    if distributed.rank() > 0:
        return
    out, found = console(), evaluations(run_dir)
    if found:
        table = FittedTable(("task", "when learned", "at the end"))
        for number, name in enumerate(found[-1]):
            ends = (found[number][name], found[-1][name])
            table.add_row(name, *(with_interval(e["return_mean"], e["return_ci95"]) for e in ends))
        out.print(table)
    else:
        out.print("no evaluations, as --episodes is 0")
    out.print(f"curves: tensorboard --logdir {run_dir}", highlight=False, soft_wrap=True)


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
