"""`rltransfer teachers`: looks at a teacher before a run rests on it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro

from rltransfer.cli.parsing import choose, parse
from rltransfer.cli.task_options import TaskOptions, requested_suite
from rltransfer.errors import check_range
from rltransfer.machine.tables import FittedTable
from rltransfer.machine.terminal import console, print_line
from rltransfer.runs.evaluation_progress import EvaluationProgress
from rltransfer.runs.progress import Progress
from rltransfer.runs.report import with_interval
from rltransfer.runs.teacher_summary import TeacherSummary, summarize_teacher

COMMANDS = {
    "check": "Say what a teacher is, what it observes and does, and how well it plays.",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckOptions(TaskOptions):
    """Say what a teacher is, what it observes and does, and how well it plays."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A teacher, as for `train policy-distillation --teacher`."""
    vecnormalize: Path | None = None
    """Observation statistics of a Stable-Baselines3 zip, or "none"."""
    rescale_actions: bool = False
    """Scale continuous actions from the teacher's bounds to the task's."""
    episodes: int = 20
    """Episodes of each task, of the teacher and of a random policy."""
    num_envs: int = 64
    """Maximum number of parallel environments."""
    max_steps: int = 10_000
    """Steps after which an episode is cut."""
    seed: int = 0
    """Seed of the environments."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", ...; "auto" uses CUDA if available."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "episodes", "num_envs", "max_steps")
        check_range(self, "at least 0", "seed")


def run(words: list[str]) -> None:
    """Runs a command on teachers."""
    about = "Look at a teacher before a run rests on it."
    _, rest = choose("command", COMMANDS, words, "rltransfer teachers", about, COMMANDS.__getitem__)
    options = parse(CheckOptions, rest, "rltransfer teachers check")
    suite = requested_suite(options)
    with Progress(options.source, 0) as progress:
        found = summarize_teacher(
            options.source, suite, options.episodes, vecnormalize=options.vecnormalize,
            rescale_actions=options.rescale_actions, seed=options.seed, device=options.device,
            num_envs=options.num_envs, max_steps=options.max_steps,
            watcher=EvaluationProgress(progress, options.max_steps),
        )  # fmt: skip
    if options.json:
        print(json.dumps(found.to_json(), indent=1))
        return
    _show(found)


def _show(found: TeacherSummary) -> None:
    out = console()
    for name, value in found.rows():
        out.print(f"{name:<21} {value}", highlight=False, markup=False, soft_wrap=True)
    table = FittedTable(("task", "random", "teacher", "recorded", "episodes"), ("episodes",))
    for name, one in found.returns.items():
        recorded = found.spec.recorded_return.get(name)
        table.add_row(
            name,
            f"{found.random[name].mean:.1f}",
            with_interval(one.mean, one.ci95),
            "?" if recorded is None else f"{recorded:.1f}",
            str(len(one.returns)),
        )
    out.print(table)
    for sentence in found.warnings():
        print_line(sentence)
    out.print(f"train a student: {found.command}", highlight=False, markup=False, soft_wrap=True)
