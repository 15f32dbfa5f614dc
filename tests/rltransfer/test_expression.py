"""The reader of text: what it reads, what it refuses, and that it executes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from rltransfer.errors import InputError
from rltransfer.expression import Call, Expression, Name, Operation, is_literal, read, shown

REFUSAL = InputError("Not an expression.")


@pytest.mark.parametrize(
    ("text", "expected", "literal"),
    [
        (" None ", None, True),
        ("'a' \"b\"", "ab", True),
        ("-3", -3, True),
        ("1.5e-3", 0.0015, True),
        ("[1, ('x', None)]", (1, ("x", None)), True),
        ("{'a': {'b': ()}}", {"a": {"b": ()}}, True),
        ("kl", Name("kl"), False),
        ("[a]", (Name("a"),), False),
        ("{'a': f()}", {"a": Call("f", (), {})}, False),
        ("f(1, g, x='y')", Call("f", (1, Name("g")), {"x": "y"}), False),
        ("f(**2)", Call("f", (), {"**": 2}), False),
        # Python's precedence, from left to right.
        (
            "a + 2 * b + 3",
            Operation("+", Operation("+", Name("a"), Operation("*", 2, Name("b"))), 3),
            False,
        ),
        ("1 + 1", Operation("+", 1, 1), False),
    ],
)
def test_what_is_read(text: str, expected: Expression, literal: bool):
    found = read(text, REFUSAL)
    assert found == expected
    assert is_literal(found) == literal


@pytest.mark.parametrize(
    "text",
    [
        "", "1; 2", "a = 1", "True", "-True", "-'was never closed'", "--1", "+1", "b'a'", "1j",
        "...", "f''", "1e38", "-1e38", "1e999", "1" * 400, "1" * 5_000, "{1: 2}", "{'a': 1, **b}",
        "{'a'}", "a.b", "a[0]", "a()()", "a.b()", "f(*a)", "a - b", "a / b", "a < b", "a and b",
        "lambda: 1", "[a for a in 'b']", "(a := 1)", "a if b else c", "a\0", ")", "(" * 300,
        "not a", "[" * 150 + "]" * 150, "+".join("a" * 3_000), "-" * 3_000 + "1",
        "f(" * 3_000 + ")" * 3_000,
    ],
)  # fmt: skip
def test_what_is_refused(text: str):
    with pytest.raises(InputError) as caught:
        read(text, REFUSAL)
    assert caught.value is REFUSAL


@pytest.mark.parametrize("text", ["f(", "f('a', [1", "{'a': f(1)"])
def test_a_bracket_that_is_left_open(text: str):
    with pytest.raises(InputError, match=r"A bracket is left open in .*: close it\."):
        read(text, REFUSAL)


def test_nothing_is_executed(tmp_path: Path):
    target = tmp_path / "made"
    # A call is read as a call, and nobody makes it.
    read(f"open({str(target)!r}, 'w')", REFUSAL)
    for text in (f"__import__('pathlib').Path({str(target)!r}).touch()", f"f'{{open({target})}}'"):
        with pytest.raises(InputError):
            read(text, REFUSAL)
    assert not target.exists()


def test_a_long_text_is_shortened():
    assert shown("kl") == "'kl'"
    assert shown("1" * 201) == repr("1" * 200 + "...")
