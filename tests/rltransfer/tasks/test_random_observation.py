"""Random observations are of their spaces, small enough to compute with, and repeatable."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces

from rltransfer.tasks.random_observation import random_observation

SPACE = spaces.Dict(
    {
        "wide": spaces.Box(-3.4e38, 3.4e38, (3,), np.float32),
        "endless": spaces.Box(-np.inf, np.inf, (2,), np.float32),
        "image": spaces.Box(0, 255, (2, 4, 4), np.uint8),
    }
)


def test_each_group_has_its_shape_and_type() -> None:
    seen = random_observation(SPACE, 5)
    assert list(seen) == list(SPACE.spaces)
    assert seen["wide"].shape == (5, 3) and seen["wide"].abs().max() <= 1e4
    assert seen["endless"].dtype == torch.float32 and seen["endless"].isfinite().all()
    assert seen["image"].dtype == torch.uint8 and seen["image"].shape == (5, 2, 4, 4)


def test_the_seed_decides_and_the_space_is_left_alone() -> None:
    first, same, other = (random_observation(SPACE, 5, seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["image"], other["image"])
    SPACE.seed(3)
    expected = SPACE.sample()
    SPACE.seed(3)
    random_observation(SPACE, 5)
    assert np.array_equal(SPACE.sample()["image"], expected["image"])


def test_discrete_ones_are_one_hot_and_single_numbers_are_rows() -> None:
    drawn = random_observation(
        spaces.Dict(a=spaces.Discrete(4, start=2), b=spaces.Box(0, 255, (), np.uint8)), 6
    )
    assert drawn["a"].shape == (6, 4) and (drawn["a"].sum(1) == 1).all()
    assert drawn["b"].shape == (6, 1) and drawn["b"].dtype == torch.uint8
