"""Groups: runs that differ in nothing but the seed, and in the task if they have only one.

Two runs are in one group if their method and all settings are equal. Left out of the comparison:

- the seed, and where and how a run is computed, stored and evaluated (`IGNORED`);
- the task, if a run has a single one: a group is then compared on several tasks;
- which seed of its source a run learned from: a source that is itself among the runs counts by its
  group, and by its tasks if they are not the run's own; any other one by its name, without the
  run's seed if it ends with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from rltransfer.reports.reading import RunRecord, Source
from rltransfer.tasks.task import Task

IGNORED = ("seed", "device", "threads", "compile", "episodes")
"""Options of a run that do not change what is learned."""

IGNORED_BEGINNINGS = ("evaluate_", "checkpoint_")
"""How further such options begin."""

SOURCES = ("teacher", "init_from", "distilled", "columns", "vecnormalize")
"""Settings that name sources."""

LONGEST_VALUE = 48
"""Characters of a value in a label."""

SAME = "own task"
"""The task of a source that is the run's own."""

Settings = dict[str, str]
"""A run's settings as text, by name: those of networks have dots."""


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in the seed alone."""

    label: str
    """The method, and the settings that tell it from other groups."""
    settings: Mapping[str, str]
    """What all its runs share, by name."""
    runs: tuple[RunRecord, ...]
    """Its runs, one per seed and task, in the order of tasks and seeds."""
    repeated: tuple[RunRecord, ...] = ()
    """Further runs with a seed that there is already: they are not counted."""

    @property
    def agent(self) -> str:
        """Name of the method."""
        return self.runs[0].agent

    @property
    def is_from_scratch(self) -> bool:
        """Whether its runs learned without a source."""
        return not any(run.sources for run in self.runs)

    @property
    def seeds(self) -> list[int]:
        """The different seeds, in order."""
        return sorted({run.seed for run in self.runs})

    @property
    def num_finished(self) -> int:
        """Number of finished runs."""
        return sum(run.is_finished for run in self.runs)


class Names:
    """What a report calls tasks: their id, with the arguments where runs differ in them."""

    def __init__(self, runs: Sequence[RunRecord]) -> None:
        self._by_id: dict[str, list[Task]] = {}
        for run in runs:
            for task in run.suite:
                known = self._by_id.setdefault(task.id, [])
                if task not in known:
                    known.append(task)

    def of(self, task: Task) -> str:
        """The name of a task."""
        return task.id if len(self._by_id[task.id]) == 1 else str(task)

    def tasks(self, run: RunRecord) -> dict[str, str]:
        """A run's tasks: for the name in the report, the name in the run's own files."""
        named = zip(run.suite, run.suite.names(), strict=True)
        return {self.of(task): name for task, name in named}

    def all(self) -> list[str]:
        """All tasks, in the order in which the runs have them."""
        return [self.of(task) for tasks in self._by_id.values() for task in tasks]


class Lineage:
    """Which of the runs others learned from."""

    def __init__(self, runs: Sequence[RunRecord]) -> None:
        self._by_hash = {sha256: run for run in runs for sha256 in run.weights}
        self._runs = runs

    def run_of(self, source: Source, student: RunRecord) -> RunRecord | None:
        """The run that a source is, if it is one of them.

        It is the one whose checkpoints have the source's hash; else the only one whose path ends
        with the source's.
        """
        found = self._by_hash.get(source.sha256)
        if found is None:
            found = self._by_path(source.text, student)
        return None if found is student else found

    def _by_path(self, text: str, student: RunRecord) -> RunRecord | None:
        parts = PurePath(text).parts
        found = [
            run
            for run in self._runs
            if run is not student and parts and run.path.resolve().parts[-len(parts) :] == parts
        ]
        return found[0] if len(found) == 1 else None


def group_runs(runs: Sequence[RunRecord], names: Names, lineage: Lineage) -> list[Group]:
    """The groups of runs, in the order in which their first runs come.

    Args:
        runs: The runs, each once.
        names: What their tasks are called.
        lineage: Which of them others learned from.
    """
    settings = _SettingsOf(names, lineage)
    members: dict[str, list[RunRecord]] = {}
    shown: list[Settings] = []
    for run in runs:
        key = settings.key(run)
        if key not in members:
            shown.append(settings.shown(run))
        members.setdefault(key, []).append(run)
    groups = []
    origins = [settings.source_settings(of[0]) for of in members.values()]
    labels = label_settings(shown, origins)
    for label, common, of in zip(labels, shown, members.values(), strict=True):
        counted, repeated = _one_per_seed(of, names)
        groups.append(Group(label, common, tuple(counted), tuple(repeated)))
    return groups


def _one_per_seed(
    runs: Sequence[RunRecord], names: Names
) -> tuple[list[RunRecord], list[RunRecord]]:
    """One run per seed and task, the furthest; and the others."""
    order = {name: index for index, name in enumerate(names.all())}
    chosen: dict[tuple[int, int], RunRecord] = {}
    for run in runs:
        place = min(order[name] for name in names.tasks(run)), run.seed
        known = chosen.get(place)
        if known is None or (run.is_finished, run.steps) > (known.is_finished, known.steps):
            chosen[place] = run
    counted = [chosen[place] for place in sorted(chosen)]
    return counted, [run for run in runs if run not in counted]


class _SettingsOf:
    """The settings of runs, with sources that are runs replaced by their groups."""

    def __init__(self, names: Names, lineage: Lineage) -> None:
        self.names = names
        self.lineage = lineage
        self._keys: dict[int, str] = {}

    def key(self, run: RunRecord) -> str:
        """A text that is equal for runs of one group, and for no others."""
        if id(run) not in self._keys:
            self._keys[id(run)] = run.agent  # should sources lead back to the run itself
            self._keys[id(run)] = json.dumps(self._settings(run, keys=True), sort_keys=True)
        return self._keys[id(run)]

    def shown(self, run: RunRecord) -> Settings:
        """The same settings for people: a source is shown by its method, not by all of it."""
        return self._settings(run, keys=False)

    def source_settings(self, run: RunRecord) -> Settings:
        """The settings for people of the first of the runs that a run learned from, if any."""
        known = (self.lineage.run_of(source, run) for source in run.sources)
        return next((self.shown(one) for one in known if one is not None), {})

    def _settings(self, run: RunRecord, keys: bool) -> Settings:
        method = run.method
        sources = {source.text: self._source(source, run, keys) for source in run.sources}
        found: Settings = {"agent": run.agent}
        for name, value in _flat(method):
            if name in SOURCES and value is None:
                continue
            if name == "columns" and isinstance(value, list):
                found[name] = ", ".join(sources.get(one, f"{one}") for one in value)
                continue
            text = value if isinstance(value, str) else json.dumps(value)
            name = f"network.{name.removeprefix('student.')}" if "student." in name[:8] else name
            found[name] = _replaced(text, sources) if name in SOURCES else text
        teachers = [one for one in run.sources if one.kind == "teacher"]
        written = method.get("teacher")
        if teachers and (isinstance(written, dict) or "(" not in f"{written}"):
            # Not the text of a composition, which says more than its members.
            found["teacher"] = ", ".join(sources[one.text] for one in teachers)
        for source in run.sources:
            if source.kind == "init_from":
                found["init_from"] = sources[source.text]
        for name, value in run.options.items():
            if name == "ewc_from":
                found[name] = f"{len(value)} runs" if value and isinstance(value, list) else "none"
            elif name not in (*IGNORED, *SOURCES) and not name.startswith(IGNORED_BEGINNINGS):
                found[name] = json.dumps(value)
        if len(run.suite) > 1:
            found["tasks"] = ", ".join(self.names.tasks(run))
        if run.generation is not None:
            found["generation"] = str(run.generation)
        return found

    def _source(self, source: Source, run: RunRecord, keys: bool) -> str:
        known = self.lineage.run_of(source, run)
        if known is None:
            return _without_task(source.text, run)
        tasks, own = self.names.tasks(known), self.names.tasks(run)
        where = SAME if tasks.keys() == own.keys() else " + ".join(tasks)
        return f"{self.key(known) if keys else known.agent} ({where})"


def source_tasks(source: Source, run: RunRecord, names: Names, lineage: Lineage) -> str:
    """What a source was trained on, for the rows of a transfer matrix; its text if unknown."""
    known = lineage.run_of(source, run)
    if known is not None:
        return " + ".join(names.tasks(known))
    own = " + ".join(names.tasks(run))
    if source.text == "zoo":
        return own
    return source.text.removeprefix("zoo:")


def _replaced(text: str, sources: Mapping[str, str]) -> str:
    """A text in which sources are replaced, the longest first."""
    for source in sorted(sources, key=len, reverse=True):
        if source:
            text = text.replace(source, sources[source])
    return text


def _without_task(text: str, run: RunRecord) -> str:
    """A source's text without the run's seed at its end, and without the name of its only task.

    Groups depend on neither.
    """
    text = re.sub(rf"(?<=[-_/]){run.seed}/?$", "SEED", text)
    if len(run.suite) != 1:
        return text
    task = run.suite.tasks[0].id
    if text == f"zoo:{task}":
        return "zoo"
    for name in (task, task.replace("/", "-"), task.rpartition("/")[2]):
        text = text.replace(name, "TASK")
    return text


def _flat(settings: Mapping[str, Any], front: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict) and value and name not in SOURCES:
            yield from _flat(value, f"{front}{name}.")
        else:
            yield f"{front}{name}", value


def label_settings(
    groups: Sequence[Mapping[str, str]], origins: Sequence[Mapping[str, str]] = ()
) -> list[str]:
    """A label for each group: the method, and the fewest settings that tell its groups apart.

    Args:
        groups: The settings of each group.
        origins: The settings of the runs that each group learned from, which tell groups apart that
            are otherwise called the same.
    """
    labels = [""] * len(groups)
    for agent in {group["agent"] for group in groups}:
        places = [place for place, group in enumerate(groups) if group["agent"] == agent]
        names = _telling([groups[place] for place in places])
        for place in places:
            labels[place] = " ".join([agent, *_parts(groups[place], names)])
    for label in {one for one in labels if labels.count(one) > 1}:
        places = [place for place, one in enumerate(labels) if one == label]
        same = [origins[place] for place in places] if origins else []
        names = _telling(same) if all(same) else []
        for place in places:
            labels[place] = " ".join([label, *_parts(origins[place], names)] if names else [label])
    seen: dict[str, int] = {}
    for place, label in enumerate(labels):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] > 1:
            labels[place] = f"{label} ({seen[label]})"
    return labels


def _parts(settings: Mapping[str, str], names: Sequence[str]) -> list[str]:
    return [f"{_short(name, names)}={_cut(settings.get(name))}" for name in names]


def _telling(groups: Sequence[Mapping[str, str]]) -> list[str]:
    """The names of few settings that differ between all of some groups."""
    names: dict[str, None] = {}
    for group in groups:
        names.update(dict.fromkeys(group))
    chosen: list[str] = []

    def kinds(of: Sequence[str]) -> int:
        return len({tuple(group.get(name) for name in of) for group in groups})

    while kinds(chosen) < kinds(list(names)):
        chosen.append(max(names, key=lambda name: kinds([*chosen, name])))
    return chosen


def _short(name: str, names: Sequence[str]) -> str:
    """A setting's name without what it is a part of, unless another would be the same."""
    last = name.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in names) == 1 else name


def _cut(value: str | None) -> str:
    if value is None:
        return "none"
    if value.isdecimal() and value.isascii() and len(value) < 19:
        return f"{int(value):,}"
    return value if len(value) <= LONGEST_VALUE else f"{value[: LONGEST_VALUE - 3]}..."
