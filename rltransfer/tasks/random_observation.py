"""Random observations, to try a network with."""

from __future__ import annotations

import copy

import numpy as np
import torch
from gymnasium import spaces

from rltransfer.tasks.observation import Observation

LARGEST = 1e4
"""Bound on the absolute value of a number: spaces go up to the largest float, where sums end."""


def random_observation(space: spaces.Dict, count: int, seed: int = 0) -> Observation:
    """Returns random observations, the same for the same seed.    (count, *shape) each

    Args:
        space: The groups.
        count: How many observations.
        seed: The seed.
    """
    drawn = copy.deepcopy(space)  # a space draws from a generator of its own
    drawn.seed(seed)
    observation: Observation = {}
    for name, part in drawn.spaces.items():
        batch = np.stack([part.sample() for _ in range(count)])
        if np.issubdtype(batch.dtype, np.floating):
            batch = batch.clip(-LARGEST, LARGEST)
        observation[name] = torch.from_numpy(batch)
    return observation
