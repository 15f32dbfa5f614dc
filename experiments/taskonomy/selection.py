"""The best sources for a budget, by integer programming (Zamir 2018, section 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from rltransfer.errors import InputError

Gains = Mapping[str, Mapping[str, float]]
"""What a task gains from the weights of another, over random weights: by source, then by target."""


@dataclass(frozen=True)
class Selection:
    """Tasks that are learned first, and what the others start from."""

    sources: tuple[str, ...]
    """Tasks that are learned from random weights, as sources."""
    starts: Mapping[str, str]
    """The source of each other task; a task that is missing starts from random weights."""
    gain: float
    """The sum of the gains."""


def best_selection(tasks: Sequence[str], gains: Gains, budget: int) -> Selection:
    """Chooses at most `budget` sources so that the gains of all other tasks add up to the most.

    Each task is a source, or starts from one source, or from random weights with a gain of 0.

    The program is that of Zamir 2018: a variable in {0, 1} for each source and for each transfer,
    at most one transfer into each task, and none without its source. Differs from it: a transfer
    has one source, as a policy starts from one set of weights, and may be left out.

    Args:
        tasks: All tasks.
        gains: The gains of transfers between tasks. A transfer that is missing is not possible.
        budget: The largest number of sources, at least 1.

    Raises:
        InputError: The budget is below 1, a gain is not finite, or a name is not a task.
    """
    transfers = [(s, t, value) for s, row in gains.items() for t, value in row.items() if s != t]
    _check(tasks, transfers, budget)
    n, m = len(tasks), len(transfers)
    place = {task: index for index, task in enumerate(tasks)}
    # Variables: the sources, then the transfers.
    start_once = np.zeros((n, n + m))  # source + transfers into it <= 1
    start_once[:, :n] = np.eye(n)
    needs_source = np.zeros((m, n + m))  # transfer - source <= 0
    for index, (source, target, _) in enumerate(transfers):
        start_once[place[target], n + index] = 1
        needs_source[index, n + index], needs_source[index, place[source]] = 1, -1
    within_budget = np.concatenate([np.ones(n), np.zeros(m)])[None]
    upper = np.concatenate([np.ones(n), np.zeros(m), [budget]])
    found = milp(
        -np.array([0.0] * n + [value for _, _, value in transfers]),
        constraints=LinearConstraint(
            np.concatenate([start_once, needs_source, within_budget]), ub=upper
        ),
        integrality=np.ones(n + m),
        bounds=Bounds(0, 1),
    )
    chosen = np.round(found.x).astype(bool)
    starts = {t: s for (s, t, _), used in zip(transfers, chosen[n:], strict=True) if used}
    # A source that no task starts from costs nothing here, and is left out.
    return Selection(
        sources=tuple(task for task in tasks if task in starts.values()),
        starts=starts,
        gain=float(sum(gains[source][target] for target, source in starts.items())),
    )


def _check(tasks: Sequence[str], transfers: Sequence[tuple[str, str, float]], budget: int) -> None:
    if budget < 1:
        raise InputError(f"A budget of {budget} has no source: it must be at least 1.")
    for source, target, value in transfers:
        for name in (source, target):
            if name not in tasks:
                raise InputError(f"{name!r} has gains but is not among the tasks.")
        if not np.isfinite(value):
            raise InputError(
                f"The gain of {target!r} from {source!r} is {value}: it must be finite."
            )
