"""Continual learning: the tasks of a suite are learned one after the other.

A sequence is a folder:

    config.json         the options, and that it is a sequence
    task-1/, task-2/    ordinary runs, one per task, each begun from what the earlier ones learned
    evaluations.json    after each task, the returns of the newest policy on all tasks so far
    result.json         the last policy's returns on all tasks, forgetting, and what was measured

Each method says how it goes on to the next task (`Method.next_task`): most begin with the weights
of the run before (finetuning), progressive networks add a column. With `ewc_weight`, all earlier
runs pull the weights (`consolidation.py`).

With `compress_steps`, task-N-column/ is a run of the method, which its policy is distilled from
into task-N/, a knowledge base that has the size of one column (Progress & Compress, Schwarz 2018,
arXiv 1805.06370, section 3): the next column sees the knowledge base alone, and `ewc_weight`
protects it. Differs from the paper: the column starts fresh at each task; the knowledge base learns
from a replay buffer; EWC sums over the tasks without decay, each pulled to its own weights.

The seed of task k is the given seed plus (k - 1) * `SEED_STEP`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rltransfer.errors import InputError, InterruptedRunError, check_number
from rltransfer.files.checkpoint import column_folder, newest_checkpoint, task_folder
from rltransfer.files.untrusted import read_json
from rltransfer.learning.agent import Method
from rltransfer.learning.methods import method_name
from rltransfer.machine import distributed
from rltransfer.machine.devices import find_device
from rltransfer.machine.terminal import print_line
from rltransfer.metrics.continual import backward_transfer, forgetting
from rltransfer.policies.policy import Policy
from rltransfer.policies.saving import load_policy
from rltransfer.rollouts.engine import closed_if_refused
from rltransfer.rollouts.evaluation import evaluate_policy, probe_spaces
from rltransfer.runs.callbacks import Callback
from rltransfer.runs.config import RunOptions, check_consolidation, settings, with_total_steps
from rltransfer.runs.descriptions import description_of
from rltransfer.runs.evaluate import part_for
from rltransfer.runs.folder import (
    make_folder,
    several_runs,
    write_json,
)
from rltransfer.runs.generations import SEED_STEP
from rltransfer.runs.run import Run
from rltransfer.runs.tensorboard import Tracker
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.tasks.task import Suite, Task

SEQUENTIAL = "sequential"
"""The entry of config.json of a sequence: its own options."""
Evaluations = Mapping[str, Mapping[str, Any]]
"""The figures of each task so far, by its name."""
EVALUATIONS = "after_task"
"""The entry of evaluations.json: the returns after each task."""


def check_sequence(sequential: bool, compress_steps: int, generations: int) -> None:
    """Refuses options that a single run, or a chain of generations, does not have.

    Raises:
        InputError: compress_steps is set without sequential, or generations with it.
    """
    if compress_steps and not sequential:
        raise InputError(
            "compress_steps is an option of sequences: set sequential, or leave it out."
        )
    if sequential and generations:
        raise InputError("A sequence of tasks has no generations: set sequential or generations.")


@dataclass(frozen=True)
class TaskSequence:
    """A method that learns the tasks of a suite one after the other.

    Args:
        name: The method's name.
        method: The method of the first task.
        suite: The tasks, in their order.
        options: The options; each task is learned for `total_steps`.
        folder: The sequence's folder.
        quiet: Whether to hide the progress.
        callbacks: Functions that each run calls.
        compress_steps: Environment steps of each distillation into the knowledge base; 0 for none.

    Raises:
        InputError: There is only one task, or the method has nothing to compress.
    """

    name: str
    method: Method
    suite: Suite
    options: RunOptions
    folder: Path
    quiet: bool = False
    callbacks: Sequence[Callback] = ()
    compress_steps: int = 0

    def __post_init__(self) -> None:
        options = with_total_steps(self.options, self.method, self.suite)
        object.__setattr__(self, "options", options)
        check_number("compress_steps", self.compress_steps, "at least 0")
        if len(self.suite) < 2:
            raise InputError(
                f"The suite {self.suite.name!r} has one task: a sequence needs at least two."
            )
        if self.compress_steps and self.method.compressed("") is None:
            raise InputError(
                f"{self.name} has no columns to compress: use progressive, or leave out "
                "compress_steps."
            )
        options, fresh = self.options, not self._shares_weights
        if options.ewc_from and not options.ewc_weight:
            check_consolidation(options)
        if fresh and options.freeze:
            raise InputError(
                f"Each column of {self.name} begins with fresh weights, which freeze would keep: "
                "leave it out."
            )
        if options.ewc_weight and not self.compress_steps and fresh:
            raise InputError(
                f"{self.name} never changes what earlier tasks learned: leave out ewc_weight, or "
                "set compress_steps."
            )

    @property
    def _shares_weights(self) -> bool:
        """Whether the method learns each task on top of the weights of the one before."""
        _, changes = self.method.next_task("")
        return "init_from" in changes

    def config(self) -> dict[str, Any]:
        """The settings, as JSON."""
        own = {SEQUENTIAL: {"compress_steps": self.compress_steps}}
        return {**settings(self.name, self.method, self.suite, self.options), **own}

    def train(self, resume: bool = False) -> Run:
        """Learns all tasks that are not finished, and returns the last one's run.

        Args:
            resume: Whether to resume the sequence in the folder.

        Raises:
            InterruptedRunError: Ctrl-C or SIGTERM stopped the run after a checkpoint.
            InputError: See `train`; or the tasks cannot share a network. Nothing was written.
        """
        with several_runs(self.folder, self.config(), self.options, resume) as held:
            if not resume:
                self._check_spaces()
            try:
                return self._train(resume, held)
            except InterruptedRunError as stopped:
                raise InterruptedRunError(self.name, self.folder, stopped.number) from None

    def _check_spaces(self) -> None:
        """Refuses tasks of other observations or actions, if one network is to learn all of them.

        Raises:
            InputError: They differ.
        """
        device = find_device(self.options.device)
        # Each task is made, so that an unknown one is refused before the first is learned.
        first, *others = (probe_spaces(Suite.of(task), device) for task in self.suite)
        shared = self._shares_weights or self.compress_steps > 0
        for name, spaces in zip(self.suite.names()[1:], others, strict=True):
            if shared and (spaces.observation_space, spaces.action_space) != (
                first.observation_space,
                first.action_space,
            ):
                raise InputError(
                    f"The task {name!r} has other observations or actions than "
                    f"{self.suite.names()[0]!r}: one network cannot learn both in turn. Use "
                    "progressive without compress_steps, or other tasks."
                )
            if _image_sizes(spaces) != _image_sizes(first):
                raise InputError(
                    f"The task {name!r} shows images of another size than "
                    f"{self.suite.names()[0]!r}, or one of them shows vectors: columns need "
                    "observations of the same kind."
                )

    def _train(self, resume: bool, held: contextlib.ExitStack) -> Run:
        for number, run in self._runs(resume, held):
            last = run
            self._evaluate(number)
        if distributed.rank() == 0:
            self._finish(last)
        return last

    def _runs(self, resume: bool, held: contextlib.ExitStack) -> Iterator[tuple[int, Run]]:
        """The run of each task's policy, when it is finished, with the task's number from 1."""
        for number, task in enumerate(self.suite, 1):
            method, changes = self._begun(number)
            target = task_folder(self.folder, number)
            if self.compress_steps:
                column = column_folder(target)
                self._finished(method, task, changes, column, number, resume, held)
                compressing = self.method.compressed(str(column))
                assert compressing is not None
                changes = {"total_steps": self.compress_steps, **self._remembering(number)}
                if number > 1:
                    changes["init_from"] = str(task_folder(self.folder, number - 1))
                method = compressing
            else:
                changes |= self._remembering(number)
            yield number, self._finished(method, task, changes, target, number, resume, held)

    def _begun(self, number: int) -> tuple[Method, dict[str, Any]]:
        """The method of a task, and its changes to the options."""
        if number == 1:
            return self.method.first_task(), {"ewc_weight": 0.0, "ewc_from": ()}
        method, changes = self.method.next_task(str(task_folder(self.folder, number - 1)))
        return method, {"ewc_weight": 0.0, "ewc_from": (), "init_from": None, **changes}

    def _remembering(self, number: int) -> dict[str, Any]:
        """The options of EWC for a task: all earlier tasks."""
        earlier = tuple(str(task_folder(self.folder, one)) for one in range(1, number))
        sources = (*self.options.ewc_from, *earlier) if self.options.ewc_weight else ()
        return {"ewc_from": sources, "ewc_weight": self.options.ewc_weight if sources else 0.0}

    def _finished(
        self,
        method: Method,
        task: Task,
        changes: Mapping[str, Any],
        run_dir: Path,
        number: int,
        resume: bool,
        held: contextlib.ExitStack,
    ) -> Run:
        """Begins a task's run, or resumes it if its folder exists, and trains it to its end."""
        seed = self.options.seed + SEED_STEP * (number - 1)
        options = dataclasses.replace(self.options, seed=seed, **changes)
        run = Run(
            method_name(type(method)), method, Suite.of(task), options, run_dir, self.quiet,
            self.callbacks,
        )  # fmt: skip
        if not resume and not (self.folder / "config.json").exists() and distributed.rank() == 0:
            with closed_if_refused(run.engine):
                if self.options.ewc_weight and run.agent.policy.state_size:
                    raise InputError(
                        "Elastic weight consolidation needs policies without recurrent state: "
                        "leave out ewc_weight, or gru."
                    )
                # Written only now: the first run is built, and nothing was refused.
                held.enter_context(make_folder(self.folder, self.config()))
        exists = (run_dir / "config.json").exists()
        distributed.wait()
        run.begin(resume=exists, teacher_moves=exists, sources_move=exists)
        run.execute()
        return run

    def _evaluate(self, number: int) -> None:
        """Plays all tasks so far with the newest policy, and stores the returns."""
        episodes = self.options.episodes
        stored = evaluations(self.folder)
        if distributed.rank() > 0 or not episodes:
            return
        done = stored[number - 1].values() if len(stored) >= number else ()
        if done and all(one["episodes"] == episodes for one in done):
            return
        run_dir = task_folder(self.folder, number)
        device = find_device(self.options.device)
        policy = load_policy(newest_checkpoint(run_dir) / "policy").to(device)
        returns = {}
        for task, name in zip(self.suite.tasks[:number], self.suite.names(), strict=False):
            (found,) = evaluate_policy(
                part_for(policy, task), Suite.of(task), episodes, seed=self.options.seed + 2,
                device=device, max_steps=self.options.max_episode_steps,
            ).values()  # fmt: skip
            returns[name] = {
                "return_mean": found.mean,
                "return_ci95": found.ci95 if math.isfinite(found.ci95) else None,
                "episodes": len(found.returns),
            }
        rows = [*stored[: number - 1], returns, *stored[number:]]
        self._write_curves(rows[:number], policy)
        write_json(self.folder / "evaluations.json", {EVALUATIONS: rows})
        text = ", ".join(f"{one['return_mean']:.1f}" for one in returns.values())
        print_line(f"{self.name}  returns on the tasks so far: {text}", self.quiet)

    def _write_curves(self, found: Sequence[Evaluations], policy: Policy) -> None:
        """Curves of the whole sequence, in its own folder."""
        values = {f"sequence/return/{name}": one["return_mean"] for name, one in found[-1].items()}
        values["sequence/parameters"] = float(policy.num_acting_parameters())
        if len(found) > 1:
            values["sequence/forgetting"] = forgetting(returns_matrix(found)).estimate
        tracker = Tracker(self.folder, describe=description_of)
        tracker.scalars(values, len(found) * self.options.total_steps)
        tracker.close()

    def _finish(self, last: Run) -> None:
        """Writes the result of the sequence: that of the last run, of all tasks."""
        found = evaluations(self.folder)
        runs = [
            read_json(folder / "result.json")
            for folder in sorted(self.folder.glob("task-*"))
            if (folder / "result.json").is_file()
        ]
        seconds = sum(one["wall_seconds"] for one in runs)
        steps = sum(one["env_steps"] for one in runs)
        result: dict[str, Any] = {
            **last.result,
            "agent": self.name,
            "suite": self.suite.name,
            "seed": self.options.seed,
            "env_steps": steps,
            "wall_seconds": seconds,
            "env_steps_per_second": steps / max(seconds, 1e-9),
            "best": None,
            "tasks": {},
        }
        if found:
            random = {
                name: next(iter(one["tasks"].values()))["random_return_mean"]
                for name, one in zip(self.suite.names(), self._task_results(), strict=True)
            }
            result["tasks"] = {
                name: {**figures, "random_return_mean": random[name]}
                for name, figures in found[-1].items()
            }
            scores = returns_matrix(found)
            result["sequence"] = {
                "returns": [[one["return_mean"] for one in row.values()] for row in found],
                "forgetting": forgetting(scores).estimate,
                "backward_transfer": backward_transfer(scores).estimate,
            }
        write_json(self.folder / "result.json", result)

    def _task_results(self) -> list[dict[str, Any]]:
        folders = (task_folder(self.folder, number) for number in range(1, len(self.suite) + 1))
        return [read_json(folder / "result.json") for folder in folders]


def _image_sizes(spaces: SuiteSpaces) -> list[tuple[int, ...]]:
    """Heights and widths of the images of a task; empty for vectors."""
    shapes = [group.shape or () for group in spaces.observation_space.spaces.values()]
    return [shape[1:] for shape in shapes if len(shape) == 3]


def evaluations(folder: Path) -> list[Evaluations]:
    """The returns after each task of a sequence, by the name of each task so far."""
    path = folder / "evaluations.json"
    found: list[Evaluations] = read_json(path)[EVALUATIONS] if path.is_file() else []
    return found


def returns_matrix(found: Sequence[Evaluations]) -> NDArray[np.float64]:
    """R[i, j], the return on task j after the tasks up to i; see `metrics/continual.py`.

    Before a task is learned, its lowest return stands for the one that was not measured: neither
    forgetting nor backward transfer depends on it.
    """
    scores = np.full((len(found), len(found)), np.nan)
    for row, returns in enumerate(found):
        scores[row, : row + 1] = [one["return_mean"] for one in returns.values()]
    return np.where(np.isnan(scores), np.nanmin(scores, axis=0), scores)
