"""What the curves of a run mean: the descriptions that TensorBoard shows."""

from __future__ import annotations

from collections.abc import Mapping

from rltransfer.learning.agent import Agent
from rltransfer.learning.learner import METRICS

EVALUATE_RETURN = "evaluate/return"
"""The return of the learned policy during training."""
EVALUATE_RETURNS = "evaluate/returns"
"""The histogram of the same returns."""
TEACHER_RETURN = "reference/teacher_return"
"""The teacher's return, a horizontal line."""
RANDOM_RETURN = "reference/random_return"
"""A random policy's return, a horizontal line."""
PICTURE = "picture"
"""The picture of a task."""

_DEFINED_RETURN = "Sum of the environment's own rewards over whole episodes."

CURVES = {
    "rollout/return": "Mean return of the episodes that ended while collecting, whoever acted. "
    "Rewards as training sees them, e.g. clipped.",
    "rollout/length": "Mean length of the episodes that ended while collecting, in environment "
    "steps.",
    EVALUATE_RETURN: f"Mean return of the learned policy, acting greedily. {_DEFINED_RETURN}",
    EVALUATE_RETURNS: "Returns of the single episodes of an evaluation of the learned policy, "
    f"acting greedily. {_DEFINED_RETURN}",
    TEACHER_RETURN: "Mean return of the teacher, measured when the run starts. Constant over the "
    f"run. {_DEFINED_RETURN}",
    RANDOM_RETURN: "Mean return of a random policy, measured when the run starts. Constant over "
    f"the run. {_DEFINED_RETURN}",
    "speed/env_steps_per_second": "Environment steps per second, including labelling and learning.",
    "speed/labels_per_second": "The teacher's labels per second of its own time.",
    "speed/teacher_fraction": "The teacher's fraction of the wall time, 0 to 1.",
    "speed/collect_fraction": "Fraction of the wall time that collecting takes, 0 to 1. The rest "
    "is learning.",
    "final/return_mean": f"Mean return of the trained policy at the end. {_DEFINED_RETURN}",
    "final/return_ci95": "Half-width of the 95 % confidence interval of final/return_mean "
    "(Student's t), in units of return.",
    "final/return_ratio": "Return of the trained policy divided by that of its teacher. If a "
    "return is negative, both are relative to the random policy.",
    "final/episodes": "Number of episodes of the final evaluation.",
    "final/random_return_mean": "Mean return of a random policy at the end. " + _DEFINED_RETURN,
    "final/teacher_return_mean": f"Mean return of the teacher at the end. {_DEFINED_RETURN}",
    "final/teacher_return_ci95": "Half-width of the 95 % confidence interval of "
    "final/teacher_return_mean (Student's t), in units of return.",
    "all_tasks/final_return": "Mean of final/return_mean over the tasks, in units of return.",
    "all_tasks/final_return_ratio": "Mean of final/return_ratio over the tasks.",
    "sequence/return": "Mean return of the newest policy on a task of a sequence that it has "
    f"learned, after each task. {_DEFINED_RETURN}",
    "sequence/parameters": "Parameters that acting needs, after each task.",
    "sequence/forgetting": "How far the returns on earlier tasks are below their best, mean over "
    "these tasks, in units of return (Chaudhry 2018).",
    PICTURE: "The task at the start of an episode: rendered, or its image observation. Channels "
    "that are not colours, such as those of MinAtar, have one colour each.",
}
"""Descriptions of what a run itself logs; the name of a task may follow."""


def description_of(tag: str, texts: Mapping[str, str] = CURVES) -> str:
    """The description of a tag, whose end may be a task's name; empty if there is none."""
    front = tag
    while front not in texts and "/" in front:
        front = front.rpartition("/")[0]
    return texts.get(front, "")


class Descriptions:
    """The descriptions of everything that a run logs.

    Args:
        agent: Describes its metrics, and its teacher its figures.
    """

    def __init__(self, agent: Agent) -> None:
        self._texts = {
            **CURVES,
            **{f"train/{name}": text for name, text in METRICS.items()},
            **{f"train/{name}": text for name, text in agent.describe_metrics().items()},
        }
        if agent.teacher is not None:
            figures = agent.teacher.describe_figures()
            self._texts.update({f"teacher/{name}": text for name, text in figures.items()})

    def __call__(self, tag: str) -> str:
        """The description of a tag; empty if a plug-in does not describe its metric."""
        return description_of(tag, self._texts)
