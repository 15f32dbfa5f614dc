"""The global generators of Python, NumPy and torch."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from rltransfer.machine.generators import (
    global_state,
    seeded_global_generators,
    set_global_state,
)


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_state_is_restored() -> None:
    state = global_state()
    first = drawn()
    assert drawn() != first
    set_global_state(state)
    assert drawn() == first


@pytest.mark.parametrize("position", [-1, 625, 2**31 - 1])
def test_numpy_does_not_read_outside_of_its_keys(position: int) -> None:
    """It does not check the position itself, and the process ends."""
    with seeded_global_generators(0):
        state = global_state()
        state["numpy"]["rest"][0] = position
        with pytest.raises(ValueError, match="outside"):
            set_global_state(state)
