"""Training, from Python: `train` runs a method on tasks in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rltransfer.errors import unknown
from rltransfer.learning import methods
from rltransfer.learning.agent import Method
from rltransfer.runs.config import RunOptions
from rltransfer.runs.generations import Chain
from rltransfer.runs.run import Run
from rltransfer.tasks import families
from rltransfer.tasks.families import SuiteLike


def train(
    method: Method,
    *,
    suite: SuiteLike,
    run_dir: str | Path,
    resume: bool = False,
    quiet: bool = False,
    generations: int = 0,
    **options: Any,
) -> Run:
    """Trains to the end and returns the run, with `run.result`.

    Args:
        method: What learns and how, e.g. `rltransfer.agents.PPO()`.
        suite: The tasks: a suite, a task, the name of either, or several tasks or ids.
        run_dir: Folder of the run; must not hold anything yet, unless it is resumed.
        resume: Whether to go on with the run that the folder holds.
        quiet: Whether to show no progress.
        generations: Students in a chain, each the next one's teacher, see `generations.py`; the
            last one's run is returned. 0 for one run, in `run_dir` itself.
        options: Fields of `RunOptions`, e.g. `steps=1_000_000, seed=3`.

    Raises:
        InputError: Something that was asked for cannot be done; nothing was written.
    """
    try:
        run_options = RunOptions(**options)
    except TypeError as error:
        names = RunOptions.__dataclass_fields__
        wrong = next((name for name in options if name not in names), "")
        raise unknown("option", wrong, names) from error
    name = methods.method_name(type(method))
    asked = (name, method, families.as_suite(suite), run_options, Path(run_dir), quiet)
    if generations:
        return Chain(*asked, generations=generations).train(resume)
    run = Run(*asked)
    run.begin(resume)
    run.execute()
    return run
