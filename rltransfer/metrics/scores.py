"""Aggregates of scores over runs and tasks.

Scores are a matrix with one row per run and one column per task, comparable between tasks: e.g. 0
for a random policy and 1 for an expert. Every statistic also takes further axes in front, such as
the resamples of a bootstrap.

Source: Agarwal 2021 (arXiv 2108.13264), sections 3 and 4, and its package `rliable`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rltransfer.errors import InputError

Array = NDArray[np.float64]
Statistic = Callable[..., Array]
"""A function of one or more matrices of scores, over their last two axes."""

TRIMMED = 0.25
"""The fraction of the scores that the interquartile mean leaves out at each end."""


def interquartile_mean(scores: ArrayLike) -> Array:
    """IQM: the mean of the middle half of all scores.    (..., runs, tasks) -> (...)

    Formula: the scores of all runs and tasks are sorted, floor(n / 4) are left out at each end, and
    the rest is averaged. Unit: that of the scores.

    Source: Agarwal 2021, section 4.3.
    """
    table = np.asarray(scores, dtype=float)
    every = np.sort(table.reshape(*table.shape[:-2], -1), axis=-1)
    count = every.shape[-1]
    cut = int(TRIMMED * count)
    return np.asarray(every[..., cut : count - cut].mean(-1))


def mean_score(scores: ArrayLike) -> Array:
    """The mean over runs and tasks.    (..., runs, tasks) -> (...)

    Unit: that of the scores. A single very high score can decide it.
    """
    return np.asarray(np.asarray(scores, dtype=float).mean((-2, -1)))


def median_score(scores: ArrayLike) -> Array:
    """The median over tasks of the mean over runs.    (..., runs, tasks) -> (...)

    Unit: that of the scores. It does not change if half of the tasks score 0.
    """
    return np.asarray(np.median(np.asarray(scores, dtype=float).mean(-2), axis=-1))


def optimality_gap(scores: ArrayLike, target: float = 1.0) -> Array:
    """How far scores are below a target on average; lower is better.    (..., runs, tasks) -> (...)

    Formula: target - mean(min(score, target)). Scores above the target count as the target. Unit:
    that of the scores.

    Source: Agarwal 2021, section 4.3.
    """
    below = np.minimum(np.asarray(scores, dtype=float), target)
    return np.asarray(target - below.mean((-2, -1)))


def probability_of_improvement(scores: ArrayLike, baseline: ArrayLike) -> Array:
    """How probably a run is better than one of the baseline, on a random task.

    Formula: the mean over tasks of P(X > Y) + P(X = Y) / 2, over all pairs of a run X and a run Y
    of the baseline: the Mann-Whitney statistic divided by the number of pairs. Without unit; one
    half means no difference.

    Source: Agarwal 2021, section 4.3.

    Args:
        scores: The scores.                                           (..., runs, tasks)
        baseline: The baseline's, with the same tasks in the same order.  (..., runs, tasks)
    """
    ours, theirs = np.asarray(scores, dtype=float), np.asarray(baseline, dtype=float)
    pairs = ours[..., :, None, :], theirs[..., None, :, :]
    won = (pairs[0] > pairs[1]) + 0.5 * (pairs[0] == pairs[1])
    return np.asarray(won.mean((-3, -2, -1)))


def performance_profile(scores: ArrayLike, thresholds: Sequence[float]) -> Array:
    """The fraction of all runs and tasks with a score above each threshold.

    Without unit. One method's profile above another's at every threshold is stochastic dominance.

    Source: Agarwal 2021, section 4.2, "score distribution".

    Args:
        scores: The scores.                    (..., runs, tasks)
        thresholds: Scores, increasing.        (thresholds,)

    Returns:
        The fractions.                         (..., thresholds)
    """
    table = np.asarray(scores, dtype=float)
    every = np.sort(table.reshape(-1, table.shape[-2] * table.shape[-1]), axis=-1)
    count = every.shape[-1]
    above = np.stack([count - np.searchsorted(row, thresholds, side="right") for row in every])
    return np.asarray((above / count).reshape(*table.shape[:-2], -1))


def check_scores(scores: ArrayLike) -> Array:
    """The scores as a matrix.    (runs, tasks)

    Raises:
        InputError: They are not a matrix with a number in every cell.
    """
    try:
        table = np.asarray(scores, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError("The scores are not a matrix: give one row of numbers per run.") from error
    if table.ndim != 2 or not table.size:
        raise InputError(
            f"The scores have the shape {table.shape}: it must be (runs, tasks), at least one each."
        )
    if not np.isfinite(table).all():
        raise InputError("A score is not a number: leave out runs with missing scores.")
    return table
