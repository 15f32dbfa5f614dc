"""Forward transfer, backward transfer and forgetting, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rltransfer.errors import InputError
from rltransfer.metrics import Interval, backward_transfer, forgetting, forward_transfer

# R[i, j]: on task j after training on task i.
SCORES = np.array([[0.9, 0.3, 0.1], [0.7, 0.8, 0.4], [0.5, 0.9, 1.0]])
UNTRAINED = [0.7, 0.2, 0.1]


def estimate(found: Interval) -> float:
    assert found.seeds == 1 and math.isinf(found.high)
    return found.estimate


def test_one_matrix_worked_by_hand() -> None:
    # (0.3 - 0.2 + 0.4 - 0.1) / 2
    assert estimate(forward_transfer(SCORES, UNTRAINED)) == pytest.approx(0.2)
    # (0.5 - 0.9 + 0.9 - 0.8) / 2
    assert estimate(backward_transfer(SCORES)) == pytest.approx(-0.15)
    # (max(0.9, 0.7) - 0.5 + max(0.3, 0.8) - 0.9) / 2
    assert estimate(forgetting(SCORES)) == pytest.approx(0.15)


def test_forgetting_is_from_the_best_score_not_from_the_first() -> None:
    # Task 1 was best after task 2, at 1.2.
    scores = SCORES.copy()
    scores[1, 0] = 1.2
    assert estimate(forgetting(scores)) == pytest.approx((1.2 - 0.5 + 0.8 - 0.9) / 2)
    assert estimate(backward_transfer(scores)) == pytest.approx(-0.15)


def test_several_seeds_have_an_interval() -> None:
    both = np.stack([SCORES, SCORES])
    both[1, 2, 0] += 1
    found = backward_transfer(both)
    # -0.15 and 0.35: a mean of 0.1, a standard error of 0.25.
    assert found.estimate == pytest.approx(0.1)
    assert found.high - found.estimate == pytest.approx(12.7062 * 0.25, rel=1e-4)
    shared = forward_transfer(both, UNTRAINED)
    each = forward_transfer(both, [UNTRAINED, UNTRAINED])
    assert shared == each and shared.seeds == 2


def test_what_is_refused() -> None:
    for wrong, sentence in (
        (SCORES[:2], r"shape \(2, 3\)"),
        (SCORES[:1, :1], "one task"),
        (np.where(SCORES > 0.8, np.nan, SCORES), "not a number"),
    ):
        for measure in (forgetting, backward_transfer):
            with pytest.raises(InputError, match=sentence):
                measure(wrong)
    with pytest.raises(InputError, match=r"shape \(2,\): it must be \(3,\) or \(1, 3\)"):
        forward_transfer(SCORES, [0.1, 0.2])
