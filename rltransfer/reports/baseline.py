"""The group that all others are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rltransfer.errors import InputError, unknown
from rltransfer.reports.grouping import Group, Names


@dataclass(frozen=True)
class Baseline:
    """The baseline, and why it is this one."""

    group: Group | None
    """The group; None if there is nothing to compare."""
    reason: str
    """A sentence that says how it was chosen."""


def choose_baseline(groups: Sequence[Group], wanted: str | None, names: Names) -> Baseline:
    """The wanted baseline, or else the group that learns from scratch.

    Of several groups from scratch, it is the one that has most tasks in common with the others,
    then the one with most finished runs, then the first. Without one from scratch, all groups are
    compared in this way.

    Args:
        groups: The groups.
        wanted: A group's label or a part of it, or a run or a folder of runs of one group.
        names: What tasks are called.

    Raises:
        InputError: No group, or more than one, is the wanted one.
    """
    if wanted is not None:
        return Baseline(_wanted(groups, wanted), "It was chosen with --baseline.")
    if len(groups) < 2:
        return Baseline(None, "There is one group of runs: nothing is compared.")
    scratch = [group for group in groups if group.is_from_scratch]
    found = max(scratch or groups, key=lambda one: (_shared(one, groups, names), one.num_finished))
    if len(scratch) == 1:
        reason = "It is the only group that learns without a teacher or another run."
    elif scratch:
        reason = (
            f"Of the {len(scratch)} groups that learn without a teacher or another run, it has the "
            "most tasks in common with the others, then the most finished runs: choose another "
            "with --baseline."
        )
    else:
        reason = (
            "Every group learns from a teacher or another run. It has the most tasks in common "
            "with the others, then the most finished runs: choose another with --baseline."
        )
    return Baseline(found, reason)


def task_baseline(
    task: str, groups: Sequence[Group], chosen: Baseline, wanted: bool, names: Names
) -> Baseline:
    """The baseline on one task: the chosen one if it has runs of it, else one of those that have.

    Args:
        task: The task's name in the report.
        groups: All groups.
        chosen: The baseline of the report.
        wanted: Whether the user chose it: then there is no other.
        names: What tasks are called.
    """
    having = [one for one in groups if any(task in names.tasks(run) for run in one.runs)]
    if chosen.group is None or chosen.group in having:
        return Baseline(chosen.group, "")
    if wanted or len(having) < 2:
        return Baseline(None, "The baseline has no run of this task.")
    other = choose_baseline(having, None, names)
    assert other.group is not None
    sentence = f"The baseline has no run of this task, so {other.group.label} is the baseline here."
    return Baseline(other.group, f"{sentence} {other.reason}")


def _shared(group: Group, groups: Sequence[Group], names: Names) -> int:
    """How many tasks of other groups a group has."""
    own = {task for run in group.runs for task in names.tasks(run)}
    return sum(
        len(own & {task for run in other.runs for task in names.tasks(run)})
        for other in groups
        if other is not group
    )


def _wanted(groups: Sequence[Group], text: str) -> Group:
    """The one group that a text names."""
    labels = {group.label: group for group in groups}
    if text in labels:
        return labels[text]
    path = Path(text).resolve()
    found = [
        group
        for group in groups
        if any(path in (run.path.resolve(), *run.path.resolve().parents) for run in group.runs)
    ]
    found = found or [group for label, group in labels.items() if text in label]
    if len(found) > 1:
        several = ", ".join(repr(group.label) for group in found)
        raise InputError(f"The baseline {text!r} is of several groups: use one of {several}.")
    if not found:
        raise unknown("group of runs", text, labels)
    return found[0]
