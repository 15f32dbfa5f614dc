"""Born-again networks: a chain of runs, each of which learns from the one before it.

A chain is a folder:

    config.json       what was asked for, and the number of generations
    generation-1/     ordinary runs, each with its own configuration, curves, checkpoints and result
    generation-2/
    ...
    result.json       the last generation's, once it is there

All generations have the same options. The first learns from the teacher that was asked for, every
other from the policy that the run before it ended with. Generation k's seed is that which was asked
for plus (k - 1) * `SEED_STEP`: its student starts from other weights, in other environments, and
draws its samples in another order.

Source: Furlanello 2018 (arXiv 1805.04770), section 3, its sequence of teaching selves. Differs from
the paper: there is no data with labels beside the teacher's; what a student learns from is its
method's affair.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

from rltransfer.errors import InputError, InterruptedRunError
from rltransfer.files import atomic
from rltransfer.files.checkpoint import generation_folder
from rltransfer.learning.agent import Method
from rltransfer.machine import distributed
from rltransfer.rollouts.engine import closed_if_refused
from rltransfer.runs.config import RunOptions, settings
from rltransfer.runs.folder import check_free, check_same, io_errors_as_input_errors, make_folder
from rltransfer.runs.run import Run, format_stop
from rltransfer.tasks.task import Suite

SEED_STEP = 100_000
"""How far the seeds of two generations are apart: further than those of anyone's repetitions."""


class Chain:
    """Generations of one method, each the next one's teacher.

    Args:
        name: The method's name.
        method: The first generation's method; it has a field `teacher`.
        suite: The tasks.
        options: The first generation's options; the steps are each generation's.
        folder: Where the runs are.
        quiet: Whether to show no progress.
        generations: How many there are.

    Raises:
        InputError: There is no generation, or the method has no teacher.
    """

    def __init__(
        self,
        name: str,
        method: Method,
        suite: Suite,
        options: RunOptions,
        folder: Path,
        quiet: bool = False,
        *,
        generations: int,
    ) -> None:
        if generations < 1:
            raise InputError(
                f"generations is {generations}: it must be at least 1, or 0 for a run by itself."
            )
        if "teacher" not in _fields(method):
            raise InputError(
                f"{name} has no teacher, so that no generation could learn from the one before it: "
                "take a method that distils, or leave out the generations."
            )
        self.name = name
        self.method = method
        self.suite = suite
        self.options = options
        self.folder = folder
        self.quiet = quiet
        self.generations = generations

    def config(self) -> dict[str, Any]:
        """Returns everything that was asked for, as JSON."""
        asked = settings(self.name, self.method, self.suite, self.options)
        return {**asked, "generations": self.generations}

    def train(self, resume: bool = False) -> Run:
        """Trains every generation that is not done yet, and returns the last one's run.

        Args:
            resume: Whether to go on with the chain that the folder holds.

        Raises:
            InterruptedRunError: Ctrl-C or SIGTERM came; a checkpoint was written.
            InputError: See `train` of `run.py`; nothing was written.
        """
        if resume:
            check_same(self.folder, self.config())
        elif distributed.rank() == 0:
            check_free(self.folder)
        try:
            for number in range(1, self.generations):
                if not (generation_folder(self.folder, number) / "result.json").exists():
                    # Nobody holds on to this run: the next generation has memories of its own.
                    self._begun(number, resume).execute()
            last = self._begun(self.generations, resume)
            last.execute()
        except InterruptedRunError:
            raise InterruptedRunError(format_stop(self.name, self.folder)) from None
        if distributed.rank() == 0:
            text = json.dumps(last.result, indent=1) + "\n"
            with io_errors_as_input_errors(self.folder):
                atomic.write_text_whole(self.folder / "result.json", text)
        return last

    def _begun(self, number: int, resume: bool) -> Run:
        """Returns a generation's run: a new one, or the one that was interrupted."""
        run_dir = generation_folder(self.folder, number)
        method, options = self._method(number), self._options(number)
        run = Run(self.name, method, self.suite, options, run_dir, self.quiet)
        if number == 1 and not resume:
            with closed_if_refused(run.engine):
                self._check_student(run)
                # The first run could be built: whatever can be refused has been.
                if distributed.rank() == 0:
                    make_folder(self.folder, self.config())
        # Looked for before any process may make it.
        was_there = (run_dir / "config.json").exists()
        distributed.wait()
        # The folder of the chain may have been moved, and with it the run before.
        run.begin(resume=was_there, teacher_moves=number > 1)
        return run

    def _method(self, number: int) -> Method:
        """Returns a generation's method: the one that was asked for, with its own teacher."""
        if number == 1:
            return self.method
        changes: dict[str, Any] = {"teacher": str(generation_folder(self.folder, number - 1))}
        if "vecnormalize" in _fields(self.method):
            changes["vecnormalize"] = None  # these were statistics of the first teacher's
        return dataclasses.replace(self.method, **changes)

    def _options(self, number: int) -> RunOptions:
        """Returns a generation's options: those that were asked for, with its own seed."""
        return dataclasses.replace(self.options, seed=self.options.seed + SEED_STEP * (number - 1))

    def _check_student(self, run: Run) -> None:
        """Refuses students that the next generation could not learn from."""
        if self.generations > 1 and run.agent.policy.state_size:
            raise InputError(
                "A recurrent student cannot teach the next generation: its labels depend on a "
                "state that nobody keeps; take one without a GRU."
            )


def generation_results(folder: Path) -> list[dict[str, Any]]:
    """Returns the results of a chain's generations that are done, in their order."""
    results = []
    for number in itertools.count(1):
        path = generation_folder(folder, number) / "result.json"
        if not path.exists():
            break
        results.append(json.loads(path.read_text()))
    return results


def _fields(method: Method) -> set[str]:
    """Returns the names of a method's options."""
    return {field.name for field in dataclasses.fields(method)}
