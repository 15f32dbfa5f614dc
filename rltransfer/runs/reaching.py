"""When a student is as good as it is asked to be: `--until`.

After an evaluation at which the student keeps the fraction of the teacher's return on every task,
both play further episodes, until it is sure or the student falls short again. With S, T and R the
mean returns of student, teacher and a random policy, and u the fraction, it is sure if

    S - (u T + (1 - u) R) > t sqrt(v_S + u^2 v_T + (1 - u)^2 v_R),

with the variances v of the means and Student's one-sided 95 % quantile t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from rltransfer.metrics.intervals import one_sided_quantile
from rltransfer.rollouts.evaluation import Evaluation

Evaluations = Mapping[str, Evaluation]
"""The episodes on each task, by its name."""
FURTHER = (48, 64, 128, 256)
"""Further episodes of student and of teacher, per task, one batch after the other."""


def distance(student: float, teacher: float, random: float, fraction: float) -> float:
    """S - (u T + (1 - u) R): how far a student is above the fraction, in units of return."""
    return student - fraction * teacher - (1 - fraction) * random


def is_there(student: Evaluations, teacher: Evaluations, random: Evaluations, u: float) -> bool:
    """Whether the mean returns are there on every task, sure or not.

    Never where the teacher is not better than the random policy: a student can keep nothing there.
    """
    return all(
        teacher[name].mean > random[name].mean
        and distance(one.mean, teacher[name].mean, random[name].mean, u) >= 0
        for name, one in student.items()
    )


def is_sure(student: Evaluations, teacher: Evaluations, random: Evaluations, u: float) -> bool:
    """Whether the student is surely there on every task; see the module's docstring."""
    return all(_is_sure(one, teacher[name], random[name], u) for name, one in student.items())


def _is_sure(student: Evaluation, teacher: Evaluation, random: Evaluation, u: float) -> bool:
    groups = (student, teacher, random)
    fewest = min(len(one.returns) for one in groups)
    if fewest < 2:
        return False
    variances = [float(np.var(one.returns, ddof=1)) / len(one.returns) for one in groups]
    weights = (1.0, u**2, (1 - u) ** 2)
    deviation = math.sqrt(sum(w * v for w, v in zip(weights, variances, strict=True)))
    above = distance(student.mean, teacher.mean, random.mean, u)
    # The degrees of freedom are those of the smallest group, which is on the safe side.
    return above >= one_sided_quantile(fewest - 1) * deviation


def confirmed(
    student: Evaluations,
    teacher: Evaluations,
    random: Evaluations,
    fraction: float,
    play: Callable[[int, int], tuple[Evaluations, Evaluations]],
) -> tuple[bool, Evaluations]:
    """Whether a student is surely there, with as many further episodes as that needs.

    Args:
        student: Its episodes so far.
        teacher: The teacher's.
        random: A random policy's.
        fraction: u.
        play: Plays a number of further episodes, the k-th batch of them, of student and teacher.

    Returns:
        Whether it is, and all of the teacher's episodes.
    """
    for batch, episodes in enumerate(FURTHER):
        if not is_there(student, teacher, random, fraction):
            return False, teacher
        if is_sure(student, teacher, random, fraction):
            return True, teacher
        more = play(episodes, batch)
        student, teacher = joined(student, more[0]), joined(teacher, more[1])
    return is_sure(student, teacher, random, fraction), teacher


def joined(some: Evaluations, others: Evaluations) -> dict[str, Evaluation]:
    """The episodes of both."""
    return {
        name: Evaluation(one.returns + others[name].returns, one.lengths + others[name].lengths)
        for name, one in some.items()
    }
