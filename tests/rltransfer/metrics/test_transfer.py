"""Jumpstart, asymptotic performance and area ratio, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rltransfer.errors import InputError
from rltransfer.metrics import (
    Curve,
    Interval,
    area_ratio,
    asymptotic_gain,
    asymptotic_performance,
    jumpstart,
)

STEPS = np.array([0.0, 50.0, 100.0])


def curves(*returns: tuple[float, ...]) -> list[Curve]:
    return [Curve(STEPS[: len(one)], np.array(one)) for one in returns]


# The first tenth of 100 steps: means of 4.2 and 6.2 with transfer, of 0.5 and 1.5 without.
TRANSFER = curves((4, 6, 10), (6, 8, 12))
BASELINE = curves((0, 5, 10), (1, 6, 11))


def values(found: Interval) -> tuple[float, float, float]:
    return found.estimate, found.low, found.high


def test_jumpstart_worked_by_hand() -> None:
    # Linear from 4 to 6 in 50 steps: 4.4 after ten, 4.2 on average; 6.2 likewise. The baseline
    # climbs by 5 in 50 steps: 0.5 and 1.5.
    found = jumpstart(TRANSFER, BASELINE)
    assert found.estimate == pytest.approx(5.2 - 1.0)
    # Standard deviations sqrt(2) and sqrt(0.5), two seeds each: variances of the means 1 and 0.25;
    # Welch's degrees of freedom 1.25^2 / (1 + 0.0625) = 1.4706, a t of 6.18.
    assert found.high - found.estimate == pytest.approx(6.18 * 1.25**0.5, rel=2e-3)
    assert jumpstart(TRANSFER, BASELINE, 0).estimate == pytest.approx(5 - 0.5)


def test_asymptotic_performance_worked_by_hand() -> None:
    # The last tenth: from 9.2 to 10 and from 11.2 to 12; the baseline from 9 and 10, by 1 each.
    assert asymptotic_performance(TRANSFER).estimate == pytest.approx((9.6 + 11.6) / 2)
    assert asymptotic_gain(TRANSFER, BASELINE).estimate == pytest.approx(10.6 - 10.0)


def test_area_ratio_worked_by_hand() -> None:
    # Areas per step: (5 + 8) / 2 = 6.5 and 8.5 with transfer; (2.5 + 7.5) / 2 = 5 and 6 without.
    assert area_ratio(TRANSFER, BASELINE).estimate == pytest.approx(7.5 / 5.5)
    # Counted from a random policy's return of 1.
    assert area_ratio(TRANSFER, BASELINE, zero=1.0).estimate == pytest.approx(6.5 / 4.5)


def test_a_group_compared_with_itself_gains_nothing() -> None:
    for gain in (jumpstart, asymptotic_gain):
        found = gain(TRANSFER, TRANSFER)
        assert found.estimate == 0 and found.low < 0 < found.high
    found = area_ratio(TRANSFER, TRANSFER)
    assert found.estimate == 1 and found.low < 1 < found.high


def test_one_seed_has_no_interval() -> None:
    for measure in (jumpstart, asymptotic_gain, area_ratio):
        found = measure(TRANSFER[:1], BASELINE)
        assert not found.is_known and "(one seed)" in found.format(1)


def test_only_the_steps_that_all_cover_are_compared() -> None:
    # One run of the baseline was cut at step 50: both are compared up to there.
    cut = [*curves((0, 5)), BASELINE[1]]
    assert area_ratio(TRANSFER, cut).estimate == pytest.approx(6 / 3)
    assert asymptotic_gain(TRANSFER, cut, 0).estimate == pytest.approx(7 - 5.5)


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="no curve"):
        jumpstart([], [])
    with pytest.raises(InputError, match="at least one seed"):
        jumpstart(TRANSFER, [])
    with pytest.raises(InputError, match=r"fraction of the steps is 1\.5"):
        jumpstart(TRANSFER, BASELINE, 1.5)
    with pytest.raises(InputError, match="baseline's mean is 0"):
        area_ratio(TRANSFER, curves((0, 0, 0)))


def test_fractions_count_from_the_first_compared_step() -> None:
    """Of steps 100 to 200, the first tenth ends at 110 and the last begins at 190."""
    steps = np.array([100.0, 110.0, 190.0, 200.0])
    one = [Curve(steps, np.array([4.0, 4.0, 8.0, 8.0]))] * 2
    other = [Curve(steps, np.array([1.0, 1.0, 2.0, 2.0]))] * 2
    assert jumpstart(one, other).estimate == pytest.approx(3.0)
    assert asymptotic_performance(one).estimate == pytest.approx(8.0)
    assert asymptotic_gain(one, other).estimate == pytest.approx(6.0)
