"""Transfer and forgetting where tasks are learned one after another.

All three take a matrix R of scores: R[i, j] is the score on task j after training on the tasks up
to i, in their order. Several seeds are matrices along a first axis; the estimate is the mean over
seeds with its interval (Student's t). With one seed there is no interval. The unit is that of the
scores: make scores of different tasks comparable first, e.g. relative to an expert.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rltransfer.errors import InputError
from rltransfer.metrics.intervals import Interval, mean_interval


def forward_transfer(scores: ArrayLike, untrained: ArrayLike) -> Interval:
    """How much earlier tasks help a task before it is trained itself.

    Formula: FWT = 1 / (T - 1) * sum over i = 2..T of R[i - 1, i] - b[i], where b[i] is the score of
    an untrained policy on task i. Above 0, earlier tasks help.

    Source: Lopez-Paz & Ranzato 2017 (arXiv 1706.08840), section 3.

    Args:
        scores: R, one matrix or one per seed.       (tasks, tasks) or (seeds, tasks, tasks)
        untrained: The untrained policy's scores b.  (tasks,) or (seeds, tasks)

    Raises:
        InputError: A shape is wrong, a score is not a number, or there is only one task.
    """
    matrices = _matrices(scores)
    before = np.asarray(untrained, dtype=float)
    if before.shape not in (matrices.shape[1:2], matrices.shape[:2]):
        raise InputError(
            f"The untrained policy's scores have the shape {before.shape}: it must be "
            f"{matrices.shape[1:2]} or {matrices.shape[:2]}, as there are so many seeds and tasks."
        )
    _check_numbers(before)
    above_diagonal = np.diagonal(matrices, offset=1, axis1=1, axis2=2)
    return mean_interval((above_diagonal - before[..., 1:]).mean(1).tolist())


def backward_transfer(scores: ArrayLike) -> Interval:
    """How later tasks change the scores on earlier ones; below 0, tasks are forgotten.

    Formula: BWT = 1 / (T - 1) * sum over i = 1..T-1 of R[T, i] - R[i, i].

    Source: Lopez-Paz & Ranzato 2017 (arXiv 1706.08840), section 3.

    Args:
        scores: R, one matrix or one per seed.    (tasks, tasks) or (seeds, tasks, tasks)

    Raises:
        InputError: See `forward_transfer`.
    """
    matrices = _matrices(scores)
    learned = np.diagonal(matrices, axis1=1, axis2=2)
    return mean_interval((matrices[:, -1] - learned)[:, :-1].mean(1).tolist())


def forgetting(scores: ArrayLike) -> Interval:
    """How far the scores on earlier tasks are below their best at the end.

    Formula: F = 1 / (T - 1) * sum over j = 1..T-1 of max over l = 1..T-1 of R[l, j] - R[T, j]. It
    is negative if the last task raises the scores on earlier ones.

    Source: Chaudhry 2018 (arXiv 1801.10112), equations 3 and 4.

    Args:
        scores: R, one matrix or one per seed.    (tasks, tasks) or (seeds, tasks, tasks)

    Raises:
        InputError: See `forward_transfer`.
    """
    matrices = _matrices(scores)
    best = matrices[:, :-1].max(1)
    return mean_interval((best - matrices[:, -1])[:, :-1].mean(1).tolist())


def _matrices(scores: ArrayLike) -> NDArray[np.float64]:
    """The matrices of all seeds.    (seeds, tasks, tasks)"""
    matrices = np.asarray(scores, dtype=float)
    if matrices.ndim == 2:
        matrices = matrices[None]
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or not len(matrices):
        raise InputError(
            f"The scores have the shape {np.shape(scores)}: it must be (tasks, tasks) or (seeds, "
            "tasks, tasks)."
        )
    if matrices.shape[1] < 2:
        raise InputError("There is one task: transfer between tasks needs at least two.")
    _check_numbers(matrices)
    return matrices


def _check_numbers(scores: NDArray[np.float64]) -> None:
    if not np.isfinite(scores).all():
        raise InputError("A score is not a number: leave out seeds with missing scores.")
