"""Trials: the runs that an experiment consists of, side by side, each begun only once.

An experiment names its trials and gets their results. A trial whose folder holds a result is not
run again, and one that was stopped goes on where it was: the same command continues an experiment.
A folder that holds a run with other settings is refused.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from rltransfer.errors import InputError
from rltransfer.files.checkpoint import generation_folder
from rltransfer.learning import methods
from rltransfer.learning.agent import Method
from rltransfer.runs.config import RunOptions, read_config, settings
from rltransfer.runs.folder import difference
from rltransfer.runs.train import train
from rltransfer.tasks.families import as_suite
from rltransfer.tasks.task import Suite
from rltransfer.teachers.loading import load_teacher

T = TypeVar("T")

MANY = 5
"""Tasks of which more are told of by their mean alone."""

THREADS = 0 if torch.cuda.is_available() else 1
"""Threads of a run beside others; 0 leaves torch's choice."""

MACHINE = ("device", "threads")
"""Options that say where a run is computed and not what: a result may come from another machine."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run."""

    name: str
    """The folder's name within the experiment's."""
    method: Method
    suite: str | Suite
    """What it is trained on: a suite, or a suite's name or a task's id."""
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of `RunOptions`: steps, seed, episodes and so on."""


def _tell(line: str) -> None:
    """Prints a line at once, also where the output goes to a file."""
    print(line, flush=True)


def run_trials(
    trials: Sequence[Trial],
    folder: Path,
    jobs: int = 0,
    tell: Callable[[str], None] | None = _tell,
    quiet: bool = True,
) -> dict[str, dict[str, Any]]:
    """Runs every trial that has no result yet and returns all results by name.

    Args:
        trials: What is to be run; the longest first, so that none runs alone at the end.
        folder: Where the runs are.
        jobs: Trials at once; 0 means one for each core, or one in all where there is a GPU. Small
            networks gain little from a second thread: on the CPU each trial has one.
        tell: Is told what there is to do, and of each trial that is done; None for silence.
        quiet: Whether the trials themselves show no progress.

    Raises:
        InputError: A trial cannot be run, or was run with other settings; those that are done stay
            done.
    """
    results = results_so_far(trials, folder)
    left = {trial.name: (trial, folder, quiet) for trial in trials if trial.name not in results}
    if results and tell:
        tell(f"{len(results)} of {len(trials)} were done already")
    if left and tell:
        tell(f"left to run: {len(left)}, {at_once(jobs, len(left))} at once")
    for name, result in side_by_side(run_trial, left, jobs):
        results[name] = result
        if tell:
            tell(f"{len(results)}/{len(trials)} {name}: {_told(result)}")
    return {trial.name: results[trial.name] for trial in trials}


def results_so_far(trials: Sequence[Trial], folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the results of those trials that are done, by name.

    Raises:
        InputError: A trial's folder holds a run with other settings.
    """
    check_settings(trials, folder)
    return {trial.name: result for trial in trials if (result := _stored(folder / trial.name))}


def check_settings(trials: Sequence[Trial], folder: Path) -> None:
    """Refuses folders of trials that hold a run with other settings or teachers, done or not.

    Settings that a folder does not tell are not compared: the version that wrote it had no such
    choice, and did what is the default now.

    Raises:
        InputError: There is such a folder.
    """
    known: dict[str, list[str]] = {}
    for trial in trials:
        run_dir = folder / trial.name
        if not (run_dir / "config.json").is_file():
            continue
        if other := _difference(trial, read_config(run_dir)):
            raise InputError(
                f"{run_dir} holds a run with another {other}: ask for the same, or give another "
                "--out."
            )
        _check_teacher(trial, run_dir, known)


def _difference(trial: Trial, stored: Mapping[str, Any]) -> str:
    """Returns the first setting in which a trial differs from a run's configuration, or ""."""
    machine = {name: stored["options"][name] for name in MACHINE if name in stored["options"]}
    options = {**trial.options, **machine}
    generations = options.pop("generations", 0)
    agent = methods.method_name(type(trial.method))
    asked = settings(agent, trial.method, as_suite(trial.suite), RunOptions(**options))
    asked["generations"] = generations
    known = {name: stored[name] for name in asked if name in stored}
    return difference(known, json.loads(json.dumps(asked)), "", known_only=True)


