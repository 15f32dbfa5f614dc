"""Steps to a threshold with censored runs, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rltransfer.errors import InputError
from rltransfer.metrics import Curve, Times, mean_interval, time_ratio, times_to_threshold


def test_times_are_of_the_first_point_at_the_threshold() -> None:
    steps = np.array([10.0, 20, 30])
    curves = [Curve(steps, np.array(one)) for one in ([1.0, 5, 4], [5.0, 5, 5], [1.0, 2, 3])]
    found = times_to_threshold(curves, 5)
    # The last run is censored at its end.
    assert found == Times((20, 10, 30), (True, True, False))
    assert (found.censored, found.horizon) == (1, 30)
    with pytest.raises(InputError, match="has no point"):
        times_to_threshold([Curve(steps[:0], steps[:0])], 5)


# A textbook sample: 6, 7 and 10 reached, others censored at 6, 8 and 12.
SAMPLE = Times((6, 6, 7, 8, 10, 12), (True, False, True, False, True, False))


def test_kaplan_meier_worked_by_hand() -> None:
    times, below = SAMPLE.survival()
    # 6 runs at risk at 6, 4 at 7, 2 at 10.
    assert times.tolist() == [6, 7, 10]
    assert below.tolist() == pytest.approx([5 / 6, 5 / 6 * 3 / 4, 5 / 6 * 3 / 4 / 2])
    assert SAMPLE.median() == 10
    # 6 * 1 + 1 * 5/6 + 3 * 5/8 + 2 * 5/16.
    assert SAMPLE.restricted_mean().estimate == pytest.approx(6 + 5 / 6 + 15 / 8 + 5 / 8)


def test_the_median_is_not_reached_if_most_are_censored() -> None:
    assert Times((5, 9, 9), (True, False, False)).median() is None
    # Exactly half counts.
    assert Times((5, 9), (True, False)).median() == 5
    assert Times((3, 1, 2), (True, True, True)).median() == 2


def test_without_runs_that_ended_before_the_horizon_it_is_a_plain_mean() -> None:
    # The censored run counts with all its steps; nothing is dropped.
    times = Times((2, 4, 9, 9), (True, True, False, True))
    found, plain = times.restricted_mean(8), mean_interval([2.0, 4, 8, 8])
    assert found.estimate == pytest.approx(plain.estimate)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high))
    assert times.pseudo_values(8) == pytest.approx([2, 4, 8, 8])


def test_pseudo_values_worked_by_hand() -> None:
    # One run reached it at 2, one was cut at 1. The curve falls to 0 at 2: an area of 2. Without
    # the first run it stays at 1 up to the horizon: 2 again; without the second, 2.
    times = Times((2, 1), (True, False))
    assert times.pseudo_values() == pytest.approx([2 * 2 - 2, 2 * 2 - 2])
    # With a third one that reached it at 1: at 1, two of three have not; then one of one does at
    # 2. Area 1 + 2/3. Without the first: 1 + 1/2 (it ends at 1, half of two runs, and stays).
    three = Times((2, 1, 1), (True, False, True))
    whole = 1 + 2 / 3
    assert three.pseudo_values() == pytest.approx(
        [3 * whole - 2 * 1.5, 3 * whole - 2 * 1.5, 3 * whole - 2 * 2.0]
    )


def test_ratio_worked_by_hand() -> None:
    fast, slow = Times((2, 4), (True, True)), Times((8, 20), (True, False))
    # Nothing is left to happen to the fast runs: the horizon is that of the slow ones, 20.
    assert time_ratio(fast, slow).estimate == pytest.approx(3 / 14)
    longer = Times((2, 4, 40), (True, True, False))
    assert time_ratio(longer, slow).estimate == pytest.approx((26 / 3) / 14)
    assert time_ratio(fast, slow, 10).estimate == pytest.approx(3 / 9)
    # All are fast: up to the longest time, 5.
    assert time_ratio(fast, Times((1, 5), (True, True))).estimate == pytest.approx(1)


def test_the_horizon_is_where_the_fraction_of_runs_is_known() -> None:
    assert Times((2, 4), (True, True)).horizon == math.inf
    assert Times((2, 4), (False, True)).horizon == math.inf
    assert Times((2, 4), (True, False)).horizon == 4
    # One of two runs of four steps did not reach it.
    assert Times((4, 4), (True, False)).horizon == 4
    assert Times((2, 4), (True, True)).restricted_mean(100).estimate == pytest.approx(3)


def test_if_every_run_is_censored_there_is_a_bound_and_no_interval() -> None:
    lost = Times((9, 9, 9), (False, False, False))
    found = lost.restricted_mean()
    assert (found.estimate, found.is_known, lost.median()) == (9, False, None)
    ratio = time_ratio(Times((3, 4), (True, True)), lost, 4)
    assert ratio.estimate == pytest.approx(3.5 / 4) and not ratio.is_known


def test_one_run_has_no_interval() -> None:
    found = Times((5,), (True,)).restricted_mean()
    assert found.format(0) == "5 (one seed)" and math.isinf(found.high)


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="1 times and 2 marks"):
        Times((1,), (True, False))
    with pytest.raises(InputError, match="at least one"):
        Times((), ())
    for horizon in (0, 13, math.inf):
        with pytest.raises(InputError, match=f"horizon is {horizon} steps"):
            SAMPLE.restricted_mean(horizon)
