"""Trials: the training runs of an experiment, run in parallel and never repeated.

A trial whose folder contains a result is not run again, and a stopped trial resumes from its last
checkpoint: the same command resumes an experiment. A folder that contains a run with other settings
is refused.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from rltransfer.aliases import with_current_names
from rltransfer.errors import InputError
from rltransfer.files.checkpoint import generation_folder
from rltransfer.files.untrusted import read_json
from rltransfer.learning import methods
from rltransfer.learning.agent import Method
from rltransfer.runs.config import RunOptions, read_config, settings
from rltransfer.runs.folder import difference
from rltransfer.runs.run import Run
from rltransfer.runs.sequence import SEQUENTIAL
from rltransfer.runs.train import train
from rltransfer.tasks.families import as_suite
from rltransfer.tasks.task import Suite
from rltransfer.teachers.loading import load_teacher

T = TypeVar("T")

MAX_LISTED = 5
"""Largest number of tasks whose returns are listed one by one."""

THREADS = 0 if torch.cuda.is_available() else 1
"""Threads of each parallel run; 0 leaves the choice to torch."""

MACHINE = ("device", "threads")
"""Run options that set where a run is computed, not what: results of other machines count."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run."""

    name: str
    """Name of the run's folder."""
    method: Method
    suite: str | Suite
    """The tasks: a suite, a suite's name or a task's id."""
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of `RunOptions`."""


def run_options(steps: int, seed: int, episodes: int = 1) -> dict[str, Any]:
    """Options of a run that is evaluated at its end alone, and keeps no earlier checkpoint.

    Args:
        steps: Environment steps, over all tasks.
        seed: The seed.
        episodes: Episodes of the evaluation, per task; a single one if only the training curve
            matters, as greedy episodes may be very long.
    """
    return {
        "total_steps": steps,
        "seed": seed,
        "episodes": episodes,
        "evaluate_episodes": 0,
        "checkpoint_every": steps,
    }


def print_line(line: str) -> None:
    """Prints a line of progress to stdout at once, even if stdout is a file."""
    print(line, flush=True)


def run_trials(
    trials: Sequence[Trial],
    folder: Path,
    jobs: int = 0,
    report: Callable[[str], None] = print_line,
    quiet: bool = True,
) -> dict[str, dict[str, Any]]:
    """Runs every trial that has no result yet and returns all results by name.

    Args:
        trials: The trials, the longest first, so that no long one runs alone at the end.
        folder: Folder of the runs.
        jobs: Number of trials at once; 0 means one per core, or a single one with a GPU. On the
            CPU each trial has one thread, as small networks gain little from a second.
        report: Called with each line of progress.
        quiet: Whether the trials themselves show no progress.

    Raises:
        InputError: A trial cannot be run, or was run with other settings. Finished trials keep
            their results.
    """
    results = finished_results(trials, folder)
    left = {trial.name: (trial, folder, quiet) for trial in trials if trial.name not in results}
    if results:
        report(f"trials already finished: {len(results)} of {len(trials)}")
    if left:
        report(f"trials left to run: {len(left)}, {at_once(jobs, len(left))} at a time")
    for name, result in run_parallel(run_trial, left, jobs):
        results[name] = result
        report(f"{len(results)}/{len(trials)} {name}: {_format_result(result)}")
    return {trial.name: results[trial.name] for trial in trials}


def finished_results(trials: Sequence[Trial], folder: Path) -> dict[str, dict[str, Any]]:
    """The results of the finished trials, by name.

    Raises:
        InputError: A trial's folder contains a run with other settings.
    """
    check_settings(trials, folder)
    return {trial.name: result for trial in trials if (result := _stored(folder / trial.name))}


def check_settings(trials: Sequence[Trial], folder: Path) -> None:
    """Refuses folders of trials that contain a run with other settings or teachers.

    Settings that a folder does not contain are not compared: the version that wrote it did not have
    that option, and behaved like the present default.

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
                f"{run_dir} contains a run with another {other}: use the same settings, or "
                "another --out."
            )
        _check_teacher(trial, run_dir, known)


def _difference(trial: Trial, stored: Mapping[str, Any]) -> str:
    """The first setting in which a trial differs from a run's configuration, or ""."""
    machine = {name: stored["options"][name] for name in MACHINE if name in stored["options"]}
    options = {**trial.options, **machine}
    generations = options.pop("generations", 0)
    sequential, compress_steps = options.pop("sequential", False), options.pop("compress_steps", 0)
    agent = methods.method_name(type(trial.method))
    requested = settings(agent, trial.method, as_suite(trial.suite), RunOptions(**options))
    requested["generations"] = generations
    if sequential:
        requested[SEQUENTIAL] = {"compress_steps": compress_steps}
    known = {name: stored[name] for name in requested if name in stored}
    old, new = with_current_names(known), with_current_names(json.loads(json.dumps(requested)))
    return difference(old, new, "", known_only=True)


