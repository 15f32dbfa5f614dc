"""The shell's face: parses, calls, prints. Exit codes: 0 done, 2 bad input, 130 interrupted."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

import rltransfer
from rltransfer import distributed, registry
from rltransfer.benchmark_command import benchmark_command
from rltransfer.command_help import USAGE, asked_help
from rltransfer.errors import InputError, check_range, unknown
from rltransfer.evaluate_source import evaluate, run_suite
from rltransfer.evaluation import Evaluation
from rltransfer.export_command import export_command
from rltransfer.generations import Chain, generation_results
from rltransfer.options import parse
from rltransfer.report import brief_reader, console, result_table, with_interval
from rltransfer.run import InterruptedRunError, Run
from rltransfer.run_folder import RunOptions, configured, read_config
from rltransfer.task import Suite
from rltransfer.task_options import TaskOptions, asked_suite, with_options
from rltransfer.teacher import zoo_cards


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """How a policy is evaluated: SOURCE is a run directory, or any other teacher.

    Teachers are named as for `rltransfer train policy-distillation --teacher`.
    """

    task: str | None = None
    """Any Gymnasium id; if not given, a run's own tasks, or that of zoo:ID."""
    task_option: tuple[str, ...] = ()
    """Keyword arguments of the task."""
    vecnormalize: Path | None = None
    """Observation statistics (a VecNormalize pickle) of a Stable-Baselines3 zip."""
    episodes: int = 100
    """Whole episodes of each task."""
    num_envs: int = 64
    """Environments at once, at most."""
    seed: int = 0
    """Seed of the environments."""
    device: str = "auto"
    """"cpu", "cuda", ...; "auto" takes CUDA where it is there."""
    stochastic: bool = False
    """Whether to sample actions instead of taking the best."""
    json: bool = False
    """Whether to print JSON."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "episodes", "num_envs")
        check_range(self, "at least 0", "seed")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], None]] = {
        "list": list_command,
        "train": train_command,
        "evaluate": evaluate_command,
        "export": export_command,
        "benchmark": benchmark_command,
        "experiment": experiment_command,
    }
    told = asked_help(words) if words else USAGE
    if told is not None:
        with brief_reader():
            print(told, end="")
        return 0 if words else 2
    if words[0] == "--version":
        print(rltransfer.__version__)
        return 0
    try:
        if words[0] not in commands:
            raise unknown("command", words[0], commands)
        commands[words[0]](words[1:])
    except InputError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except InterruptedRunError as stopped:
        print(stopped, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    return 0


def list_command(words: list[str]) -> None:
    """Prints what there is."""
    from rltransfer.experiment import experiment_names

    sections: dict[str, list[str]] = {
        "agents": registry.method_names(),
        "suites": [f"{s.name}: {_listed(s)}" for s in registry.suites().values()],
        "teachers": [
            f"zoo:{card.task.id}, return {card.data['return_mean']:.1f}" for card in zoo_cards()
        ],
        "experiments": experiment_names(),
        "tasks": registry.task_ids(),
    }
    if words and words[0] not in sections:
        raise unknown("list", words[0], sections)
    _no_more(words[1:], "list NAME")
    with brief_reader():
        if words:
            print("\n".join(sections[words[0]]))
            return
        sections["tasks"] = [f"{len(sections['tasks'])}: `rltransfer list tasks` names them"]
        for name, rows in sections.items():
            print(name + "".join(f"\n  {row}" for row in rows))


def _no_more(words: list[str], command: str) -> None:
    """Checks that no words are left over.

    Raises:
        InputError: There are some.
    """
    if words:
        raise InputError(f"{words[0]!r} is one word too many: say `rltransfer {command}`.")


def _listed(suite: Suite) -> str:
    """Returns a suite's ids, each once: tasks may differ in keyword arguments alone."""
    counts = Counter(task.id for task in suite)
    return ", ".join(f"{count} x {id_}" if count > 1 else id_ for id_, count in counts.items())


def train_command(words: list[str]) -> None:
    """Trains an agent."""
    if not words or words[0].startswith("-"):
        raise InputError(
            "`rltransfer train` needs an agent, before its options: "
            f"{', '.join(registry.method_names())}."
        )
    name, rest = words[0], words[1:]
    method_class = registry.find_method(name)
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
        suite = asked_suite(made.run)
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
        suite = asked_suite(made.run)
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


def evaluate_command(words: list[str]) -> None:
    """Evaluates a run's policy or a teacher."""
    prog = "rltransfer evaluate"
    if words and not words[0].startswith("-"):
        source, rest = words[0], words[1:]
    elif {"-h", "--help"} & set(words):
        source, rest, prog = "", words, f"{prog} SOURCE"
    else:
        raise InputError(
            "`rltransfer evaluate` needs a run directory or a teacher, e.g. a Stable-Baselines3 "
            "zip, before its options."
        )
    options = parse(EvaluateOptions, rest, prog)
    found = _evaluated(source, options)
    if options.json:
        tasks = {
            name: {
                "return_mean": one.mean,
                "return_ci95": one.ci95 if math.isfinite(one.ci95) else None,
                "return_std": statistics.pstdev(one.returns),
                "episodes": len(one.returns),
                "length_mean": statistics.fmean(one.lengths),
                "returns": list(one.returns),
            }
            for name, one in found.items()
        }
        print(json.dumps({"source": source, "seed": options.seed, "tasks": tasks}, indent=1))
        return
    table = Table("task", "return", "episodes")
    for name, one in found.items():
        table.add_row(name, with_interval(one.mean, one.ci95), str(len(one.returns)))
    console().print(table)


def _evaluated(source: str, options: EvaluateOptions) -> dict[str, Evaluation]:
    """Returns the evaluations of a run's policy or of a teacher, by task."""
    if options.task in registry.suites():
        raise InputError(
            f"{options.task!r} is a suite: evaluate one task of it, as in "
            f"--task {registry.find_suite(options.task).tasks[0].id}."
        )
    asked = None if options.task is None else Suite.of(options.task)
    if options.task_option:
        if asked is None and os.path.isdir(source):
            asked = run_suite(Path(source))
        elif asked is None:
            raise InputError("--task-option changes a task: add --task ID.")
        asked = with_options(asked, options.task_option)
    return evaluate(
        source, asked, options.episodes, vecnormalize=options.vecnormalize, seed=options.seed,
        device=options.device, deterministic=not options.stochastic, num_envs=options.num_envs,
    )  # fmt: skip


def experiment_command(words: list[str]) -> None:
    """Lists the experiments, or runs one."""
    from rltransfer.experiment import experiments, find_experiment

    if words[:1] == ["list"]:
        _no_more(words[1:], "experiment list")
        with brief_reader():
            for name, entry in experiments().items():
                print(f"{name}: {(entry.__doc__ or '').splitlines()[0]}")
    elif words[:1] == ["run"] and len(words) > 1:
        kind = find_experiment(words[1])
        parse(kind, words[2:], f"rltransfer experiment run {words[1]}").run()
    else:
        raise InputError("Say `rltransfer experiment list` or `rltransfer experiment run NAME`.")


def print_results(
    results: Sequence[dict[str, Any]], run_dir: Path, generations: bool = False
) -> None:
    """Prints the table of a run, or of the generations of a chain."""
    if distributed.rank() > 0:
        return
    out = console()
    out.print(result_table(results, generations))
    out.print(f"curves: tensorboard --logdir {run_dir}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
