"""The returns of the teacher and of a random policy, as lines that curves are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rltransfer.learning.agent import TrainingContext
from rltransfer.rollouts.evaluation import Evaluation, evaluate_random
from rltransfer.runs.descriptions import RANDOM_RETURN, TEACHER_RETURN

LONGEST = 2_000
"""Steps of a random policy's episodes on the host; a task with longer ones has no line."""


def random_episodes(
    context: TrainingContext, episodes: int, seed: int, on_device: bool, **how: Any
) -> dict[str, Evaluation]:
    """A random policy's episodes of each task whose episodes all end soon.

    Args:
        context: The tasks and the device.
        episodes: Number of episodes per task; 0 for none.
        seed: Seed of the environments.
        on_device: Whether the environments are simulated on the device: long episodes then cost
            little.
        how: Further arguments of `evaluate`.
    """
    if not episodes:
        return {}
    limit = how["max_steps"] if on_device else min(how["max_steps"], LONGEST)
    how = {**how, "max_steps": limit, "seed": seed, "device": context.device}
    found = evaluate_random(context.suite, episodes, **how)
    return {name: one for name, one in found.items() if max(one.lengths) <= limit}


def reference_lines(
    teacher: Mapping[str, Evaluation], random: Mapping[str, Evaluation]
) -> dict[str, float]:
    """The mean returns as points of curves."""
    return {
        f"{curve}/{task}": one.mean
        for curve, found in ((TEACHER_RETURN, teacher), (RANDOM_RETURN, random))
        for task, one in found.items()
    }
