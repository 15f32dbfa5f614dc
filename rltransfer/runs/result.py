"""What a run says of its policy: before it begins, and at its end."""

from __future__ import annotations

from collections.abc import Mapping

from rltransfer.learning.agent import Agent, TrainingContext
from rltransfer.rollouts.evaluation import (
    Evaluation,
    evaluate_policy,
    evaluate_random,
)
from rltransfer.runs.teacher_check import evaluate_agent_teacher


def final_evaluation(
    agent: Agent, context: TrainingContext, episodes: int, seed: int
) -> dict[str, dict[str, float]]:
    """Evaluates policy, teacher and random actions, with the same seeds.

    Args:
        agent: Whose policy and teacher.
        context: What the agent works on.
        episodes: Whole episodes of each.
        seed: Seeds the environments.

    Returns:
        For each task the figures of `result.json`.
    """
    policy, device = agent.policy.eval(), context.device
    found = evaluate_policy(policy, context.suite, episodes, seed=seed, device=device)
    by_chance = evaluate_random(context.suite, episodes, seed=seed, device=device)
    taught: Mapping[str, Evaluation] = {}
    if agent.teacher is not None:
        taught = evaluate_agent_teacher(agent, context, episodes, seed)
    tasks: dict[str, dict[str, float]] = {}
    for name, one in found.items():
        tasks[name] = {
            "return_mean": one.mean,
            "return_ci95": one.ci95,
            "episodes": len(one.returns),
            "random_return_mean": by_chance[name].mean,
        }
        if name in taught:
            tasks[name]["teacher_return_mean"] = taught[name].mean
            tasks[name]["teacher_return_ci95"] = taught[name].ci95
    return tasks
