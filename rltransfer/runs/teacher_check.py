"""A few episodes of the teacher before a run."""

from __future__ import annotations

from collections.abc import Mapping

from rltransfer.learning.agent import Agent, TrainingContext
from rltransfer.rollouts.evaluation import (
    Evaluation,
    evaluate_random,
    evaluate_teacher,
)
from rltransfer.tasks.families import evaluation_task

CHECK_EPISODES = 8
"""Episodes that a teacher plays before a run."""


def teacher_check(
    agent: Agent, context: TrainingContext, seed: int
) -> tuple[dict[str, float], list[str]]:
    """Lets the teacher play a few episodes before a minute is spent on learning from it.

    The agent is told how well the teacher and random actions do, if it asks for that.

    Args:
        agent: Whose teacher; nothing happens if it has none.
        context: What the agent works on.
        seed: Seeds the environments.

    Returns:
        The teacher's mean return of each task, and a sentence for each in which chance does as
        well.
    """
    if agent.teacher is None:
        return {}, []
    taught, by_chance = _compared(agent, context, seed)
    sentences = [
        f"The teacher's return on {name!r} is {one.mean:.1f} over {CHECK_EPISODES} episodes, "
        f"no better than that of random actions, {by_chance[name].mean:.1f}."
        for name, one in taught.items()
        if one.mean <= by_chance[name].mean
    ]
    if agent.needs_reference_returns:
        trained = taught, by_chance
        if any(evaluation_task(task) != task for task in context.suite):
            # Of another seed: each label of a vote must have noise of its own.
            trained = _compared(agent, context, seed + 1, as_trained=True)
        agent.set_reference_returns(*map(_means, trained))
    return _means(taught), sentences


def _compared(
    agent: Agent, context: TrainingContext, seed: int, as_trained: bool = False
) -> tuple[dict[str, Evaluation], dict[str, Evaluation]]:
    """Lets the teacher and random actions play a few episodes each."""
    taught = evaluate_agent_teacher(agent, context, CHECK_EPISODES, seed, as_trained)
    by_chance = evaluate_random(
        context.suite, CHECK_EPISODES, seed=seed, device=context.device, as_trained=as_trained
    )
    return taught, by_chance


def _means(found: Mapping[str, Evaluation]) -> dict[str, float]:
    """Returns each task's mean return."""
    return {name: one.mean for name, one in found.items()}


def evaluate_agent_teacher(
    agent: Agent, context: TrainingContext, episodes: int, seed: int, as_trained: bool = False
) -> dict[str, Evaluation]:
    """Evaluates the agent's teacher."""
    assert agent.teacher is not None
    return evaluate_teacher(
        agent.teacher, context.suite, episodes, seed=seed, device=context.device,
        fitted_to=context.spaces, as_trained=as_trained,
    )  # fmt: skip
