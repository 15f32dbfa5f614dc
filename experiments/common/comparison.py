"""Comparisons: several players on the same episodes, each measured once.

A run's own evaluation lets its teacher and random actions play beside its policy, however many
other runs have the same ones. An experiment that compares many students of one teacher keeps that
evaluation short and lets everybody play here: the teacher plays once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rltransfer.experiments.common.trials import THREADS, side_by_side
from rltransfer.files.atomic import write_text_whole
from rltransfer.machine.devices import find_device
from rltransfer.rollouts.evaluation import evaluate_random, evaluate_teacher
from rltransfer.tasks.task import Suite
from rltransfer.teachers.composition import Composition, repr_option
from rltransfer.teachers.loading import load_teacher
from rltransfer.teachers.teacher import Teacher

RANDOM = "random"
"""What figures call random actions; as a player's source too."""

TEACHER = "teacher"
"""What figures call the teacher that everybody is compared with."""

RUN_EPISODES = 2
"""Episodes of each run's own evaluation; its policy plays here for the figures."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Players of one task; who has played is kept in a file, also where others have not yet."""

    path: Path
    """The JSON file."""
    task: str
    """What they play."""
    players: Mapping[str, str]
    """For each name a source that `load_teacher` knows, or `RANDOM`."""
    episodes: int
    """Whole episodes of each."""
    seed: int
    """Seeds the environments, of all players alike."""

    def stored(self) -> dict[str, float] | None:
        """Returns everybody's mean return, if all have played with these weights."""
        kept = self._kept()
        identities = {who: _identity(source) for who, source in self.players.items()}
        if any(kept.get(who, {}).get("identity") != is_now for who, is_now in identities.items()):
            return None
        return {who: kept[who]["return_mean"] for who in self.players}

    def play(self) -> dict[str, float]:
        """Returns everybody's mean return, and keeps each as soon as it is known."""
        if THREADS:
            torch.set_num_threads(THREADS)
        kept = self._kept()
        for who, source in self.players.items():
            identity = _identity(source)
            if kept.get(who, {}).get("identity") != identity:
                kept[who] = {"identity": identity, "return_mean": self._measured(source)}
                text = json.dumps({"asked": self._asked, "players": kept}, indent=1) + "\n"
                write_text_whole(self.path, text)
        return {who: kept[who]["return_mean"] for who in self.players}

    def _measured(self, source: str) -> float:
        """Returns a player's mean return."""
        suite, device = Suite.of(self.task), find_device("auto")
        if source == RANDOM:
            found = evaluate_random(suite, self.episodes, seed=self.seed, device=device)
        else:
            found = evaluate_teacher(
                load_teacher(source), suite, self.episodes,
                seed=self.seed, device=device,
            )  # fmt: skip
        return found[self.task].mean

    def _kept(self) -> dict[str, dict[str, Any]]:
        """Returns what the file says of these episodes, by player."""
        try:
            data = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        return dict(data["players"]) if data["asked"] == self._asked else {}

    @property
    def _asked(self) -> dict[str, Any]:
        """What returns depend on, but for the players."""
        return {"task": self.task, "episodes": self.episodes, "seed": self.seed}


def compare(comparisons: Mapping[str, Comparison], jobs: int = 0) -> dict[str, dict[str, float]]:
    """Returns each comparison's mean returns by player, and lets those play who have not yet.

    Args:
        comparisons: By name.
        jobs: Comparisons at once; see `side_by_side`.
    """
    found = {name: one.stored() for name, one in comparisons.items()}
    left = {name: (comparisons[name],) for name, returns in found.items() if returns is None}
    played = dict(side_by_side(Comparison.play, left, jobs))
    return {name: returns or played[name] for name, returns in found.items()}


def _identity(source: str) -> Any:
    """Returns JSON that tells a player from every other, wherever its weights lie."""
    return RANDOM if source == RANDOM else _weights(load_teacher(source))


def _weights(teacher: Teacher) -> Any:
    """Returns the hash of a teacher's weights; of a composition what it is made of, and how."""
    if isinstance(teacher, Composition):
        options = {name: repr_option(value) for name, value in teacher.options.items()}
        return [type(teacher).__name__, options, *map(_weights, teacher.members)]
    return teacher.sha256
