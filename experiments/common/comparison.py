"""Comparisons: several policies evaluated on the same episodes, each only once.

The evaluation at the end of a run also evaluates its teacher and a random policy. An experiment
with many students of one teacher keeps that evaluation short and compares all policies here, so
that the teacher is evaluated once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rltransfer.experiments.common.trials import THREADS, run_parallel
from rltransfer.files.atomic import write_text_whole
from rltransfer.files.untrusted import read_json
from rltransfer.machine.devices import find_device
from rltransfer.rollouts.evaluation import evaluate_random, evaluate_teacher
from rltransfer.tasks.task import Suite
from rltransfer.teachers.composition import Composition, repr_option
from rltransfer.teachers.loading import load_teacher
from rltransfer.teachers.teacher import Teacher

RANDOM = "random"
"""Name and source of the random policy."""

TEACHER = "teacher"
"""Name of the teacher that all students are compared with."""

Returns = Mapping[str, Mapping[str, float]]
"""The mean return of each policy, by comparison: see `compare`."""

RUN_EPISODES = 2
"""Episodes of the evaluation at the end of each run; the comparison provides the figures."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Policies to evaluate on one task; each result is stored in a file as soon as it is known."""

    path: Path
    """The JSON file."""
    task: str
    """The task's id."""
    players: Mapping[str, str]
    """For each policy's name a source for `load_teacher`, or `RANDOM`."""
    episodes: int
    """Number of whole episodes per policy."""
    seed: int
    """Seed of the environments, the same for all policies."""

    def stored(self) -> dict[str, float] | None:
        """The mean return of each policy; None unless all are stored with the present weights."""
        stored = self._read()
        identities = {name: _identity(source) for name, source in self.players.items()}
        if any(stored.get(name, {}).get("identity") != now for name, now in identities.items()):
            return None
        return {name: stored[name]["return_mean"] for name in self.players}

    def play(self) -> dict[str, float]:
        """Evaluates the policies that are not stored yet, and returns all mean returns."""
        if THREADS:
            torch.set_num_threads(THREADS)
        stored = self._read()
        for name, source in self.players.items():
            identity = _identity(source)
            if stored.get(name, {}).get("identity") != identity:
                stored[name] = {"identity": identity, "return_mean": self._mean_return(source)}
                text = json.dumps({"asked": self._conditions, "players": stored}, indent=1) + "\n"
                write_text_whole(self.path, text)
        return {name: stored[name]["return_mean"] for name in self.players}

    def _mean_return(self, source: str) -> float:
        suite, device = Suite.of(self.task), find_device("auto")
        if source == RANDOM:
            found = evaluate_random(suite, self.episodes, seed=self.seed, device=device)
        else:
            teacher = load_teacher(source)
            found = evaluate_teacher(teacher, suite, self.episodes, seed=self.seed, device=device)
        return found[self.task].mean

    def _read(self) -> dict[str, dict[str, Any]]:
        """The file's results by policy; none if they are of other episodes."""
        try:
            data = read_json(self.path)
        except FileNotFoundError:
            return {}
        return dict(data["players"]) if data["asked"] == self._conditions else {}

    @property
    def _conditions(self) -> dict[str, Any]:
        """What returns depend on besides the policy."""
        return {"task": self.task, "episodes": self.episodes, "seed": self.seed}


def compare(comparisons: Mapping[str, Comparison], jobs: int = 0) -> dict[str, dict[str, float]]:
    """Finishes all comparisons and returns the mean return of each policy.

    Args:
        comparisons: The comparisons by name.
        jobs: Number of comparisons at once; see `run_parallel`.
    """
    found = {name: one.stored() for name, one in comparisons.items()}
    left = {name: (comparisons[name],) for name, returns in found.items() if returns is None}
    played = dict(run_parallel(Comparison.play, left, jobs))
    return {name: returns or played[name] for name, returns in found.items()}


def _identity(source: str) -> Any:
    """JSON that identifies a policy by its weights, wherever they are stored."""
    return RANDOM if source == RANDOM else _weights(load_teacher(source))


def _weights(teacher: Teacher) -> Any:
    """The hash of a teacher's weights; of a composition its kind, options and members."""
    if isinstance(teacher, Composition):
        options = {name: repr_option(value) for name, value in teacher.options.items()}
        return [type(teacher).__name__, options, *map(_weights, teacher.members)]
    return teacher.sha256
