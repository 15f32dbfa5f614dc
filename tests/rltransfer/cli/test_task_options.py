"""Tasks as they are asked for: a suite, one task, several."""

from __future__ import annotations

import pytest

import rltransfer as rt
from rltransfer.cli.parsing import parse
from rltransfer.cli.task_options import TaskOptions, requested_suite


def asked(*words: str) -> rt.Suite:
    return requested_suite(parse(TaskOptions, words, "rltransfer"))


def test_one_task_or_several_for_one_policy() -> None:
    assert asked("--task", "CartPole-v1") == rt.Suite.of("CartPole-v1")
    assert asked("--env-id", "CartPole-v1") == rt.Suite.of("CartPole-v1")
    assert asked("--task", "CartPole-v1", "Acrobot-v1") == rt.Suite.of("CartPole-v1", "Acrobot-v1")


def test_options_are_each_tasks() -> None:
    made = [rt.Task(name, {"goal_velocity": 0.01, "render_mode": "ansi"}) for name in ("a", "b")]
    words = ("--task-option", "goal_velocity=0.01", "render_mode=ansi")
    assert asked("--task", "a", "b", *words).tasks == rt.Suite.of(*made).tasks


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "either --task ID or --suite NAME"),
        (("--task",), "either --task ID or --suite NAME"),
        (("--task", "CartPole-v1", "--suite", "minatar"), "either --task ID or --suite NAME"),
        (("--task", "a", "b", "a"), "contains a task twice"),
        (("--suite", "CartPole-v1"), "is a task, not a suite: use --task CartPole-v1"),
        (("--suite", ""), "There is no suite ''"),
        (("--task", "a", "--task-option", "x"), "write NAME=VALUE"),
        (
            ("--task", "a", "--task-option", "x=" + "[" * 100 + "]" * 100),
            "'x' of 'a' is nested too",
        ),
        (("--task", "a", "--task-option", "x=" + "[" * 9000), r"option 'x' is '\[\[.* too deeply"),
        (("--task", "a", "--task-option", "x=" + "9" * 9000), "option 'x' is '99.* digits"),
        (("--task", "a", "--task-option", "x=1", "x=2"), "'x' has two values: set it once"),
        (
            ("--task", "a", "--transform", "noise", "--task-option", "observation_transform=zoom"),
            "'observation_transform' has two values",
        ),
        (("--suite", "minatar-soup", "--transform", "noise"), "set that themselves. Leave it out"),
    ],
)
def test_refusals(words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(rt.InputError, match=sentence):
        asked(*words)
