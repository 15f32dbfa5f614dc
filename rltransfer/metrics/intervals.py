"""Estimates over seeds with their 95 % confidence intervals.

All intervals here are Student's t intervals over seeds. Of a single seed there is no interval: its
ends are infinite, and its text says "one seed".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from rltransfer.errors import InputError

MIN_RATIO = 1e-3
"""Lower bound of a ratio in a geometric mean, so that a failed student has a logarithm."""


@dataclass(frozen=True)
class Interval:
    """An estimate over seeds with its 95 % interval."""

    estimate: float
    """The estimate, e.g. the mean over seeds."""
    low: float
    """Lower end; minus infinity if there is no interval."""
    high: float
    """Upper end; infinity if there is no interval."""
    seeds: int
    """Number of seeds; of two compared groups that of the smaller one."""

    @staticmethod
    def unknown(estimate: float, seeds: int) -> Interval:
        """An estimate without an interval."""
        return Interval(estimate, -math.inf, math.inf, seeds)

    @property
    def is_known(self) -> bool:
        """Whether there is an interval: more than one seed, and finite ends."""
        return self.seeds > 1 and math.isfinite(self.low) and math.isfinite(self.high)

    def format_percent(self) -> str:
        """The interval in per cent, e.g. "97 (94 to 101)"."""
        return Interval(100 * self.estimate, 100 * self.low, 100 * self.high, self.seeds).format(0)

    def format(self, digits: int) -> str:
        """The interval with this many digits after the decimal point."""
        mean, low, high = (f"{one:.{digits}f}" for one in (self.estimate, self.low, self.high))
        if self.is_known:
            return f"{mean} ({low} to {high})"
        return f"{mean} (one seed)" if self.seeds == 1 else f"{mean} (no interval)"

    def against(self, bound: float, above: str, below: str) -> str:
        """One of two words if the whole interval is on one side of a bound, else the reason.

        Args:
            bound: The number that the interval is compared with.
            above: The word for an interval above the bound.
            below: The word for an interval below the bound.
        """
        if self.seeds < 2:
            return "undecided: one seed has no interval"
        if self.low > bound:
            return above
        return below if self.high < bound else f"undecided: the interval contains {bound:g}"


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean; infinite with a single value.

    Formula: t * s / sqrt(n), with the standard deviation s (n - 1 in its denominator) and the
    97.5 % quantile t of Student's distribution with n - 1 degrees of freedom.

    Args:
        values: Independent values, at least one.
    """
    count = len(values)
    if count < 2:
        return math.inf
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return float(special.stdtrit(count - 1, 0.975)) * error


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of one value per seed; see `half_width`.

    Raises:
        InputError: There is no value.
    """
    _check_values(values)
    mean, half = float(np.mean(values)), half_width(values)
    return Interval(mean, mean - half, mean + half, len(values))


def geometric_mean_interval(ratios: Mapping[str, Sequence[float]]) -> Interval:
    """The geometric mean over tasks, with an interval over seeds.

    Logarithms are averaged over tasks within each seed, then over seeds. The interval covers the
    choice of seeds, not the choice of tasks. Ratios below `MIN_RATIO` count as `MIN_RATIO`.

    Args:
        ratios: For each task one ratio per seed, in the same order.
    """
    logs = np.log(np.maximum(np.array(list(ratios.values()), dtype=float), MIN_RATIO))
    interval = mean_interval(logs.mean(0).tolist())
    if interval.seeds < 2:
        return Interval.unknown(math.exp(interval.estimate), interval.seeds)
    low, mean, high = (math.exp(v) for v in (interval.low, interval.estimate, interval.high))
    return Interval(mean, low, high, interval.seeds)


def difference_interval(values: Sequence[float], baseline: Sequence[float]) -> Interval:
    """The difference of two groups' means, whose seeds are not paired.

    Formula: mean(x) - mean(y) +- t * sqrt(v_x + v_y), with the variances v of the two means and
    Welch's degrees of freedom (v_x + v_y)^2 / (v_x^2 / (n_x - 1) + v_y^2 / (n_y - 1)).

    Source: Welch 1947, Biometrika 34.

    Args:
        values: One value per seed.
        baseline: The other group's values. Either group may have a single seed: then there is no
            interval.

    Raises:
        InputError: A group has no value.
    """
    difference = _mean(values) - _mean(baseline)
    seeds = min(len(values), len(baseline))
    if seeds < 2:
        return Interval.unknown(difference, seeds)
    x, y = _mean_variance(values), _mean_variance(baseline)
    half = _welch_quantile(x, y, len(values), len(baseline)) * math.sqrt(x + y)
    return Interval(difference, difference - half, difference + half, seeds)


def ratio_interval(values: Sequence[float], baseline: Sequence[float]) -> Interval:
    """The ratio of two groups' means, whose seeds are not paired.

    Formula: mean(x) / mean(y). The interval contains every r for which mean(x) - r mean(y) is not
    significantly different from 0: (mean(x) - r mean(y))^2 <= t^2 (v_x + r^2 v_y), with the
    variances v of the two means and Welch's degrees of freedom at the estimate.

    Source: Fieller 1954, Journal of the Royal Statistical Society B 16.

    Args:
        values: One value per seed.
        baseline: The other group's values. With a single seed in either group, or a mean that is
            not significantly different from 0, there is no interval.

    Raises:
        InputError: A group has no value, or the baseline's mean is 0.
    """
    x, y, seeds = _mean(values), _mean(baseline), min(len(values), len(baseline))
    if y == 0:
        raise InputError("The baseline's mean is 0: there is no ratio; compare differences.")
    ratio = x / y
    if seeds < 2:
        return Interval.unknown(ratio, seeds)
    variances = _mean_variance(values), _mean_variance(baseline)
    t = _welch_quantile(variances[0], ratio**2 * variances[1], len(values), len(baseline))
    # a r^2 - 2 b r + c <= 0
    a, b, c = y**2 - t**2 * variances[1], x * y, x**2 - t**2 * variances[0]
    if a <= 0:
        return Interval.unknown(ratio, seeds)
    root = math.sqrt(max(b**2 - a * c, 0.0))
    return Interval(ratio, (b - root) / a, (b + root) / a, seeds)


def _welch_quantile(x: float, y: float, n_x: int, n_y: int) -> float:
    """Student's quantile with Welch's degrees of freedom; 0 if neither group varies."""
    if x + y == 0:
        return 0.0
    # Shares rather than squares of variances: squares of small ones underflow.
    share = x / (x + y)
    freedom = 1 / (share**2 / (n_x - 1) + (1 - share) ** 2 / (n_y - 1))
    return float(special.stdtrit(freedom, 0.975))


def one_sided_quantile(freedom: float) -> float:
    """Student's 95 % quantile: a mean is above a bound with this confidence.

    Args:
        freedom: Degrees of freedom, at least 1.
    """
    return float(special.stdtrit(freedom, 0.95))


def _mean(values: Sequence[float]) -> float:
    _check_values(values)
    return float(np.mean(values))


def _mean_variance(values: Sequence[float]) -> float:
    """The variance of a mean."""
    return float(np.var(values, ddof=1)) / len(values)


def _check_values(values: Sequence[float]) -> None:
    if not len(values):
        raise InputError("There is no value: an estimate needs at least one seed.")