def _check_teacher(trial: Trial, run_dir: Path, known: dict[str, list[str]]) -> None:
    """Refuses a run whose teacher had other weights during training than it has now.

    As many trials share a teacher, `known` caches the teachers' weights.
    """
    source = getattr(trial.method, "teacher", None)
    if not isinstance(source, str):
        return
    # A chain's configuration does not contain its teacher; that of its first run does.
    first = generation_folder(run_dir, 1)
    config = read_config(first if (first / "config.json").is_file() else run_dir)
    trained_with = weights(config.get("teacher"))
    if not trained_with:
        return
    suite = as_suite(trial.suite)
    key = f"{source} of {json.dumps(suite.to_json())}"
    if key not in known:
        known[key] = weights(load_teacher(source, suite=suite).describe())
    if trained_with != known[key]:
        raise InputError(
            f"{run_dir} was trained when {source} had other weights: use another --out."
        )


def weights(description: Any) -> list[str]:
    """The hashes of the weights in a teacher's description, in order.

    Args:
        description: The JSON of `Teacher.describe`, or a part of it.
    """
    if isinstance(description, list):
        return [found for part in description for found in weights(part)]
    if not isinstance(description, Mapping):
        return []
    if description.get("sha256"):
        return [description["sha256"]]
    # The specification repeats the hash, in some versions only.
    return weights([part for name, part in description.items() if name != "spec"])


def run_parallel(
    work: Callable[..., T], arguments: Mapping[str, tuple[Any, ...]], jobs: int = 0
) -> Iterator[tuple[str, T]]:
    """Calls a function in parallel processes and yields each call's name and result as it ends.

    Args:
        work: A function of a module, so that other processes can import it.
        arguments: The arguments of each call by its name; the longest call first.
        jobs: Number of calls at once; 0 means one per core, or a single one with a GPU.

    Raises:
        Exception: A call raised it. Running calls finish, no other call starts.
    """
    # Spawned, not forked: threads of torch and Warp do not survive a fork.
    fresh = multiprocessing.get_context("spawn")
    workers = at_once(jobs, len(arguments))
    waiting = iter(arguments.items())
    with ProcessPoolExecutor(workers, mp_context=fresh, initializer=_begin_worker) as pool:

        def begin(count: int) -> dict[Future[T], str]:
            """Submits no more calls than can run, so that none is queued when one fails."""
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
    """How many of `count` calls run at once; see `run_parallel`."""
    jobs = jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    return max(1, min(jobs, count))


def run_trial(trial: Trial, folder: Path, quiet: bool = True) -> dict[str, Any]:
    """Runs or resumes one trial and returns its result."""
    run = train_trial(trial, folder, quiet)
    # Only resuming needs the states: a replay buffer may take most of a gigabyte.
    for state in (folder / trial.name).rglob("state*.safetensors"):
        state.unlink()
    return run.result


def train_trial(trial: Trial, folder: Path, quiet: bool = True) -> Run:
    """Runs or resumes one trial; it can be resumed again."""
    run_dir = folder / trial.name
    options = {"threads": THREADS, **trial.options}
    return train(
        trial.method, suite=trial.suite, run_dir=run_dir,
        resume=(run_dir / "config.json").exists(), quiet=quiet, **options,
    )  # fmt: skip


def _begin_worker() -> None:
    """Prepares a process of `run_parallel`."""
    # Lines of progress: live tables of several processes would overwrite each other.
    os.environ["TERM"] = "dumb"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when the one that started it is killed: a run then writes a checkpoint."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    # A run handles signals until it has stopped; after it, the process would wait for work forever.
    while signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        time.sleep(0.1)
    os._exit(128 + signal.SIGTERM)


def _stored(run_dir: Path) -> dict[str, Any] | None:
    path = run_dir / "result.json"
    if not path.is_file():
        return None
    result: dict[str, Any] = read_json(path)
    return result


def _format_result(result: dict[str, Any]) -> str:
    returns = {name: task["return_mean"] for name, task in result["tasks"].items()}
    if len(returns) > MAX_LISTED:
        text = f"{sum(returns.values()) / len(returns):.1f}, the mean of {len(returns)} tasks"
    else:
        text = ", ".join(f"{name.rsplit('/', 1)[-1]} {mean:.1f}" for name, mean in returns.items())
    return f"{text} ({result['wall_seconds']:.0f} s)"
