"""Whether a rollout fits into memory, before one is collected."""

from __future__ import annotations

import math

import numpy as np

from rltransfer.errors import InputError
from rltransfer.machine.free_memory import format_gib, free_memory
from rltransfer.rollouts.engine import RolloutEngine


def check_rollout_size(engine: RolloutEngine, rollout_length: int) -> None:
    """Checks that the observations of a rollout fit into the memory of their device.

    Args:
        engine: The environments.
        rollout_length: Steps of each environment.

    Raises:
        InputError: They do not fit.
    """
    groups = engine.spaces.observation_space.spaces.values()
    step = sum(math.prod(group.shape or ()) * np.dtype(group.dtype).itemsize for group in groups)
    needed = (rollout_length + 1) * engine.num_rows * step
    free = free_memory(engine.device)
    if free is not None and needed > free:
        raise InputError(
            f"A rollout of {rollout_length} steps in {engine.num_rows} environments takes "
            f"{format_gib(needed)}, but {format_gib(free)} are free: use a smaller "
            "--rollout-length or --num-envs."
        )
