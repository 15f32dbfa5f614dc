"""Retention of a teacher's return, worked by hand."""

from __future__ import annotations

import pytest

from rltransfer.errors import InputError
from rltransfer.metrics import retention


def test_retention_worked_by_hand() -> None:
    # 80 and 90 per cent.
    found = retention([8.0, 18.0], [10.0, 20.0])
    assert (found.estimate, found.seeds) == (85.0, 2)
    assert found.high - found.estimate == pytest.approx(12.7062 * 5, rel=1e-4)
    # From a random policy's -20: 24 of 26, and 20 of 26.
    found = retention([4.0, 0.0], [6.0, 6.0], [-20.0, -20.0])
    assert found.estimate == pytest.approx(100 * 22 / 26)


def test_one_seed_has_no_interval() -> None:
    assert retention([5.0], [10.0]).format(0) == "50 (one seed)"


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="2 students, 1 teachers and 2 random"):
        retention([1.0, 2.0], [1.0])
    with pytest.raises(InputError, match="-20, not above 0: count returns from a random"):
        retention([1.0], [-20.0])
    with pytest.raises(InputError, match="3, not above 3; there is nothing to keep"):
        retention([1.0], [3.0], [3.0])
