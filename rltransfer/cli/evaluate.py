"""The `evaluate` command."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
from pathlib import Path

from rich.table import Table

from rltransfer.cli.parsing import parse
from rltransfer.cli.task_options import with_options
from rltransfer.errors import InputError, check_range
from rltransfer.machine.terminal import console
from rltransfer.rollouts.evaluation import Evaluation
from rltransfer.runs.evaluate import evaluate, run_suite
from rltransfer.runs.report import with_interval
from rltransfer.tasks import families
from rltransfer.tasks.task import Suite


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
    if options.task in families.suites():
        raise InputError(
            f"{options.task!r} is a suite: evaluate one task of it, as in "
            f"--task {families.find_suite(options.task).tasks[0].id}."
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
