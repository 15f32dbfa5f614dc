"""Random observations for trying out a network."""

from __future__ import annotations

import copy

import numpy as np
import torch
from gymnasium import spaces

from rltransfer.tasks.observation import Observation, shown_shape

LARGEST = 1e4
"""Bound on the absolute value of an entry: spaces may extend to the largest float, whose sums
overflow."""


def random_observation(space: spaces.Dict, count: int, seed: int = 0) -> Observation:
    """Random observations, the same for the same seed; discrete ones are one-hot.

    (count, *shape) each
    """
    drawn = copy.deepcopy(space)  # seeding changes the space's own generator
    drawn.seed(seed)
    observation: Observation = {}
    for name, part in drawn.spaces.items():
        batch = np.stack([part.sample() for _ in range(count)])
        if isinstance(part, spaces.Discrete):
            batch = np.eye(int(part.n), dtype=np.float32)[batch - part.start]
        if np.issubdtype(batch.dtype, np.floating):
            batch = batch.clip(-LARGEST, LARGEST)
        observation[name] = torch.from_numpy(batch.reshape(count, *(shown_shape(part) or (1,))))
    return observation
