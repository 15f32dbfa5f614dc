"""The final evaluation of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from rltransfer.learning.agent import Agent, TrainingContext
from rltransfer.rollouts.evaluation import evaluate_policy, evaluate_random
from rltransfer.runs.report import return_ratio
from rltransfer.runs.teacher_check import evaluate_agent_teacher


def final_evaluation(
    agent: Agent, context: TrainingContext, episodes: int, seed: int, **how: Any
) -> dict[str, dict[str, float]]:
    """Evaluates policy, teacher and random policy with the same seeds.

    Args:
        agent: The trained agent.
        context: The agent's tasks and device.
        episodes: Number of episodes for each of the three, per task.
        seed: Seed of the environments.
        how: Further arguments of `evaluate`.

    Returns:
        The figures of `result.json`, by task name.
    """
    policy = agent.policy.eval()
    how = {"seed": seed, "device": context.device, **how}
    found = evaluate_policy(policy, context.suite, episodes, **how)
    random = evaluate_random(context.suite, episodes, **how)
    teacher = evaluate_agent_teacher(agent, context, episodes, **how) if agent.teacher else {}
    tasks: dict[str, dict[str, float]] = {}
    for name, one in found.items():
        tasks[name] = {
            "return_mean": one.mean,
            "return_ci95": one.ci95,
            "episodes": len(one.returns),
            "random_return_mean": random[name].mean,
        }
        if name in teacher:
            tasks[name]["teacher_return_mean"] = teacher[name].mean
            tasks[name]["teacher_return_ci95"] = teacher[name].ci95
    return tasks


def final_curves(tasks: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The figures of `final_evaluation` as curves of one point, with the means over the tasks.

    The means have a name that sorts before all others: TensorBoard's table of hyperparameters
    first shows the first five metrics.
    """
    curves: dict[str, float] = {}
    for task, figures in tasks.items():
        curves |= {f"final/{name}/{task}": v for name, v in figures.items() if math.isfinite(v)}
    means = {"final_return": [one["return_mean"] for one in tasks.values()]}
    if all("teacher_return_mean" in one for one in tasks.values()):
        ratios = {task: return_ratio(one) for task, one in tasks.items()}
        curves |= {f"final/return_ratio/{task}": ratio for task, ratio in ratios.items()}
        means["final_return_ratio"] = list(ratios.values())
    return curves | {f"all_tasks/{name}": fmean(values) for name, values in means.items() if values}
