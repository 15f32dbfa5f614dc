"""`rltransfer sensitivity`: how much a policy depends on each layer of each column."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro

from rltransfer.cli.parsing import parse
from rltransfer.errors import InputError, check_range
from rltransfer.files.checkpoint_names import FINAL
from rltransfer.machine.tables import FittedTable
from rltransfer.machine.terminal import console, print_line
from rltransfer.rollouts.evaluation import LONGEST
from rltransfer.runs.evaluation_progress import EvaluationProgress
from rltransfer.runs.progress import Progress
from rltransfer.runs.sensitivity import MOST_NOISE, Sensitivity, sensitivity
from rltransfer.runs.sensitivity_files import check_free, write_sensitivity
from rltransfer.tasks import families


@dataclasses.dataclass(frozen=True, kw_only=True)
class SensitivityOptions:
    """Measure how much a run's policy depends on each layer of each of its columns."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A run directory, of progressive networks or of another method; the latter has one column."""
    task: str | None = None
    """Any Gymnasium id. Defaults to the run's task."""
    episodes: int = 10
    """Episodes for each noise, and of those that the states are from."""
    states: int = 4_096
    """States on which the Fisher sensitivity is measured."""
    fisher_only: bool = False
    """Leave out the perturbation sensitivity, which plays the episodes about ten times for each
    layer of each column."""
    out: Path | None = None
    """Write sensitivity.json, a picture and TensorBoard curves into this folder. An existing folder
    is never overwritten."""
    checkpoint: str = FINAL
    """"final", the newest checkpoint; "best", the best policy by the evaluations during training;
    or the environment steps of a checkpoint."""
    max_steps: int = LONGEST
    """Steps after which an episode is cut."""
    seed: int = 0
    """Seed of the environments, the states and the noise."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", ...; "auto" uses CUDA if available."""
    stochastic: bool = False
    """Sample actions instead of choosing the most likely one."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "episodes", "states", "max_steps")
        check_range(self, "at most 1,024", "episodes")
        check_range(self, "at most 1,000,000", "states")
        check_range(self, "at least 0", "seed")


def run(words: list[str]) -> None:
    """Measures the sensitivities of a run's policy."""
    options = parse(SensitivityOptions, words, "rltransfer sensitivity")
    if options.out is not None:
        check_free(options.out)
    if options.task in families.suites():
        raise InputError(
            f"{options.task!r} is a suite: pass one of its tasks, e.g. "
            f"--task {families.find_suite(options.task).tasks[0].id}."
        )
    with Progress(str(options.run), 0) as progress:
        measured = sensitivity(
            options.run, options.task, episodes=options.episodes, states=options.states,
            checkpoint=options.checkpoint, seed=options.seed, device=options.device,
            deterministic=not options.stochastic, fisher_only=options.fisher_only,
            max_steps=options.max_steps, watcher=EvaluationProgress(progress, options.max_steps),
        )  # fmt: skip
    found = {
        "run": str(options.run),
        "checkpoint": options.checkpoint,
        "seed": options.seed,
        "episodes": options.episodes,
        **measured.to_json(),
    }
    if options.out is not None:
        write_sensitivity(found, measured, options.out)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    _show(measured)
    if options.out is not None:
        print_line(f"written: {options.out}")


def _show(measured: Sensitivity) -> None:
    heads = ["layer", "column", "Fisher sensitivity"]
    perturbed = measured.return_mean is not None
    if perturbed:
        heads += ["perturbation sensitivity", "noise that halves the return"]
    table = FittedTable(heads, names_task=False, title=measured.task)
    for one in measured.layers:
        cells = [str(one.layer), str(one.column), f"{one.fisher:.3f}"]
        if one.perturbation is not None:
            noise = f"> {MOST_NOISE:,.0f}" if one.noise is None else f"{one.noise:.3g}"
            cells += [f"{one.perturbation:.3f}", noise]
        table.add_row(*cells)
    out = console()
    out.print(table)
    if measured.return_mean is not None and measured.random_return_mean is not None:
        out.print(
            f"return {measured.return_mean:.3g}, of a random policy "
            f"{measured.random_return_mean:.3g}; noise in standard deviations of each feature",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
