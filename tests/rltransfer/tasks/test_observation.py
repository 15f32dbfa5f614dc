"""Groups of observations, the space that several tasks share, and spaces as JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rltransfer.errors import InputError
from rltransfer.tasks.observation import (
    as_groups,
    grouped,
    joint_observation_space,
    space_from_json,
    space_to_json,
)


def vector(size: int, low: float = -1.0, high: float = 1.0) -> spaces.Box:
    return spaces.Box(low, high, (size,), np.float32)


def image(channels: int, side: int = 10) -> spaces.Box:
    return spaces.Box(0, 1, (channels, side, side), np.uint8)


def test_plain_observations_are_the_group_policy():
    assert grouped(vector(3)) == spaces.Dict({"policy": vector(3)})
    groups = spaces.Dict({"camera": image(4), "joints": vector(2)})
    assert grouped(groups) is groups
    observation = torch.zeros(2, 3)
    assert as_groups(observation)["policy"] is observation
    named = {"camera": observation}
    assert as_groups(named) is named


def test_joint_space_of_equal_tasks_is_theirs():
    box = vector(3, low=-2.5)
    assert joint_observation_space([("a", box), ("b", box)]) == spaces.Dict({"policy": box})


def test_joint_space_is_the_largest():
    joint = joint_observation_space([("a", image(4)), ("b", image(10)), ("c", image(6))])
    assert joint["policy"] == image(10)
    joint = joint_observation_space([("a", vector(2, -3, 1)), ("b", vector(5, -1, 2))])
    assert joint["policy"] == vector(5, -3, 2)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (image(4, 10), image(4, 12)),
        (image(4), spaces.Box(0, 1, (4, 10, 10), np.float32)),
        (image(4), vector(4)),
    ],
)
def test_kinds_that_cannot_be_joined(one: spaces.Box, other: spaces.Box):
    with pytest.raises(InputError, match="The tasks 'a' and 'b' cannot share a policy"):
        joint_observation_space([("a", one), ("b", other)])


@pytest.mark.parametrize("turned", [False, True])
def test_groups_that_only_one_task_has(turned: bool):
    less = spaces.Dict({"joints": vector(2)})
    more = spaces.Dict({"joints": vector(2), "camera": image(4)})
    named: list[tuple[str, spaces.Space[Any]]] = [("a", less), ("b", more)]
    if turned:
        named = [("a", more), ("b", less)]
    with pytest.raises(InputError, match="only one of them observes the group 'camera'"):
        joint_observation_space(named)


def test_observations_that_are_no_numbers():
    with pytest.raises(InputError, match=r"'a' observes 'policy' as Discrete\(5\)"):
        joint_observation_space([("a", spaces.Discrete(5)), ("b", spaces.Discrete(5))])


@pytest.mark.parametrize(
    "space",
    [
        image(4),
        vector(3),
        spaces.Box(-np.inf, np.inf, (2,), np.float64),
        # One bound for each number, and a float32 that has no short decimal form.
        spaces.Box(
            np.array([-1, -np.inf], np.float32), np.array([1 / 3, np.inf], np.float32), (2,)
        ),
        spaces.Box(-1 / 3, 1 / 3, (), np.float32),
        spaces.Box(0, 255, (4, 84, 84), np.uint8),
        spaces.Discrete(18),
        spaces.Dict({"camera": image(4), "joints": vector(2)}),
    ],
)
def test_json_round_trip(space: spaces.Space[Any]):
    # allow_nan=False: infinities must have become text, which every JSON reader takes.
    text = json.dumps(space_to_json(space), allow_nan=False)
    found = space_from_json(json.loads(text))
    assert found == space
    if isinstance(space, spaces.Box) and isinstance(found, spaces.Box):
        # Spaces whose bounds are close are equal: these must be the same.
        assert np.array_equal(found.low, space.low) and np.array_equal(found.high, space.high)


def test_space_without_a_json_form():
    with pytest.raises(TypeError, match="MultiBinary"):
        space_to_json(spaces.MultiBinary(3))
