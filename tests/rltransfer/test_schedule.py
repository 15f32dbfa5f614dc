"""Numbers over a run: the three forms in text, their values, and text that is none of them."""

from __future__ import annotations

import pytest

from rltransfer.errors import InputError
from rltransfer.schedule import Schedule


@pytest.mark.parametrize(
    ("text", "progress", "value"),
    [
        ("0.5", 0.0, 0.5),
        ("0.5", 1.0, 0.5),
        ("1->0", 0.0, 1.0),
        ("1->0", 0.25, 0.75),
        ("1->0", 1.0, 0.0),
        # Over the first quarter: half of it is an eighth of the run.
        ("1->0@0.25", 0.125, 0.5),
        ("1->0@0.25", 0.25, 0.0),
        ("1->0@0.25", 0.9, 0.0),
        # 2e-3 - (2e-3 - 1e-3) * 0.5 / 0.5
        ("2e-3 -> 1e-3 @ 0.5", 0.5, 1e-3),
        # Upwards, from below zero: -1 + 3 / 4 * 2.
        ("-1->+1", 0.75, 0.5),
    ],
)
def test_value_of_each_form(text: str, progress: float, value: float):
    assert Schedule.of(text)(progress) == pytest.approx(value, abs=1e-15)


def test_of_takes_numbers_and_schedules():
    assert Schedule.of(0.1) == Schedule(0.1, 0.1)
    assert Schedule.of(1) == Schedule(1.0, 1.0)
    assert Schedule.of(1e-5) == Schedule(1e-5, 1e-5)
    made = Schedule(1.0, 0.0, 0.5)
    assert Schedule.of(made) is made


def test_constant_is_exact_all_the_way():
    constant = Schedule.of(1e-3)
    assert {constant(step / 97) for step in range(98)} == {1e-3}


@pytest.mark.parametrize(
    "text",
    ["", "much", "1->", "->0", "1->0@", "0.5@0.5", "1-->0", "1->0->1", "nan", "--1", "1 2", "e"],
)
def test_text_that_is_no_schedule(text: str):
    with pytest.raises(InputError) as caught:
        Schedule.of(text)
    assert str(caught.value) == f"{text!r} is not a schedule: write a number, '1->0' or '1->0@0.5'."


@pytest.mark.parametrize("text", ["1->0@0", "1->0@1.5", "1->0@-1"])
def test_end_outside_the_run(text: str):
    with pytest.raises(InputError, match=r"^A schedule ends at .* of the run: it must be in"):
        Schedule.of(text)


@pytest.mark.parametrize("text", ["1e999", "1->-1e999"])
def test_infinite_ends(text: str):
    with pytest.raises(InputError, match="both must be finite"):
        Schedule.of(text)


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Schedule(0.5, 0.5), "0.5"),
        (Schedule(1.0, 0.0), "1->0"),
        (Schedule(1.0, 0.05, 0.1), "1->0.05@0.1"),
        # Not cut to six digits: a resumed run would go on with another number.
        (Schedule(1 / 3, 0.1234567891, 2 / 3), None),
        (Schedule(1234567.0, 1e-17), None),
    ],
)
def test_text_says_exactly_the_same(schedule: Schedule, text: str | None):
    assert text is None or str(schedule) == text
    assert Schedule.of(str(schedule)) == schedule


def test_is_zero():
    assert Schedule.of("0").is_zero
    assert Schedule.of("0->0").is_zero
    assert not Schedule.of("1->0").is_zero
    assert not Schedule.of("0->1").is_zero


@pytest.mark.parametrize("text", ["-0.1", "1.1", "-0.1->1", "0->1.1@0.5"])
def test_a_value_out_of_range_is_refused(text: str):
    with pytest.raises(InputError) as caught:
        Schedule.of(text).check("epsilon", "from 0 to 1")
    assert str(caught.value) == f"epsilon is {text}: it must be from 0 to 1."


def test_values_in_range_are_not_refused():
    Schedule.of("0->1").check("epsilon", "from 0 to 1")
    Schedule.of("7->0").check("weight", "at least 0")
