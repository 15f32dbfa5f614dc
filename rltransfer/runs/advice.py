"""How far a student came, and what would bring it further, by what its run saw."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from rltransfer.metrics.teacher_ratio import return_ratio

ENOUGH = 0.95
"""Fraction of the teacher's return, random play being 0, that needs no advice."""
AGREES = 0.95
"""Fraction of observations with the teacher's greedy action that counts as the same policy."""
FALLING = 0.95
"""The loss still falls if the last tenth of the rollouts has less than this times the one before.
"""
FEWEST = 20
"""Rollouts that a trend needs."""


class Advice:
    """Follows a run, and says at its end what would help."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._agreements: list[float] = []

    def see(self, metrics: Mapping[str, float]) -> None:
        """Remembers a rollout's metrics."""
        self._losses.append(metrics.get("train/loss", 0.0))
        if "train/agreement" in metrics:
            self._agreements.append(metrics["train/agreement"])

    def sentence(self, tasks: Mapping[str, Mapping[str, Any]], student_acts: bool) -> str | None:
        """What to say at the end of a run; None where the student is good enough.

        Args:
            tasks: The figures of `result.json`.
            student_acts: Whether the student acts at some time of the run.
        """
        kept = {
            name: return_ratio(
                one["return_mean"], one["teacher_return_mean"], one["random_return_mean"]
            )
            for name, one in tasks.items()
            if one.get("teacher_return_mean", one["random_return_mean"]) > one["random_return_mean"]
        }
        if not kept or min(kept.values()) >= ENOUGH:
            return None
        name, least = min(kept.items(), key=lambda one: one[1])
        return f"keeps {least:.0%} of the teacher's return on {name}: {self._what(student_acts)}"

    def _what(self, student_acts: bool) -> str:
        """What would help."""
        tenth = max(len(self._losses) // 10, 1)
        if len(self._losses) >= FEWEST:
            last, before = self._losses[-tenth:], self._losses[-2 * tenth : -tenth]
            # A loss with RL may be negative, and then tells nothing.
            if 0 <= statistics.fmean(last) < FALLING * statistics.fmean(before):
                return "its loss still falls, so that more --total-steps would help"
        agreement = statistics.fmean(self._agreements[-tenth:]) if self._agreements else None
        if agreement is not None and agreement < AGREES:
            return (
                f"it chooses the teacher's action in {agreement:.0%} of the states, so that a "
                "larger --size or --width, or more --epochs, would help"
            )
        if not student_acts:
            return (
                "it has only seen the teacher's states, so that --teacher-acts '1->0', which shows "
                "it its own, would help"
            )
        # The step size falls to 0, and with it any loss comes to rest: of too few steps, too.
        return (
            "its loss came to rest, so that more --total-steps, or a larger --size or --width, "
            "would help"
        )
