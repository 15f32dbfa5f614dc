"""The spaces of a suite: what fits, and what cannot be padded."""

from __future__ import annotations

import numpy as np
import pytest
from fitting import spaces_of
from gymnasium import spaces

from rltransfer.errors import InputError
from rltransfer.tasks.task import Suite

VECTOR = spaces.Dict({"policy": spaces.Box(-1.0, 1.0, (3,), np.float32)})
TWO = spaces.Discrete(2)


def test_a_suite_is_padded_to_the_spaces_of_a_policy() -> None:
    longer = spaces.Dict({"policy": spaces.Box(-1.0, 1.0, (5,), np.float32)})
    padded = spaces_of(Suite.of("a"), [(VECTOR, TWO)]).padded_to(longer, spaces.Discrete(4))
    assert padded.observation_space == longer and padded.own[0].observation == VECTOR
    assert padded.action_mask == ((True, True, False, False),)


@pytest.mark.parametrize(
    ("observed", "acted"),
    [
        (spaces.Dict({"policy": spaces.Box(0, 255, (3,), np.uint8)}), TWO),
        (spaces.Dict({"camera": VECTOR["policy"]}), TWO),
        (VECTOR, spaces.Box(-1.0, 1.0, (2,), np.float32)),
    ],
)
def test_other_kinds_of_spaces_are_refused(observed: spaces.Dict, acted: spaces.Space) -> None:
    with pytest.raises(InputError, match="'the policy' and 'a' cannot share a policy"):
        spaces_of(Suite.of("a"), [(VECTOR, TWO)]).padded_to(observed, acted)
