"""What transfer gains over a baseline, from learning curves.

Each function takes the curves of two groups of runs, one curve per seed: those with transfer and
those of the baseline, e.g. runs from scratch. Both are compared over the steps that all curves
cover, from the latest first point to the earliest last point. The seeds of the two groups are not
paired. With one seed in either group there is no interval, and its text says so.

The source's steps (of a teacher, or of an earlier run) are not counted: add them where the source
was trained for the sake of the transfer.

Source: Taylor & Stone 2009, JMLR 10, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from rltransfer.errors import InputError
from rltransfer.metrics.curves import Curve, common_span
from rltransfer.metrics.intervals import (
    Interval,
    difference_interval,
    mean_interval,
    ratio_interval,
)

FRACTION = 0.1
"""The beginning and the end of a run, as a fraction of the compared steps."""


def jumpstart(
    curves: Sequence[Curve], baseline: Sequence[Curve], fraction: float = FRACTION
) -> Interval:
    """How much higher runs with transfer begin.

    Formula: mean initial performance with transfer minus that of the baseline, where initial
    performance is the mean return over the first `fraction` of the compared steps. Unit: return.

    Source: Taylor & Stone 2009. Differs from the source: it takes the performance before any
    learning; a curve whose first evaluation is later has no such point.

    Args:
        curves: The curves with transfer, one per seed.
        baseline: The baseline's, one per seed.
        fraction: The fraction of the compared steps.

    Raises:
        InputError: A group is empty, a curve has no point, or the curves do not overlap.
    """
    first, last = common_span([*curves, *baseline])
    end = first + _checked(fraction) * (last - first)
    return difference_interval(_means(curves, first, end), _means(baseline, first, end))


def asymptotic_performance(curves: Sequence[Curve], fraction: float = FRACTION) -> Interval:
    """The return at the end of a group's runs.

    Formula: mean return over the last `fraction` of the steps that all curves cover. Unit: return.

    Args:
        curves: The curves, one per seed.
        fraction: The fraction of the steps.

    Raises:
        InputError: See `jumpstart`.
    """
    first, last = common_span(curves)
    return mean_interval(_means(curves, last - _checked(fraction) * (last - first), last))


def asymptotic_gain(
    curves: Sequence[Curve], baseline: Sequence[Curve], fraction: float = FRACTION
) -> Interval:
    """How much higher runs with transfer end.

    Formula: `asymptotic_performance` with transfer minus that of the baseline, both over the last
    `fraction` of the compared steps. Unit: return.

    Args:
        curves: The curves with transfer, one per seed.
        baseline: The baseline's, one per seed.
        fraction: The fraction of the compared steps.

    Raises:
        InputError: See `jumpstart`.
    """
    first, last = common_span([*curves, *baseline])
    begin = last - _checked(fraction) * (last - first)
    return difference_interval(_means(curves, begin, last), _means(baseline, begin, last))


def area_ratio(curves: Sequence[Curve], baseline: Sequence[Curve], zero: float = 0.0) -> Interval:
    """The area under the curves with transfer, relative to the baseline's.

    Formula: (A - zero) / (A_baseline - zero), where A is the mean return over the compared steps:
    the area under the curve divided by its steps. Without unit; 1 is the baseline. Taylor & Stone's
    transfer ratio is this ratio minus 1.

    Source: Taylor & Stone 2009, "transfer ratio". Differs from the source: returns may be counted
    from another zero, as a ratio of returns depends on theirs.

    Args:
        curves: The curves with transfer, one per seed.
        baseline: The baseline's, one per seed.
        zero: The return that counts as 0, e.g. that of a random policy.

    Raises:
        InputError: See `jumpstart`; or the baseline's area is 0.
    """
    first, last = common_span([*curves, *baseline])
    areas = [[area - zero for area in _means(group, first, last)] for group in (curves, baseline)]
    return ratio_interval(*areas)


def _means(curves: Sequence[Curve], first: float, last: float) -> list[float]:
    return [curve.mean_between(first, last) for curve in curves]


def _checked(fraction: float) -> float:
    if not 0 <= fraction <= 1:
        raise InputError(f"The fraction of the steps is {fraction}: it must be from 0 to 1.")
    return fraction
