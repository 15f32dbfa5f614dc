"""Learning curves: smoothed, searched, averaged."""

from __future__ import annotations

import numpy as np
import pytest

from rltransfer.errors import InputError
from rltransfer.metrics.curves import Curve, common_span


def curve(*points: tuple[float, float]) -> Curve:
    steps, returns = np.array(points, dtype=float).reshape(-1, 2).T
    return Curve(steps, returns)


def test_smoothing_worked_by_hand() -> None:
    # Episodes ended at 10, 20, 40 and 50; the window is of 20 steps.
    smooth = curve((10, 1), (20, 3), (40, 5), (50, 9)).smoothed(20)
    # At 10 no full window has passed; (0, 20] contains 1 and 3, (20, 40] only 5, (30, 50] 5 and 9.
    assert smooth.steps.tolist() == [20, 40, 50]
    assert smooth.returns.tolist() == [2, 5, 7]
    assert smooth.first_at_least(5) == 40
    assert smooth.first_at_least(8) is None


def test_parts_worked_by_hand() -> None:
    # Four parts of 10 steps. Step 10 belongs to the first part, and a last rollout that ended
    # after the run to the last part.
    found = curve((4, 1), (10, 3), (31, 8), (44, 12))
    # 1 and 3; nothing; nothing; 8 and 12. Linear between 2 and 10.
    assert found.in_parts(40, 4).tolist() == pytest.approx([2, 14 / 3, 22 / 3, 10])
    # Constant before the first point and after the last one.
    assert curve((15, 7)).in_parts(40, 4).tolist() == [7, 7, 7, 7]


def test_areas_worked_by_hand() -> None:
    found = curve((10, 0), (20, 10), (40, 10))
    # 10 * 5 + 20 * 10 = 250, over 30 steps.
    assert found.mean_between(10, 40) == pytest.approx(250 / 30)
    # From 15, where it is 5, to 20: a mean of 7.5; then 10 up to 25.
    assert found.mean_between(15, 25) == pytest.approx((5 * 7.5 + 5 * 10) / 10)
    # Constant outside: 0 for the first ten steps.
    assert found.mean_between(0, 20) == pytest.approx(50 / 20)
    assert found.mean_between(15, 15) == 5
    assert found.at(np.array([12.0, 99.0])).tolist() == [2, 10]


def test_curves_are_compared_where_all_have_points() -> None:
    early, late = curve((0, 1), (30, 2)), curve((10, 1), (50, 2))
    assert common_span([early, late]) == (10, 30)
    for curves, sentence in (
        ([], "no curve"),
        ([early, curve()], "has no point"),
        ([early, curve((31, 1))], "do not overlap: one begins at step 31, after another has ended"),
    ):
        with pytest.raises(InputError, match=sentence):
            common_span(curves)
