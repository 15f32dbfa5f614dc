"""What differs between groups besides what is compared: settings, and reasons for caution."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rltransfer.reports.grouping import SOURCES, Group, Names
from rltransfer.reports.reading import RunRecord

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


class Remark(NamedTuple):
    """A reason for caution about one group; those of one kind become one sentence."""

    kind: str
    """What it is about."""
    clause: str
    """What is so, of which group."""
    after: str = ""
    """A sentence that follows all clauses."""


def warnings(groups: Sequence[Group], baselines: Mapping[str, Group], names: Names) -> list[str]:
    """Sentences about what makes a comparison with the baseline unfair or uncertain.

    Args:
        groups: All groups.
        baselines: The baseline of each task that has one. Groups are compared with it if they have
            runs of that task.
        names: What tasks are called.
    """
    remarks = [remark for group in groups for remark in _by_itself(group)]
    pairs: dict[tuple[int, int], tuple[Group, Group]] = {}
    for task, baseline in baselines.items():
        for group in groups:
            if group is not baseline and any(task in names.tasks(run) for run in group.runs):
                pairs[id(group), id(baseline)] = group, baseline
    for group, baseline in pairs.values():
        remarks += _compared(group, baseline, names)
    clauses: dict[tuple[str, str], list[str]] = {}
    for remark in remarks:
        clauses.setdefault((remark.kind, remark.after), []).append(remark.clause)
    return [
        " ".join(filter(None, (f"{kind}: {'; '.join(found)}.", after)))
        for (kind, after), found in clauses.items()
    ]


def _by_itself(group: Group) -> Iterator[Remark]:
    """What is wrong with a group alone."""
    who = group.label
    if len(group.seeds) == 1:
        after = "There is no interval, and any difference may be chance."
        yield Remark("One seed", who, after)
    cut = [run for run in group.runs if not run.is_finished]
    if cut:
        yield Remark(
            "Cut short, or still training",
            f"{len(cut)} of {len(group.runs)} runs of {who}",
            "They count for the steps to the threshold alone.",
        )
    for run in group.repeated:
        after = "They are not counted: equal seeds are not independent."
        yield Remark("Repeated seeds", f"{run.name} of {who}", after)
    unevaluated = [run for run in group.runs if run.is_finished and not run.returns]
    if unevaluated:
        clause = f"{len(unevaluated)} of {len(group.runs)} runs of {who}"
        yield Remark("Without a final evaluation", clause)


def _compared(group: Group, baseline: Group, names: Names) -> Iterator[Remark]:
    """What makes a comparison of two groups unfair."""
    who, other = group.label, baseline.label
    steps = {run.total_steps for run in group.runs}, {run.total_steps for run in baseline.runs}
    if steps[0] != steps[1]:
        yield Remark(
            "Budgets differ",
            f"{who} trains for {_listed(steps[0])} steps, {other} for {_listed(steps[1])}",
            "Curves are compared over the steps that both cover; final returns are not.",
        )
    sizes = [max(len(run.suite) for run in one.runs) for one in (group, baseline)]
    if sizes[0] != sizes[1]:
        yield Remark(
            "Numbers of tasks differ",
            f"{who} learns {_tasks(sizes[0])}, {other} {_tasks(sizes[1])}",
            "Steps count over all tasks of a run.",
        )
    yield from _on_tasks(group, baseline, names)
    for option, words in EVALUATION.items():
        values = [
            {json.dumps(run.options[option]) for run in one.runs if option in run.options}
            for one in (group, baseline)
        ]
        if all(values) and values[0] != values[1]:
            texts = [", ".join(sorted(one)) for one in values]
            clause = f"the {words} are {texts[0]} of {who}, {texts[1]} of {other}"
            yield Remark("Evaluations differ", clause)
    if not group.is_from_scratch and baseline.is_from_scratch:
        after = "Add them where a source was trained for the sake of the transfer."
        yield Remark("The steps of the source are not counted", who, after)


def _on_tasks(group: Group, baseline: Group, names: Names) -> Iterator[Remark]:
    """Where networks and numbers of seeds differ, on the first task where they do."""
    both, kinds = (group, baseline), set()
    for task in names.all():
        runs = [[run for run in one.runs if task in names.tasks(run)] for one in both]
        if not all(runs):
            continue
        parameters = [_parameters(of) for of in runs]
        if all(parameters) and not parameters[0] & parameters[1] and "networks" not in kinds:
            kinds.add("networks")
            yield Remark(
                "Networks differ",
                f"{group.label} has {_listed(parameters[0])} parameters on {task}, "
                f"{baseline.label} {_listed(parameters[1])}",
            )
        one, other = map(len, runs)
        if one != other and "seeds" not in kinds:
            kinds.add("seeds")
            yield Remark(
                "Numbers of seeds differ",
                f"{group.label} has {_seed(one)} on {task}, {baseline.label} {_seed(other)}",
            )


def _parameters(runs: Sequence[RunRecord]) -> set[int]:
    """The numbers of parameters of runs' policies, as far as they are known."""
    found = [run.result.get("student_parameters") for run in runs]
    return {number for number in found if isinstance(number, int)}


def _seed(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"


def _tasks(count: int) -> str:
    return "one task" if count == 1 else f"{count} tasks at once"


def _listed(numbers: set[int]) -> str:
    return " or ".join(f"{number:,}" for number in sorted(numbers))
