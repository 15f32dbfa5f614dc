"""`rltransfer evaluate`: plays whole episodes with a run's policy or any other teacher."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from pathlib import Path
from typing import Annotated

import tyro

from rltransfer.cli.parsing import parse
from rltransfer.cli.task_options import transform_words, with_options
from rltransfer.errors import InputError, check_range
from rltransfer.files.checkpoint_names import FINAL
from rltransfer.files.reading import is_folder
from rltransfer.machine.tables import FittedTable
from rltransfer.machine.terminal import console, print_line
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.rollouts.evaluation import LONGEST, Evaluation
from rltransfer.runs.evaluate import evaluate, run_suite
from rltransfer.runs.evaluation_progress import EvaluationProgress
from rltransfer.runs.progress import Progress
from rltransfer.runs.report import with_interval
from rltransfer.tasks import families
from rltransfer.tasks.normalising import describe_normalising
from rltransfer.tasks.task import Suite


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Play whole episodes with a policy and report its returns."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A run directory or a teacher, as for `train policy-distillation --teacher`."""
    task: str | None = None
    """Any Gymnasium id. Defaults to the tasks of the run, or to the task of zoo:ID."""
    task_option: tuple[str, ...] = ()
    """Keyword arguments of the task, as NAME=VALUE."""
    transform: str = ""
    """How images are transformed before the policy sees them, as for `train`."""
    vecnormalize: Path | None = None
    """Observation statistics (a VecNormalize pickle) of a Stable-Baselines3 zip, or "none". By
    default, those next to the zip are used, as rl-zoo stores them."""
    rescale_actions: bool = False
    """Scale continuous actions from the policy's bounds to the task's, which are else refused if
    they differ."""
    checkpoint: str = FINAL
    """Of a run: "final", the newest checkpoint; "best", the best policy by the evaluations during
    training; or the environment steps of a checkpoint."""
    episodes: int = 100
    """Episodes of each task."""
    num_envs: int = 64
    """Maximum number of parallel environments, which with --seed determines the episodes."""
    max_steps: int = LONGEST
    """Steps after which an episode is cut."""
    seed: int = 0
    """Seed of the environments."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", ...; "auto" uses CUDA if available."""
    stochastic: bool = False
    """Sample actions instead of choosing the most likely one."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "episodes", "num_envs", "max_steps")
        check_range(self, "at least 0", "seed")


def run(words: list[str]) -> None:
    """Evaluates a run's policy or a teacher."""
    options = parse(EvaluateOptions, words, "rltransfer evaluate")
    evaluations = _evaluate(options)
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
            for name, one in evaluations.items()
        }
        played = {"checkpoint": options.checkpoint} if is_folder(options.source) else {}
        found = {"source": options.source, **played, "seed": options.seed, "tasks": tasks}
        print(json.dumps(found, indent=1))
        return
    table = FittedTable(("task", "return", "episodes"), optional=("episodes",))
    for name, one in evaluations.items():
        table.add_row(name, with_interval(one.mean, one.ci95), str(len(one.returns)))
    console().print(table)


def _evaluate(options: EvaluateOptions) -> dict[str, Evaluation]:
    if options.task in families.suites():
        raise InputError(
            f"{options.task!r} is a suite: evaluate one of its tasks, e.g. "
            f"--task {families.find_suite(options.task).tasks[0].id}."
        )
    suite = None if options.task is None else Suite.of(options.task)
    words = (*options.task_option, *transform_words(options.transform))
    if words:
        if suite is None and is_folder(options.source):
            suite = run_suite(Path(options.source))
        elif suite is None:
            raise InputError("--task-option and --transform change a task: add --task ID.")
        suite = with_options(suite, words)
    with Progress(options.source, 0) as progress:
        return evaluate(
            options.source, suite, options.episodes, checkpoint=options.checkpoint,
            vecnormalize=options.vecnormalize, rescale_actions=options.rescale_actions,
            seed=options.seed, device=options.device, deterministic=not options.stochastic,
            num_envs=options.num_envs, max_steps=options.max_steps,
            watcher=_Watcher(progress, options),
        )  # fmt: skip


class _Watcher(EvaluationProgress):
    """Says how much is played, shows the progress, and what each task's wrappers normalise."""

    def __init__(self, progress: Progress, options: EvaluateOptions) -> None:
        super().__init__(progress, options.max_steps)
        which = "" if options.checkpoint == FINAL else f", checkpoint {options.checkpoint}"
        self._announcement = (
            f"{options.source}{which}  {options.episodes} episodes per task, each of at most "
            f"{options.max_steps:,} steps"
        )

    def begin(self, engine: RolloutEngine) -> None:
        """See `Watcher`."""
        if self._announcement:
            print_line(self._announcement)
            self._announcement = ""
        sentence = describe_normalising(engine.env_slices[0].env, engine.suite.tasks[0].id)
        if sentence:
            print_line(sentence)
