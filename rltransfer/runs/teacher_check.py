"""A short evaluation of the teacher before a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rltransfer.learning.agent import Agent, TrainingContext
from rltransfer.rollouts.evaluation import Evaluation, evaluate_random, evaluate_teacher
from rltransfer.tasks.families import evaluation_task

CHECK_EPISODES = 8
"""Episodes of the teacher before a run, per task."""


def teacher_check(
    agent: Agent, context: TrainingContext, seed: int, **how: Any
) -> tuple[dict[str, float], list[str]]:
    """Evaluates the teacher for a few episodes before training starts.

    Also passes the returns of the teacher and of a random policy to the agent, if it needs them.

    Args:
        agent: The agent; nothing happens if it has no teacher.
        context: The agent's tasks and device.
        seed: Seed of the environments.
        how: Further arguments of `evaluate`.

    Returns:
        The teacher's mean return of each task, and a sentence for each task on which the teacher is
        not better than a random policy.
    """
    if agent.teacher is None:
        return {}, []

    def returns(seed: int, as_trained: bool) -> tuple[dict[str, float], dict[str, float]]:
        given = {"seed": seed, "device": context.device, "as_trained": as_trained, **how}
        teacher = evaluate_agent_teacher(agent, context, CHECK_EPISODES, **given)
        random = evaluate_random(context.suite, CHECK_EPISODES, **given)
        return _means(teacher), _means(random)

    teacher, random = returns(seed, as_trained=False)
    sentences = [
        f"The teacher's return on {name!r} is {mean:.1f} over {CHECK_EPISODES} episodes, no better "
        f"than that of a random policy, {random[name]:.1f}."
        for name, mean in teacher.items()
        if mean <= random[name]
    ]
    if agent.needs_reference_returns:
        references = teacher, random
        if any(evaluation_task(task) != task for task in context.suite):
            # With another seed: each label of a vote needs independent noise.
            references = returns(seed + 1, as_trained=True)
        agent.set_reference_returns(*references)
    return teacher, sentences


def _means(found: Mapping[str, Evaluation]) -> dict[str, float]:
    return {name: one.mean for name, one in found.items()}


def evaluate_agent_teacher(
    agent: Agent, context: TrainingContext, episodes: int, **how: Any
) -> dict[str, Evaluation]:
    """Evaluates the agent's teacher on the agent's tasks; `how` is passed to `evaluate`."""
    assert agent.teacher is not None
    return evaluate_teacher(agent.teacher, context.suite, episodes, fitted_to=context.spaces, **how)
