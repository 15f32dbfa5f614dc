"""Tasks and suites: names, JSON, equality, and suites that cannot be."""

from __future__ import annotations

import json

import pytest

from rltransfer.errors import InputError
from rltransfer.tasks.task import Suite, Task

PONG = Task("ALE/Pong-v5", {"frameskip": 4, "full_action_space": False})


def test_with_kwargs_adds_and_replaces():
    changed = PONG.with_kwargs(frameskip=1, mode=2)
    assert changed == Task("ALE/Pong-v5", {"frameskip": 1, "full_action_space": False, "mode": 2})
    assert PONG.kwargs == {"frameskip": 4, "full_action_space": False}


def test_equal_tasks_have_equal_hashes():
    turned = Task("ALE/Pong-v5", {"full_action_space": False, "frameskip": 4})
    nested = Task("x", {"a": {"b": 1, "c": 2}, "list": [1]})
    same = Task("x", {"list": [1], "a": {"c": 2, "b": 1.0}})
    assert turned == PONG and hash(PONG) == hash(turned)
    assert nested == same and hash(nested) == hash(same)
    assert len({PONG, turned, nested, same, PONG.with_kwargs(frameskip=1)}) == 3


def test_json_round_trip():
    suite = Suite("two", (PONG, Task("CartPole-v1")))
    assert Suite.from_json(json.loads(json.dumps(suite.to_json()))) == suite
    assert Task.from_json(json.loads(json.dumps(PONG.to_json()))) == PONG


def test_a_task_from_json_counts_as_named_by_a_file():
    read = Task.from_json(PONG.to_json())
    assert read.from_file and not PONG.from_file and not read.trusted().from_file
    assert all(task.from_file for task in Suite.from_json(Suite.of(PONG).to_json()))


def test_suite_of_tasks_and_ids():
    suite = Suite.of("CartPole-v1", PONG)
    assert suite.name == "CartPole-v1+ALE/Pong-v5"
    assert list(suite) == [Task("CartPole-v1"), PONG] and len(suite) == 2


def test_empty_suite():
    with pytest.raises(InputError) as caught:
        Suite("none", ())
    assert str(caught.value) == "The suite 'none' contains no task: it needs at least one."


def test_task_twice():
    with pytest.raises(InputError, match="contains a task twice"):
        Suite.of("CartPole-v1", "CartPole-v1")
    with pytest.raises(InputError, match="contains a task twice"):
        Suite("nested", (Task("x", {"a": {"b": 1, "c": 2}}), Task("x", {"a": {"c": 2, "b": 1}})))
    # Other arguments, another task.
    assert len(Suite.of(PONG, PONG.with_kwargs(frameskip=1))) == 2


def test_results_tell_tasks_of_one_id_apart():
    assert Suite.of("A", "B").names() == ("A", "B")
    assert Suite.of(Task("A", {"size": 3})).names() == ("A",)
    suite = Suite("sizes", (Task("A", {"size": 3}), Task("A", {"size": 4}), Task("B")))
    assert suite.names() == ('A{"size": 3}', 'A{"size": 4}', "B")


def test_a_policy_knows_a_task_by_its_place():
    suite = Suite("rooms", (*(Task("Room", {"goal": goal}) for goal in range(3)), Task("Hall")))
    assert [suite.place_of(task) for task in suite] == [0, 1, 2, 3]
    # With arguments beside those that tell the tasks apart.
    assert suite.place_of(Task("Room", {"time_limit": 9, "goal": 2})) == 2
    assert suite.place_of(Task("Hall", {"time_limit": 9})) == 3
    # Another goal, or none said: any of the three could be meant, so that none is.
    assert suite.place_of(Task("Room", {"goal": 7})) is None
    assert suite.place_of(Task("Room")) is None
    assert suite.place_of(Task("Stairs")) is None
    # Of one task alone its id is enough.
    assert Suite.of(Task("Room", {"goal": 1})).place_of(Task("Room", {"goal": 7})) == 0


@pytest.mark.parametrize("name", [5, "", None])
def test_keyword_arguments_have_names(name: object) -> None:
    with pytest.raises(InputError, match="its name must be text"):
        Task("CartPole-v1", {name: 1})  # type: ignore[dict-item]
