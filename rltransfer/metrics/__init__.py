"""Measures of transfer, with intervals: from learning curves, and from scores of runs and tasks."""

from __future__ import annotations

from rltransfer.metrics.bootstrap import (
    aggregate_intervals,
    bootstrap_interval,
    improvement_interval,
    profile_intervals,
)
from rltransfer.metrics.continual import backward_transfer, forgetting, forward_transfer
from rltransfer.metrics.curves import Curve
from rltransfer.metrics.intervals import (
    Interval,
    difference_interval,
    geometric_mean_interval,
    mean_interval,
    ratio_interval,
)
from rltransfer.metrics.scores import (
    interquartile_mean,
    mean_score,
    median_score,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)
from rltransfer.metrics.teacher_ratio import retention
from rltransfer.metrics.thresholds import Times, time_ratio, times_to_threshold
from rltransfer.metrics.transfer import (
    area_ratio,
    asymptotic_gain,
    asymptotic_performance,
    jumpstart,
)

__all__ = [
    "Curve",
    "Interval",
    "Times",
    "aggregate_intervals",
    "area_ratio",
    "asymptotic_gain",
    "asymptotic_performance",
    "backward_transfer",
    "bootstrap_interval",
    "difference_interval",
    "forgetting",
    "forward_transfer",
    "geometric_mean_interval",
    "improvement_interval",
    "interquartile_mean",
    "jumpstart",
    "mean_interval",
    "mean_score",
    "median_score",
    "optimality_gap",
    "performance_profile",
    "probability_of_improvement",
    "profile_intervals",
    "ratio_interval",
    "retention",
    "time_ratio",
    "times_to_threshold",
]
