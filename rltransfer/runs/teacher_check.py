"""An evaluation of the teacher before a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from rltransfer.learning.agent import Agent, TrainingContext
from rltransfer.rollouts.evaluation import Evaluation, evaluate_random, evaluate_teacher
from rltransfer.runs.reaching import joined
from rltransfer.tasks.families import evaluation_task, family_of
from rltransfer.tasks.making import overlaps

CHECK_EPISODES = 8
"""Episodes of the teacher and of a random policy, per task, that the variance is estimated from."""
MAX_EPISODES = 512
"""Largest number of episodes, per task."""
MAX_STEPS = {"device": 500_000, "host": 50_000}
"""Steps per task, by where its environments are, that more than `CHECK_EPISODES` may take."""
FRACTION = 0.03
"""Steps of all tasks relative to those of training, unless the agent needs the returns."""
SECOND_STAGE = 1_000_003
"""Added to the seed for all further episodes."""
TINY = 1e-12
"""Smallest half-width; the teacher may play like a random policy."""
PRECISION = 0.1
"""Half-width of each return's 95 % interval, relative to the difference of the two returns."""


def teacher_check(
    agent: Agent, context: TrainingContext, seed: int, total_steps: int, **how: Any
) -> tuple[dict[str, Evaluation], dict[str, Evaluation], list[str]]:
    """Evaluates the teacher and a random policy before training starts.

    Also passes the returns of the teacher and of a random policy to the agent, if it needs them.

    Args:
        agent: The agent; nothing happens if it has no teacher.
        context: The agent's tasks and device.
        seed: Seed of the environments.
        total_steps: Environment steps of the run.
        how: Further arguments of `evaluate`.

    Returns:
        The teacher's and a random policy's episodes of each task, and a sentence for each task on
        which the teacher is not better than the random policy.
    """
    if agent.teacher is None:
        return {}, {}, []
    steps = math.inf if agent.needs_reference_returns else FRACTION * total_steps
    teacher, random = _reference_episodes(agent, context, seed, False, steps, how)
    sentences = [
        f"The teacher's return on {name!r} is {format_return(one)} over {len(one.returns)} "
        f"episodes, no better than that of a random policy, {format_return(random[name])}."
        for name, one in teacher.items()
        if one.mean <= random[name].mean
    ]
    if agent.needs_reference_returns:
        references = teacher, random
        if any(evaluation_task(task) != task for task in context.suite):
            # With another seed: each label of a vote needs independent noise.
            references = _reference_episodes(agent, context, seed + 1, True, steps, how)
        agent.set_reference_returns(*map(means, references))
    return teacher, random, sentences


def format_return(found: Evaluation) -> str:
    """The mean return with the half-width of its 95 % interval, e.g. "86.1 ± 4.2"."""
    return f"{found.mean:.1f}" + (f" ± {found.ci95:.1f}" if len(found.returns) > 1 else "")


def _reference_episodes(
    agent: Agent,
    context: TrainingContext,
    seed: int,
    as_trained: bool,
    steps: float,
    how: Mapping[str, Any],
) -> tuple[dict[str, Evaluation], dict[str, Evaluation]]:
    """Episodes of the teacher and of a random policy, as many as `PRECISION` needs.

    More than `CHECK_EPISODES` of each take at most `steps`.

    Source: Stein 1945 (two-stage sampling): the variance of the first episodes says how many more.
    """
    given = {"device": context.device, "as_trained": as_trained, **how}

    def teacher(episodes: int, seed: int) -> dict[str, Evaluation]:
        return evaluate_agent_teacher(agent, context, episodes, seed=seed, **given)

    def random(episodes: int, seed: int) -> dict[str, Evaluation]:
        return evaluate_random(context.suite, episodes, seed=seed, **given)

    found = [play(CHECK_EPISODES, seed) for play in (teacher, random)]
    widths = {
        name: PRECISION * abs(one.mean - found[1][name].mean) for name, one in found[0].items()
    }
    for index, play in enumerate((teacher, random)):
        more = _episodes_needed(found[index], widths, context, steps) - CHECK_EPISODES
        if more > 0:
            rest = play(more, seed + SECOND_STAGE)
            found[index] = joined(found[index], rest)
    return found[0], found[1]


def _episodes_needed(
    found: Mapping[str, Evaluation],
    widths: Mapping[str, float],
    context: TrainingContext,
    most: float,
) -> int:
    """Episodes per task until each mean's interval has this half-width, within the bounds."""
    on_device = all(family_of(task) is not None and not overlaps(task) for task in context.suite)
    steps = min(MAX_STEPS["device" if on_device else "host"] * len(found), most)
    affordable = steps / sum(float(np.mean(one.lengths)) for one in found.values())
    needed = max(
        len(one.returns) * (one.ci95 / max(widths[name], TINY)) ** 2 for name, one in found.items()
    )
    return math.ceil(min(needed, affordable, MAX_EPISODES))


def means(found: Mapping[str, Evaluation]) -> dict[str, float]:
    """The mean return of each task."""
    return {name: one.mean for name, one in found.items()}


def evaluate_agent_teacher(
    agent: Agent, context: TrainingContext, episodes: int, **how: Any
) -> dict[str, Evaluation]:
    """Evaluates the agent's teacher on the agent's tasks; `how` is passed to `evaluate`."""
    assert agent.teacher is not None
    return evaluate_teacher(agent.teacher, context.suite, episodes, fitted_to=context.spaces, **how)
