"""What a teacher is, what it observes and does, and how well it plays: before a run rests on it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rltransfer.machine.devices import find_device
from rltransfer.policies.network import Network
from rltransfer.policies.output import PolicyOutput
from rltransfer.rollouts.evaluation import (
    SILENT,
    Evaluation,
    Watcher,
    evaluate_random,
    evaluate_teacher,
    probe_spaces,
)
from rltransfer.tasks.families import SuiteLike, as_suite
from rltransfer.tasks.observation import DEFAULT_GROUP, describe_space
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.teachers.loading import load_teacher
from rltransfer.teachers.spec import TeacherSpec
from rltransfer.teachers.teacher import Teacher

SIZE = "25%"
"""The student's size in the command that is advised."""
SMALLEST = 1_000
"""Parameters of teachers that a smaller student is worth the name of."""


@dataclass(frozen=True)
class TeacherSummary:
    """A teacher on some tasks."""

    spec: TeacherSpec
    """Where it comes from, its spaces, and what is done to observations."""
    num_parameters: int
    """Parameters that acting needs; 0 if unknown."""
    network: Network | None
    """Its layers, where they are known."""
    says: str
    """What it says of an observation, in words."""
    state_size: int
    """Numbers that it remembers of each environment from step to step; 0 without a memory."""
    returns: Mapping[str, Evaluation]
    """Its episodes, by task name."""
    random: Mapping[str, Evaluation]
    """A random policy's."""
    notes: tuple[str, ...]
    """What a user should read before it acts."""
    command: str
    """The command that trains a student of it."""

    def rows(self) -> list[tuple[str, str]]:
        """What it is, as names and values."""
        layers = "unknown"
        if self.network is not None:
            units = ", ".join(str(self.network.scaled(one)) for one in self.network.hidden)
            mlp = self.network.encoder == "mlp"
            layers = f"{units} ({self.network.activation})" if mlp else "convolutions"
        done = {name: v for name, v in self.spec.preprocessing.items() if v is not None}
        seen = self.spec.observation_space
        observes = "unknown" if seen is None else ", ".join(
            f"{name} {describe_space(space)}" for name, space in seen.spaces.items()
        )  # fmt: skip
        acts = self.spec.action_space
        return [
            ("source", self.spec.source),
            ("kind", self.spec.kind),
            ("parameters", f"{self.num_parameters:,}" if self.num_parameters else "unknown"),
            ("layers", layers),
            ("observes", observes),
            ("done to observations", ", ".join(f"{k} {_short(v)}" for k, v in done.items())),
            ("acts in", "unknown" if acts is None else describe_space(acts)),
            ("says", self.says),
            ("memory", f"{self.state_size:,} numbers for each environment"),
        ][: None if self.state_size else -1]

    def warnings(self) -> list[str]:
        """Its notes, and what speaks against learning from it."""
        found = list(self.notes)
        for name, one in self.returns.items():
            recorded = self.spec.recorded_return.get(name)
            if one.mean <= self.random[name].mean:
                found.append(
                    f"On {name!r} it plays no better than a random policy: it may be the teacher "
                    "of another task, or lack its observation statistics."
                )
            elif recorded is not None and one.mean + one.ci95 < recorded:
                found.append(f"On {name!r} its return is below the recorded one, {recorded:.1f}.")
        return found

    def to_json(self) -> dict[str, Any]:
        """JSON form of the summary."""
        return {
            "spec": self.spec.to_json(),
            "num_parameters": self.num_parameters,
            "says": self.says,
            "state_size": self.state_size,
            "tasks": {
                name: {
                    "return_mean": one.mean,
                    "return_ci95": one.ci95 if math.isfinite(one.ci95) else None,
                    "episodes": len(one.returns),
                    "random_return_mean": self.random[name].mean,
                    "recorded_return": self.spec.recorded_return.get(name),
                }
                for name, one in self.returns.items()
            },
            "warnings": self.warnings(),
            "command": self.command,
        }


def summarize_teacher(
    source: str | Path | Teacher,
    suite: SuiteLike,
    episodes: int = 20,
    *,
    vecnormalize: str | Path | None = None,
    rescale_actions: bool = False,
    seed: int = 0,
    device: str = "auto",
    num_envs: int = 64,
    max_steps: int = 10_000,
    watcher: Watcher = SILENT,
) -> TeacherSummary:
    """Loads a teacher, fits it to tasks and plays episodes with it and with a random policy.

    Args:
        source: Any teacher: see `load_teacher`.
        suite: The tasks.
        episodes: Episodes per task.
        vecnormalize: Observation statistics of a Stable-Baselines3 zip: see `load_teacher`.
        rescale_actions: Whether continuous actions are scaled to the tasks' bounds.
        seed: Seed of the environments.
        device: "cpu", "cuda", ...; "auto" uses CUDA if available.
        num_envs: Maximum number of parallel environments.
        max_steps: Steps after which an episode is cut.
        watcher: Follows the episodes.

    Raises:
        InputError: There is no such teacher, or it does not fit a task.
    """
    tasks, place = as_suite(suite), find_device(str(device))
    teacher = load_teacher(source, vecnormalize, tasks, rescale_actions=rescale_actions)
    spaces = probe_spaces(tasks, place)
    fitted = teacher.fitted(spaces).to(place)
    with torch.no_grad():
        index = torch.arange(len(tasks), device=place)
        label = fitted(spaces.first_observations(place), index)
    how: dict[str, Any] = {
        "seed": seed, "device": place, "num_envs": num_envs, "max_steps": max_steps,
        "watcher": watcher,
    }  # fmt: skip
    return TeacherSummary(
        spec=fitted.spec(),
        num_parameters=fitted.num_parameters,
        network=fitted.network(),
        says=_in_words(label),
        state_size=sum(one.size for one in fitted.row_states()),
        returns=evaluate_teacher(teacher, tasks, episodes, **how),
        random=evaluate_random(tasks, episodes, **how),
        notes=fitted.notes(),
        command=_command(
            str(source), vecnormalize, rescale_actions, spaces, fitted.num_parameters >= SMALLEST
        ),
    )


def _in_words(label: PolicyOutput) -> str:
    """What a teacher says of an observation."""
    if label.mean is not None:
        actions = f"{label.mean.shape[-1]}-dimensional actions"
        if label.log_std is not None:
            return f"a Gaussian over {actions}"
        if label.squashed is not None:
            return f"{actions}, and a squashed Gaussian around them"
        return f"{actions}, without a distribution"
    number = label.preferences().shape[-1]
    return f"{'Q-values' if label.logits is None else 'probabilities'} of {number} actions"


def _short(value: Any) -> str:
    """A setting in few characters: of statistics, only their kind."""
    if isinstance(value, Mapping):
        return str(value.get("kind", "yes"))
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _command(
    source: str,
    vecnormalize: str | Path | None,
    rescale_actions: bool,
    spaces: SuiteSpaces,
    is_large: bool,
) -> str:
    """The command that trains a student."""
    suite = spaces.suite
    words = ["rltransfer", "train", "policy-distillation"]
    alone = suite.name == suite.tasks[0].id
    words += ["--task" if alone else "--suite", suite.name, "--teacher", source]
    if vecnormalize is not None:
        words += ["--vecnormalize", str(vecnormalize)]
    words += ["--rescale-actions"] * rescale_actions
    groups = list(spaces.observation_space)
    if DEFAULT_GROUP not in groups:
        words += ["--groups", *groups]
    return shlex.join([*words, *(["--size", SIZE] if is_large else [])])
