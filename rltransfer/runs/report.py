"""Tables of results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rltransfer.machine.tables import FittedTable
from rltransfer.metrics import teacher_ratio

OPTIONAL = ("of teacher", "parameters", "random", "student/teacher")
"""Columns that a narrow terminal leaves out, the least important first."""


def with_interval(mean: float, ci95: float | None) -> str:
    """A mean with its 95 % confidence interval, as text; "?" if the interval is unknown.

    Args:
        mean: The mean.
        ci95: Half of the interval; None or infinite with one episode.
    """
    known = ci95 is not None and math.isfinite(ci95)
    return f"{mean:.1f} ± {ci95:.1f}" if known else f"{mean:.1f} ± ?"


def result_table(results: Sequence[dict[str, Any]], generations: bool = False) -> FittedTable:
    """A table of results, one row per task: returns of random policy, teacher and student, sizes.

    The ratio of student to teacher is relative to the random policy if a return is negative:
    (student - random) / (teacher - random).

    Args:
        results: Contents of `result.json` files.
        generations: Whether the results are the generations of a chain, and get numbers.
    """
    has_teacher = any(result["teacher_parameters"] is not None for result in results)
    heads = ["task", "random", "teacher", "student", "student/teacher", "parameters", "of teacher"]
    if not has_teacher:
        heads = ["task", "random", "return", "parameters"]
    heads = ["generation"] * generations + heads
    table = FittedTable(heads, OPTIONAL)
    for number, result in enumerate(results, 1):
        for task_id, row in result["tasks"].items():
            cells = [str(number)] * generations + [task_id, f"{row['random_return_mean']:.1f}"]
            student = with_interval(row["return_mean"], row["return_ci95"])
            size = f"{result['student_parameters']:,}"
            if not has_teacher:
                table.add_row(*cells, student, size)
                continue
            teacher = with_interval(row["teacher_return_mean"], row["teacher_return_ci95"])
            cells += [teacher, student]
            share = result["student_parameters"] / max(result["teacher_parameters"] or 0, 1)
            known = bool(result["teacher_parameters"])
            cells += [f"{100 * return_ratio(row):.0f} %", size]
            table.add_row(*cells, f"{100 * share:.1f} %" if known else "?")
    return table


def return_ratio(row: dict[str, float]) -> float:
    """A student's return relative to its teacher's."""
    student, teacher = row["return_mean"], row["teacher_return_mean"]
    random = row["random_return_mean"]
    negative = min(student, teacher, random) < 0
    return teacher_ratio.return_ratio(student, teacher, random if negative else 0.0)
