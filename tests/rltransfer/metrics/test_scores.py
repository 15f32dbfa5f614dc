"""Aggregates of scores: worked by hand, and compared with the package rliable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rltransfer.errors import InputError
from rltransfer.metrics import (
    aggregate_intervals,
    bootstrap_interval,
    improvement_interval,
    interquartile_mean,
    mean_score,
    median_score,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    profile_intervals,
)
from rltransfer.metrics import bootstrap as module

RESAMPLING = 0.02
"""How far ends of bootstrap intervals differ between generators; about 1 % of the scores' range."""

TABLE = [[0.0, 1.0], [0.2, 3.0], [0.4, 0.6], [0.1, 0.9]]
"""Four runs of two tasks."""


@pytest.fixture(scope="module")
def rliable() -> dict[str, Any]:
    """What rliable 1.2.0 found; rliable_figures.py wrote it."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("rliable.json").read_text())
    return found


def test_aggregates_worked_by_hand() -> None:
    # Sorted: 0, 0.1, 0.2, 0.4, 0.6, 0.9, 1, 3. Two are left out at each end.
    assert interquartile_mean(TABLE) == pytest.approx((0.2 + 0.4 + 0.6 + 0.9) / 4)
    assert mean_score(TABLE) == pytest.approx(6.2 / 8)
    # Means of 0.175 and 1.375; of two tasks, the median is their mean.
    assert median_score(TABLE) == pytest.approx((0.175 + 1.375) / 2)
    assert median_score([[*row, 9.0] for row in TABLE]) == pytest.approx(1.375)
    # 3 counts as 1.
    assert optimality_gap(TABLE) == pytest.approx(1 - 4.2 / 8)
    assert optimality_gap(TABLE, target=3.0) == pytest.approx(3 - 6.2 / 8)


def test_few_scores_are_not_trimmed() -> None:
    # floor(3 / 4) = 0.
    assert interquartile_mean([[1.0], [2.0], [9.0]]) == pytest.approx(4)


def test_improvement_worked_by_hand() -> None:
    # Of six pairs three are won and two are even.
    assert probability_of_improvement([[1.0], [2.0]], [[0.0], [1.0], [2.0]]) == pytest.approx(
        (1 + 0.5 + 0 + 1 + 1 + 0.5) / 6
    )
    assert probability_of_improvement(TABLE, TABLE) == pytest.approx(0.5)


def test_profiles_worked_by_hand() -> None:
    # A score at the threshold is not above it.
    assert performance_profile(TABLE, [-1.0, 0.4, 1.0, 3.0]).tolist() == [1.0, 0.5, 0.125, 0.0]


def test_resamples_keep_the_tasks_apart() -> None:
    # The second task is 100 in every run: so is it in every resample.
    table = [[0.0, 100.0], [1.0, 100.0], [2.0, 100.0]]
    found = bootstrap_interval(lambda drawn: drawn[..., 1].mean(-1), table)
    assert (found.low, found.high) == (100, 100)


def test_a_bootstrap_worked_by_hand() -> None:
    # Two runs, 0 and 1: of four resamples one has a mean of 0, two of 1/2, one of 1.
    found = module.resampled(mean_score, [np.array([[0.0], [1.0]])], 20_000, seed=0)
    fractions = [float((found == value).mean()) for value in (0.0, 0.5, 1.0)]
    # Three standard deviations: 3 * sqrt(0.25 / 20,000).
    assert fractions == pytest.approx([0.25, 0.5, 0.25], abs=0.011)


def test_the_same_seed_gives_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, other = (
        bootstrap_interval(interquartile_mean, np.random.default_rng(7).normal(size=(9, 3)), seed=s)
        for s in (1, 1, 2)
    )
    assert first == again != other and first.estimate == other.estimate


def test_what_is_computed_at_once_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def statistic(table: np.ndarray) -> np.ndarray:
        seen.append(len(table))
        return mean_score(table)

    monkeypatch.setattr(module, "CHUNK", 80)
    assert module.resampled(statistic, [np.array(TABLE)], 25, seed=0).shape == (25,)
    assert seen == [10, 10, 5]


def test_one_run_has_no_interval() -> None:
    for found in (
        *aggregate_intervals(TABLE[:1]).values(),
        improvement_interval(TABLE[:1], TABLE),
        *profile_intervals(TABLE[:1], [0.5]),
    ):
        assert found.seeds == 1 and not found.is_known


def test_rliable_finds_the_same(rliable: dict[str, Any]) -> None:
    found = aggregate_intervals(rliable["scores"])
    assert list(found) == rliable["names"]
    estimates = [one.estimate for one in found.values()]
    assert estimates == pytest.approx(rliable["estimates"], rel=1e-12)
    ends = [(one.low, one.high) for one in found.values()]
    assert np.array(ends) == pytest.approx(np.array(rliable["intervals"]), abs=RESAMPLING)


def test_rliable_finds_the_same_improvement(rliable: dict[str, Any]) -> None:
    found = improvement_interval(rliable["scores"], rliable["baseline"])
    assert found.estimate == pytest.approx(rliable["improvement"], rel=1e-12)
    assert (found.low, found.high) == pytest.approx(rliable["improvement interval"], abs=RESAMPLING)


def test_rliable_finds_the_same_profile(rliable: dict[str, Any]) -> None:
    found = profile_intervals(rliable["scores"], rliable["thresholds"])
    assert [one.estimate for one in found] == pytest.approx(rliable["profile"], rel=1e-12)
    # Fractions are multiples of 1/20: an end may be the next one.
    ends = [(one.low, one.high) for one in found]
    assert np.array(ends) == pytest.approx(np.array(rliable["profile intervals"]), abs=0.051)


def test_a_profiles_interval_is_that_of_a_binomial() -> None:
    # Four of eight runs are above the threshold, and so Binomial(8, 1/2) of a resample are:
    # P(X <= 0) = 0.4 %, P(X <= 1) = 3.5 %, so that 2.5 % lie at 1/8, and 5 % would at 2/8.
    (found,) = profile_intervals([[0.0]] * 4 + [[1.0]] * 4, [0.5], repetitions=5000)
    assert (found.low, found.estimate, found.high) == (1 / 8, 1 / 2, 7 / 8)


def test_what_is_refused() -> None:
    for wrong, sentence in (
        ([0.5, 0.6], r"shape \(2,\): it must be \(runs, tasks\)"),
        (np.zeros((0, 2)), r"shape \(0, 2\)"),
        ([[1.0], [1.0, 2.0]], "not a matrix"),
        ([[1.0, float("nan")]], "not a number"),
    ):
        with pytest.raises(InputError, match=sentence):
            aggregate_intervals(wrong)
    with pytest.raises(InputError, match="must have the same tasks"):
        improvement_interval(TABLE, [[1.0]])
    with pytest.raises(InputError, match="repetitions is 0"):
        aggregate_intervals(TABLE, repetitions=0)
