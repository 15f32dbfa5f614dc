"""A run's best policy, by the evaluations during training.

The score of an evaluation is the mean over the tasks of the return. Where the teacher is better
than a random policy on every task, each return is relative to both:
(return - random) / (teacher - random), so that tasks with large rewards do not decide alone.

The first policy with the highest score is kept in `checkpoints/best`, together with its returns,
so that a run which resumes from an earlier step still knows it.
"""

from __future__ import annotations

import json
import math
import operator
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rltransfer.files.atomic import complete_folder, written_whole
from rltransfer.files.checkpoint import best_folder, is_whole, write_hashes
from rltransfer.files.reading import must_be_readable
from rltransfer.files.untrusted import DAMAGE, read_json
from rltransfer.machine.terminal import print_line
from rltransfer.policies.policy import Policy
from rltransfer.policies.saving import save_policy

EVALUATION = "evaluation.json"
"""The file of the best checkpoint with the evaluation that chose it."""


@dataclass(frozen=True)
class Best:
    """The evaluation that the best policy was chosen by."""

    env_steps: int
    """Environment steps of the run before it."""
    returns: dict[str, float]
    """Mean return of each task, by its name."""


def score(
    returns: Mapping[str, float], teacher: Mapping[str, float], random: Mapping[str, float]
) -> float:
    """The score of an evaluation; higher is better.

    Args:
        returns: Mean return of each task.
        teacher: Mean return of the teacher on each task; empty without one.
        random: Mean return of a random policy on each task; empty without a teacher.
    """
    if all(name in teacher and teacher[name] > random[name] for name in returns):
        returns = {
            name: (value - random[name]) / (teacher[name] - random[name])
            for name, value in returns.items()
        }
    return statistics.fmean(returns.values())


def save_best(run_dir: Path, policy: Policy, best: Best) -> None:
    """Replaces the best checkpoint of a run by another one, whole."""
    with written_whole(best_folder(run_dir)) as folder:
        save_policy(policy, folder / "policy")
        (folder / EVALUATION).write_text(json.dumps(asdict(best), indent=1) + "\n")
        write_hashes(folder)


def load_best(run_dir: Path, quiet: bool = False) -> Best | None:
    """The evaluation of a run's best policy; None if there is none, or it is damaged.

    Args:
        run_dir: The run's folder.
        quiet: Whether to leave out the line that names a damaged one.
    """
    with must_be_readable():
        folder = complete_folder(best_folder(run_dir))
        if not folder.exists():
            return None
        try:
            if is_whole(folder, "policy") and is_whole(folder, EVALUATION):
                return _evaluation(read_json(folder / EVALUATION))
        except PermissionError:
            raise
        except DAMAGE:
            pass
    print_line(f"{folder} is damaged: the next evaluation replaces it.", quiet)
    return None


def _evaluation(stored: Any) -> Best:
    """The evaluation in a file.

    Raises:
        Exception: One of `DAMAGE`.
    """
    returns = {str(name): float(value) for name, value in stored["returns"].items()}
    if not math.isfinite(statistics.fmean(returns.values())):
        raise ValueError("A return is not finite.")
    return Best(operator.index(stored["env_steps"]), returns)
