"""The table's ratio means something where returns are negative, too."""

from __future__ import annotations

import pytest

from rltransfer.runs.report import result_table, return_ratio, with_interval


def row(random: float, teacher: float, student: float) -> dict[str, float]:
    return {
        "random_return_mean": random, "teacher_return_mean": teacher,
        "teacher_return_ci95": 1.0, "return_mean": student, "return_ci95": 1.0,
    }  # fmt: skip


def test_ratio_of_positive_returns_is_plain() -> None:
    assert return_ratio(row(1.0, 20.0, 19.0)) == pytest.approx(0.95)


def test_ratio_of_negative_returns_counts_from_chance() -> None:
    # Chance -21, teacher -1, student -3: 18 of the 20 points above chance.
    assert return_ratio(row(-21.0, -1.0, -3.0)) == pytest.approx(0.9)
    # Teacher at zero or at chance: no division by zero.
    assert return_ratio(row(-10.0, 0.0, -1.0)) == pytest.approx(0.9)
    assert return_ratio(row(-1.0, -1.0, -1.0)) == 0.0
    assert return_ratio(row(0.0, 0.0, 0.0)) == 0.0


def test_an_interval_that_is_not_known() -> None:
    assert with_interval(9.04, 1.25) == "9.0 ± 1.2"
    assert with_interval(9.04, None) == with_interval(9.04, float("inf")) == "9.0 ± ?"


def test_a_run_without_a_teacher_has_no_teacher_columns() -> None:
    tasks = {"T": {"random_return_mean": 0.0, "return_mean": 1.0, "return_ci95": 0.1}}
    table = result_table([{"teacher_parameters": None, "student_parameters": 5, "tasks": tasks}])
    assert table.heads == ["task", "random", "return", "parameters"]
