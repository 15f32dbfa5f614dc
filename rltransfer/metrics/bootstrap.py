"""Stratified bootstrap: intervals of aggregates over runs and tasks.

Runs are drawn with replacement within each task, so every resample has as many runs of each task as
there are. The interval covers the choice of seeds, not the choice of tasks. It is too narrow with
very few runs on few tasks: a task with three runs has only ten different resamples.

Source: Agarwal 2021 (arXiv 2108.13264), section 4.1; percentile intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from rltransfer.errors import InputError
from rltransfer.metrics.intervals import Interval
from rltransfer.metrics.scores import (
    Array,
    Statistic,
    check_scores,
    interquartile_mean,
    mean_score,
    median_score,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)

REPETITIONS = 10_000
"""Resamples of an interval."""

PROFILE_REPETITIONS = 2_000
"""Resamples of a performance profile, which has many intervals."""

CHUNK = 2_000_000
"""Numbers that are computed with at once."""

AGGREGATES: dict[str, Statistic] = {
    "IQM": interquartile_mean,
    "median": median_score,
    "mean": mean_score,
    "optimality gap": optimality_gap,
}
"""The aggregates of a matrix of scores by name."""


def bootstrap_interval(
    statistic: Statistic, *scores: ArrayLike, repetitions: int = REPETITIONS, seed: int = 0
) -> Interval:
    """The 95 % interval of a statistic of scores, by the stratified bootstrap.

    Formula: the 2.5 % and the 97.5 % quantile of the statistic over resamples. The same seed gives
    the same interval. With one run there is none.

    Args:
        statistic: The statistic, e.g. `interquartile_mean`; it reduces the last two axes.
        scores: The matrices of the statistic, each resampled by itself.    (runs, tasks)
        repetitions: Number of resamples.
        seed: Seed of the resamples.

    Raises:
        InputError: The scores are not matrices of numbers with the same tasks, or `repetitions` is
            below 1.
    """
    tables = _checked(scores)
    estimate, runs = float(statistic(*tables)), min(len(table) for table in tables)
    if runs < 2:
        return Interval.unknown(estimate, runs)
    low, high = np.quantile(resampled(statistic, tables, repetitions, seed), (0.025, 0.975))
    return Interval(estimate, float(low), float(high), runs)


def aggregate_intervals(
    scores: ArrayLike, repetitions: int = REPETITIONS, seed: int = 0
) -> dict[str, Interval]:
    """IQM, median, mean and optimality gap of scores; see `bootstrap_interval`.

    Args:
        scores: The scores.    (runs, tasks)
        repetitions: Number of resamples.
        seed: Seed of the resamples.

    Raises:
        InputError: See `bootstrap_interval`.
    """
    return {
        name: bootstrap_interval(statistic, scores, repetitions=repetitions, seed=seed)
        for name, statistic in AGGREGATES.items()
    }


def improvement_interval(
    scores: ArrayLike, baseline: ArrayLike, repetitions: int = REPETITIONS, seed: int = 0
) -> Interval:
    """The probability of improvement over a baseline; see `bootstrap_interval`.

    Both groups are resampled.

    Args:
        scores: The scores.                                   (runs, tasks)
        baseline: The baseline's, with the same tasks.        (runs, tasks)
        repetitions: Number of resamples.
        seed: Seed of the resamples.

    Raises:
        InputError: See `bootstrap_interval`.
    """
    return bootstrap_interval(
        probability_of_improvement, scores, baseline, repetitions=repetitions, seed=seed
    )


def profile_intervals(
    scores: ArrayLike,
    thresholds: Sequence[float],
    repetitions: int = PROFILE_REPETITIONS,
    seed: int = 0,
) -> list[Interval]:
    """The performance profile with an interval at each threshold.    (thresholds,)

    The intervals hold at each threshold by itself, not for the whole profile at once.

    Args:
        scores: The scores.                    (runs, tasks)
        thresholds: Scores, increasing.        (thresholds,)
        repetitions: Number of resamples.
        seed: Seed of the resamples.

    Raises:
        InputError: See `bootstrap_interval`.
    """
    (table,) = _checked([scores])
    estimates = performance_profile(table, thresholds).tolist()
    if len(table) < 2:
        return [Interval.unknown(one, len(table)) for one in estimates]

    def profile(resample: Array) -> Array:
        return performance_profile(resample, thresholds)

    found = resampled(profile, [table], repetitions, seed)
    low, high = np.quantile(found, (0.025, 0.975), axis=0).tolist()
    return [Interval(*ends, len(table)) for ends in zip(estimates, low, high, strict=True)]


def resampled(statistic: Statistic, tables: Sequence[Array], repetitions: int, seed: int) -> Array:
    """The statistic of each resample.    (repetitions, ...)

    Args:
        statistic: The statistic; it reduces the last two axes.
        tables: Its matrices.    (runs, tasks)
        repetitions: Number of resamples.
        seed: Seed of the resamples.

    Raises:
        InputError: `repetitions` is below 1.
    """
    if repetitions < 1:
        raise InputError(f"repetitions is {repetitions}: it must be at least 1.")
    generator = np.random.default_rng(seed)
    largest = int(np.prod([len(table) for table in tables])) * tables[0].shape[1]
    size, found = max(1, CHUNK // largest), []
    for first in range(0, repetitions, size):
        count = min(size, repetitions - first)
        found.append(statistic(*(_resample(table, count, generator) for table in tables)))
    return np.concatenate(found)


def _resample(table: Array, count: int, generator: np.random.Generator) -> Array:
    """Resamples of a matrix, each task by itself.    (count, runs, tasks)"""
    runs, tasks = table.shape
    drawn = generator.integers(runs, size=(count, runs, tasks))
    return table[drawn, np.arange(tasks)]


def _checked(scores: Sequence[ArrayLike]) -> list[Array]:
    tables = [check_scores(one) for one in scores]
    if len({table.shape[1] for table in tables}) > 1:
        shapes = " and ".join(str(table.shape) for table in tables)
        raise InputError(
            f"The scores have the shapes {shapes}: both must have the same tasks, in one order."
        )
    return tables
