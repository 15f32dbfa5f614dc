"""Born-again networks: a chain of runs, each trained by the previous one.

A chain is a folder:

    config.json       the options, and the number of generations
    generation-1/     ordinary runs, with configuration, curves, checkpoints and result
    generation-2/
    ...
    result.json       the last generation's result

All generations have the same options. The first learns from the given teacher, each other one from
the final policy of the previous run. The seed of generation k is the given seed plus
(k - 1) * `SEED_STEP`, for other initial weights, environments and orders of samples.

Source: Furlanello 2018 (arXiv 1805.04770), section 3, its sequence of teaching selves. Differs from
the paper: there are no labels of data besides the teacher's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rltransfer.errors import InputError, InterruptedRunError, check_number
from rltransfer.files.checkpoint import generation_folder
from rltransfer.files.untrusted import read_json
from rltransfer.learning.agent import Method
from rltransfer.machine import distributed
from rltransfer.options import whole_number
from rltransfer.rollouts.engine import closed_if_refused
from rltransfer.runs.callbacks import Callback
from rltransfer.runs.config import RunOptions, settings, with_total_steps
from rltransfer.runs.folder import (
    make_folder,
    several_runs,
    write_json,
)
from rltransfer.runs.run import Run
from rltransfer.tasks.task import Suite

SEED_STEP = 100_000
"""Distance between the seeds of two generations, larger than between seeds of repetitions."""


@dataclass(frozen=True)
class Chain:
    """Generations of one method, each the next one's teacher.

    Args:
        name: The method's name.
        method: The first generation's method, with a field `teacher`.
        suite: The tasks.
        options: The first generation's options; each generation runs for `total_steps`.
        folder: The chain's folder.
        quiet: Whether to hide the progress.
        callbacks: Functions that each generation's run calls.
        generations: Number of generations.

    Raises:
        InputError: `generations` is less than 1, or the method has no teacher.
    """

    name: str
    method: Method
    suite: Suite
    options: RunOptions
    folder: Path
    quiet: bool = False
    callbacks: Sequence[Callback] = ()
    generations: int = field(kw_only=True)

    def __post_init__(self) -> None:
        number = whole_number("generations", self.generations, "at least 1")
        check_number("generations", number, "at most 10,000")
        object.__setattr__(self, "generations", number)
        options = with_total_steps(self.options, self.method, self.suite)
        object.__setattr__(self, "options", options)
        if not hasattr(self.method, "teacher"):
            raise no_teacher(self.name)

    def config(self) -> dict[str, Any]:
        """The settings and the number of generations, as JSON."""
        single = settings(self.name, self.method, self.suite, self.options)
        return {**single, "generations": self.generations}

    def train(self, resume: bool = False) -> Run:
        """Trains all generations that are not finished, and returns the last one's run.

        Args:
            resume: Whether to resume the chain in the folder.

        Raises:
            InterruptedRunError: Ctrl-C or SIGTERM stopped the run after a checkpoint.
            InputError: See `train`; nothing was written.
        """
        with several_runs(self.folder, self.config(), self.options, resume) as held:
            return self._train(resume, held)

    def _train(self, resume: bool, held: contextlib.ExitStack) -> Run:
        try:
            for number in range(1, self.generations):
                if not (generation_folder(self.folder, number) / "result.json").exists():
                    # Without a reference to the run, its memory is freed before the next one.
                    self._begin(number, resume, held).execute()
            last = self._begin(self.generations, resume, held)
            last.execute()
        except InterruptedRunError as stopped:
            raise InterruptedRunError(self.name, self.folder, stopped.number) from None
        if distributed.rank() == 0:
            write_json(self.folder / "result.json", last.result)
        return last

    def _begin(self, number: int, resume: bool, held: contextlib.ExitStack) -> Run:
        """Starts a generation's run, or resumes it if its folder exists."""
        run_dir = generation_folder(self.folder, number)
        seed = self.options.seed + SEED_STEP * (number - 1)
        options = dataclasses.replace(self.options, seed=seed)
        run = Run(
            self.name, self._method(number), self.suite, options, run_dir, self.quiet,
            self.callbacks,
        )  # fmt: skip
        if number == 1 and not resume:
            with closed_if_refused(run.engine):
                if self.generations > 1 and run.agent.policy.state_size:
                    raise InputError(
                        "A recurrent student cannot teach the next generation, as its state is "
                        "not stored with the observations: use a student without --gru."
                    )
                # Written only now: the first run is built, and nothing was refused.
                if distributed.rank() == 0:
                    held.enter_context(make_folder(self.folder, self.config()))
        # Checked before any process may create it.
        exists = (run_dir / "config.json").exists()
        distributed.wait()
        # The chain's folder may have moved, and the previous generation with it.
        run.begin(resume=exists, teacher_moves=number > 1)
        return run

    def _method(self, number: int) -> Method:
        if number == 1:
            return self.method
        changes: dict[str, Any] = {"teacher": str(generation_folder(self.folder, number - 1))}
        if hasattr(self.method, "vecnormalize"):
            changes["vecnormalize"] = None  # these are statistics of the first teacher
        if hasattr(self.method, "rescale_actions"):
            changes["rescale_actions"] = False  # its student acts in the bounds of the task
        return dataclasses.replace(self.method, **changes)


def no_teacher(name: str) -> InputError:
    """The error for a chain of a method without a teacher."""
    return InputError(
        f"{name} has no teacher, so a generation cannot learn from the previous one: use "
        "policy-distillation, or leave out --generations."
    )


def generation_results(folder: Path) -> list[dict[str, Any]]:
    """The results of a chain's finished generations, in their order."""
    paths = (generation_folder(folder, number) / "result.json" for number in itertools.count(1))
    return [read_json(path) for path in itertools.takewhile(Path.exists, paths)]
