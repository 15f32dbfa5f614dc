"""Intervals over seeds, worked by hand."""

from __future__ import annotations

import math

import house
import numpy as np
import pytest
from scipy import stats

from rltransfer.errors import InputError
from rltransfer.metrics.intervals import (
    Interval,
    difference_interval,
    geometric_mean_interval,
    half_width,
    mean_interval,
    ratio_interval,
)

T_1, T_2 = 12.7062, 4.3027
"""The 97.5 % quantiles of Student's t with one and two degrees of freedom."""


def test_the_mean_worked_by_hand() -> None:
    # Mean 2, standard deviation 1, three seeds: 4.303 * 1 / sqrt(3) = 2.484.
    found = mean_interval([1.0, 2.0, 3.0])
    assert (found.estimate, found.seeds) == (2.0, 3)
    assert found.high - 2 == 2 - found.low == half_width([1.0, 2.0, 3.0])
    assert found.low == pytest.approx(2 - T_2 / math.sqrt(3), abs=1e-3)


def test_the_geometric_mean_worked_by_hand() -> None:
    # sqrt(0.5 * 2) = 1 for the first seed, sqrt(1 * 1) = 1 for the second.
    both = geometric_mean_interval({"a": [0.5, 1.0], "b": [2.0, 1.0]})
    assert (both.low, both.estimate, both.high) == pytest.approx((1.0, 1.0, 1.0))


def test_a_difference_worked_by_hand() -> None:
    # Means 2 and 5. The baseline does not vary, so one degree of freedom is left; the variance of
    # the first mean is 2 / 2 = 1.
    found = difference_interval([1.0, 3.0], [5.0, 5.0, 5.0])
    assert (found.estimate, found.seeds) == (-3.0, 2)
    assert (found.low, found.high) == pytest.approx((-3 - T_1, -3 + T_1), abs=1e-3)


def test_a_difference_is_welchs() -> None:
    x, y = [1.0, 2.5, 2.0, 4.0], [7.0, 3.0, 5.0]
    oracle = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    found = difference_interval(x, y)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), rel=1e-9)


def test_a_ratio_to_a_fixed_baseline_worked_by_hand() -> None:
    # (2 +- 12.706 * 1) / 4.
    found = ratio_interval([1.0, 3.0], [4.0, 4.0])
    assert (found.estimate, found.seeds) == (0.5, 2)
    assert (found.low, found.high) == pytest.approx(((2 - T_1) / 4, (2 + T_1) / 4), abs=1e-3)


def test_the_ends_of_a_ratio_are_where_the_difference_begins_to_be_significant() -> None:
    x, y = [9.0, 11.0, 10.5, 8.0], [19.0, 22.0, 20.0]
    found = ratio_interval(x, y)
    assert 0 < found.low < found.estimate < found.high
    # Welch's degrees of freedom at the estimate.
    parts = np.array([np.var(x, ddof=1) / 4, found.estimate**2 * np.var(y, ddof=1) / 3])
    freedom = parts.sum() ** 2 / (parts**2 / [3, 2]).sum()
    for end in (found.low, found.high):
        error = math.sqrt(np.var(x, ddof=1) / 4 + end**2 * np.var(y, ddof=1) / 3)
        t = abs(np.mean(x) - end * np.mean(y)) / error
        assert 2 * stats.t.sf(t, freedom) == pytest.approx(0.05, rel=1e-9)


def test_a_ratio_to_what_may_be_zero_has_no_interval() -> None:
    found = ratio_interval([1.0, 2.0], [-1.0, 2.0])
    assert found.estimate == 3 and not found.is_known
    assert found.format(1) == "3.0 (no interval)"
    with pytest.raises(InputError, match="baseline's mean is 0"):
        ratio_interval([1.0], [1.0, -1.0])


def test_groups_that_do_not_vary_have_intervals_without_width() -> None:
    for found, value in (
        (difference_interval([3.0, 3.0], [1.0, 1.0]), 2.0),
        (ratio_interval([3.0, 3.0], [2.0, 2.0]), 1.5),
    ):
        assert (found.low, found.estimate, found.high) == (value, value, value)


@pytest.mark.parametrize(
    "found",
    [
        mean_interval([0.5]),
        geometric_mean_interval({"a": [0.5]}),
        difference_interval([1.5], [1.0, 1.0]),
        difference_interval([1.0, 2.0], [1.0]),
        ratio_interval([1.0], [2.0]),
    ],
)
def test_one_seed_has_no_interval(found: Interval) -> None:
    assert not found.is_known
    assert found.format(2) == "0.50 (one seed)"
    assert found.against(0, "above", "below") == "undecided: one seed has no interval"


def test_intervals_as_text() -> None:
    found = Interval(0.5, 0.25, 0.75, 3)
    assert (found.format(1), found.format_percent()) == ("0.5 (0.2 to 0.8)", "50 (25 to 75)")
    assert found.against(0, "above", "below") == "above"
    assert found.against(1, "above", "below") == "below"
    assert found.against(0.5, "above", "below") == "undecided: the interval contains 0.5"


def test_nothing_has_no_mean() -> None:
    for estimate in (mean_interval, half_width):
        if estimate is mean_interval:
            with pytest.raises(InputError, match="at least one seed"):
                estimate([])
    for group in (difference_interval, ratio_interval):
        with pytest.raises(InputError, match="at least one seed"):
            group([1.0], [])


def test_an_interval_covers_the_truth_in_95_of_100_cases() -> None:
    # Three standard deviations of a binomial of 1,000 draws with 0.95: 0.021.
    generator = np.random.default_rng(0)
    covered = {"mean": 0, "difference": 0, "ratio": 0}
    for _ in range(1_000):
        x, y = generator.normal(4, 1, 5), generator.normal(5, 0.5, 4)
        for name, found, truth in (
            ("mean", mean_interval(x), 4),
            ("difference", difference_interval(x, y), -1),
            ("ratio", ratio_interval(x, y), 0.8),
        ):
            covered[name] += found.low < truth < found.high
    assert all(abs(count - 950) <= 21 for count in covered.values()), covered


def test_there_is_one_place_for_an_interval() -> None:
    for name, path in house.modules().items():
        quantile = "stdtrit" in path.read_text() or "scipy.stats" in house.imports(name)
        assert not quantile or name == "rltransfer.metrics.intervals", name