def _check_teacher(trial: Trial, run_dir: Path, known: dict[str, list[str]]) -> None:
    """Refuses a run whose teacher has other weights now than when it was learned from.

    Args:
        trial: The trial.
        run_dir: Its folder.
        known: The weights of teachers that were looked at before, which many trials share.
    """
    source = getattr(trial.method, "teacher", None)
    if not isinstance(source, str):
        return
    # A chain's own configuration says nothing of its teacher; that of its first run does.
    first = generation_folder(run_dir, 1)
    config = read_config(first if (first / "config.json").is_file() else run_dir)
    learned_from = weights(config.get("teacher"))
    if not learned_from:
        return
    suite = as_suite(trial.suite)
    key = f"{source} of {json.dumps(suite.to_json())}"
    if key not in known:
        known[key] = weights(load_teacher(source, suite=suite).describe())
    if learned_from != known[key]:
        raise InputError(
            f"{run_dir} learned from {source} when that had other weights: give another --out."
        )


def weights(description: Any) -> list[str]:
    """Returns the hashes of weights that a teacher's description holds, in its order.

    Args:
        description: What `Teacher.describe` returns, or a part of it.
    """
    if isinstance(description, list):
        return [found for part in description for found in weights(part)]
    if not isinstance(description, Mapping):
        return []
    if description.get("sha256"):
        return [description["sha256"]]
    # The specification says the same once more, and not in every version.
    return weights([part for name, part in description.items() if name != "spec"])


def side_by_side(
    work: Callable[..., T], arguments: Mapping[str, tuple[Any, ...]], jobs: int = 0
) -> Iterator[tuple[str, T]]:
    """Yields what a function returns, each time as soon as it does, with the name of the call.

    Args:
        work: A function of a module, as it is called in other processes.
        arguments: Those of each call, by its name; the longest first.
        jobs: Calls at once; 0 means one for each core, or one in all where there is a GPU.

    Raises:
        Exception: What a call raised; those that run come to their end, no other begins.
    """
    # New processes, not copies of this one: threads of torch and Warp do not survive a fork.
    fresh = multiprocessing.get_context("spawn")
    workers = at_once(jobs, len(arguments))
    waiting = iter(arguments.items())
    with ProcessPoolExecutor(workers, mp_context=fresh, initializer=_show_lines) as pool:

        def begin(count: int) -> dict[Future[T], str]:
            """Begins calls: no more than run, so that the others never do if one fails."""
            return {
                pool.submit(work, *given): name for name, given in itertools.islice(waiting, count)
            }

        running = begin(workers)
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            results = [(running.pop(call), call.result()) for call in done]
            running |= begin(len(results))
            yield from results


def at_once(jobs: int, count: int) -> int:
    """Returns how many of `count` calls run at once; see `side_by_side`."""
    jobs = jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    return max(1, min(jobs, count))


def run_trial(trial: Trial, folder: Path, quiet: bool = True) -> dict[str, Any]:
    """Runs one trial, or goes on with it, and returns its result."""
    run_dir = folder / trial.name
    options = {"threads": THREADS, **trial.options}
    run = train(
        trial.method, suite=trial.suite, run_dir=run_dir,
        resume=(run_dir / "config.json").exists(), quiet=quiet, **options,
    )  # fmt: skip
    _forget(run_dir)
    return run.result


def _forget(run_dir: Path) -> None:
    """Removes what only going on with a trial needs: its memory may take most of a gigabyte."""
    for state in run_dir.rglob("state*.safetensors"):
        state.unlink()


def _show_lines() -> None:
    """Makes a process show its progress as lines: live tables would overwrite each other."""
    os.environ["TERM"] = "dumb"


def _stored(run_dir: Path) -> dict[str, Any] | None:
    """Returns the result that a trial's folder holds, if it is done."""
    path = run_dir / "result.json"
    if not path.is_file():
        return None
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def _told(result: dict[str, Any]) -> str:
    """Returns a result in a few words."""
    returns = {name: task["return_mean"] for name, task in result["tasks"].items()}
    if len(returns) > MANY:
        told = f"{sum(returns.values()) / len(returns):.1f}, the mean of {len(returns)} tasks"
    else:
        told = ", ".join(f"{name.rsplit('/', 1)[-1]} {mean:.1f}" for name, mean in returns.items())
    return f"{told} ({result['wall_seconds']:.0f} s)"
