"""What differs between groups besides what is compared: settings, and reasons for caution."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rltransfer.reports.grouping import SOURCES, Group, Names

EVALUATION = {
    "episodes": "episodes of the final evaluation",
    "evaluate_episodes": "episodes of each evaluation",
    "evaluate_every": "steps between evaluations",
    "evaluate_max_steps": "steps after which an evaluation cuts an episode",
}
"""Options of the evaluation, which groups do not depend on."""


@dataclass(frozen=True)
class Difference:
    """A setting that groups do not share."""

    setting: str
    """Its name."""
    values: Mapping[str, str]
    """Its value by group; groups without it are missing."""


def differing_settings(groups: Sequence[Group]) -> list[Difference]:
    """The settings that differ between groups, the method first.

    An option that only one method has is a part of the method and is left out; a source is listed
    even if only one group has one.

    Args:
        groups: All groups.
    """
    names: dict[str, None] = {}
    for group in groups:
        names.update(dict.fromkeys(group.settings))
    found = []
    for name in names:
        values = {one.label: one.settings[name] for one in groups if name in one.settings}
        if len(set(values.values())) > 1 or (name in SOURCES and len(values) < len(groups)):
            found.append(Difference(name, values))
    return found


def warnings(groups: Sequence[Group], baseline: Group | None, names: Names) -> list[str]:
    """Sentences about what makes a comparison with the baseline unfair or uncertain.

    Args:
        groups: All groups.
        baseline: The baseline; without one, only each group by itself is looked at.
        names: What tasks are called.
    """
    found = [sentence for group in groups for sentence in _by_itself(group)]
    if baseline is not None:
        for group in groups:
            if group is not baseline:
                found += _compared(group, baseline, names)
    return found


def _by_itself(group: Group) -> Iterator[str]:
    """What is wrong with a group alone."""
    who = group.label
    if len(group.seeds) == 1:
        yield f"{who} has one seed: there is no interval, and any difference may be chance."
    cut = [run for run in group.runs if not run.is_finished]
    if cut:
        yield (
            f"{who}: {len(cut)} of {len(group.runs)} runs were cut short, or still train. They "
            "count for the steps to the threshold alone."
        )
    if group.repeated:
        listed = ", ".join(run.name for run in group.repeated)
        yield (
            f"{who}: {listed} repeats a seed that another of its runs has, and is not counted: "
            "equal seeds are not independent."
        )
    unevaluated = [run for run in group.runs if run.is_finished and not run.returns]
    if unevaluated:
        yield f"{who}: {len(unevaluated)} finished runs have no final evaluation."


def _compared(group: Group, baseline: Group, names: Names) -> Iterator[str]:
    """What makes a comparison of two groups unfair."""
    who, other = group.label, baseline.label
    steps = {run.total_steps for run in group.runs}, {run.total_steps for run in baseline.runs}
    if steps[0] != steps[1]:
        yield (
            f"Budgets differ: {who} trains for {_listed(steps[0])} steps, {other} for "
            f"{_listed(steps[1])}. Curves are compared over the steps that both cover; final "
            "returns are not."
        )
    sizes = [max(len(run.suite) for run in one.runs) for one in (group, baseline)]
    if sizes[0] != sizes[1]:
        yield (
            f"Numbers of tasks differ: {who} learns {_tasks(sizes[0])}, {other} "
            f"{_tasks(sizes[1])}. Steps count over all tasks of a run."
        )
    for task in names.all():
        parameters = [_parameters(one, task, names) for one in (group, baseline)]
        if all(parameters) and not parameters[0] & parameters[1]:
            yield (
                f"Networks differ: {who} has {_listed(parameters[0])} parameters on {task}, "
                f"{other} {_listed(parameters[1])}."
            )
            break
    yield from _seeds(group, baseline, names)
    for option, words in EVALUATION.items():
        values = [
            {json.dumps(run.options[option]) for run in one.runs if option in run.options}
            for one in (group, baseline)
        ]
        if all(values) and values[0] != values[1]:
            texts = [", ".join(sorted(one)) for one in values]
            yield f"Evaluations differ: the {words} are {texts[0]} of {who}, {texts[1]} of {other}."
    if not group.is_from_scratch and baseline.is_from_scratch:
        yield f"The steps that the source of {who} was trained for are not counted."


def _parameters(group: Group, task: str, names: Names) -> set[int]:
    """The numbers of parameters of a group's policies on a task, as far as they are known."""
    found = [run.result.get("student_parameters") for run in group.runs if task in names.tasks(run)]
    return {number for number in found if isinstance(number, int)}


def _seeds(group: Group, baseline: Group, names: Names) -> Iterator[str]:
    """Where two groups have different numbers of seeds on a task that both have."""
    said: set[tuple[int, int]] = set()
    for task in names.all():
        one, other = (sum(task in names.tasks(run) for run in of.runs) for of in (group, baseline))
        if one and other and one != other and (one, other) not in said:
            said.add((one, other))
            yield (
                f"Numbers of seeds differ: {group.label} has {_seed(one)} on {task}, "
                f"{baseline.label} {_seed(other)}."
            )


def _seed(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"


def _tasks(count: int) -> str:
    return "one task" if count == 1 else f"{count} tasks at once"


def _listed(numbers: set[int]) -> str:
    return " or ".join(f"{number:,}" for number in sorted(numbers))
