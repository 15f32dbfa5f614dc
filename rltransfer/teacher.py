"""Teachers: anything that labels observations."""

from __future__ import annotations

import abc
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.checkpoint import newest_checkpoint
from rltransfer.errors import InputError, unknown
from rltransfer.observation import DEFAULT_GROUP, Observation
from rltransfer.policy import Policy, PolicySpec, load_policy
from rltransfer.policy_output import ILLEGAL, PolicyOutput
from rltransfer.registry import zoo_folders
from rltransfer.stable_baselines3 import check_fit, load_zip
from rltransfer.stacked_policies import StackedPolicies, can_stack
from rltransfer.task import Suite, Task

TaskSpaces = tuple[spaces.Dict, spaces.Space[Any]]
"""A task's observation and action space."""

MOST_COUNTS = 64
"""Task tensors whose rows a `PerTask` remembers to have counted."""
ZOO = "zoo"
"""The source that stands for the installed teacher of each task."""


class Teacher(abc.ABC):
    """Labels observations; never learns.

    Attributes:
        source: Where it comes from, as a user would write it.
        num_parameters: Parameters that acting needs; 0 where nobody knows.
    """

    source: str
    num_parameters: int

    @abc.abstractmethod
    def __call__(self, observation: Observation, task: Tensor) -> PolicyOutput:
        """Returns what the teacher says, without gradients.

        Args:
            observation: The groups.                  (rows, ...)
            task: Index of each row's task, sorted.   (rows,)
        """

    def to(self, device: torch.device) -> Teacher:
        """Returns the teacher, on a device."""
        return self

    def fitted(self, suite: Suite, own_spaces: Sequence[TaskSpaces]) -> Teacher:
        """Returns the teacher, ready to label the tasks of a suite.

        Args:
            suite: The tasks.
            own_spaces: Each task's own observation and action space, before padding.

        Raises:
            InputError: Its spaces do not fit a task's.
        """
        return self

    def describe(self) -> dict[str, Any]:
        """Returns JSON that tells this teacher from every other."""
        return {"source": self.source, "num_parameters": self.num_parameters}


class ModuleTeacher(Teacher):
    """A frozen network."""

    def __init__(self, module: nn.Module, source: str, sha256: str, num_parameters: int) -> None:
        self.module = module.eval().requires_grad_(False)
        self.source = source
        self.sha256 = sha256
        self.num_parameters = num_parameters

    def to(self, device: torch.device) -> Teacher:
        """Returns the teacher, on a device."""
        self.module.to(device)
        return self

    def describe(self) -> dict[str, Any]:
        """Returns the source with the hash of its file."""
        return {**super().describe(), "sha256": self.sha256}


class PolicyTeacher(ModuleTeacher):
    """A policy that rltransfer trained; a recurrent one remembers each row between its calls."""

    module: Policy

    def __init__(self, policy: Policy, source: str, sha256: str) -> None:
        super().__init__(policy, source, sha256, policy.num_acting_parameters())
        if policy.state_size:
            raise InputError(
                f"The teacher {source} is recurrent: its labels depend on a state that nobody "
                "keeps; take a teacher without a GRU."
            )

    @torch.no_grad()
    def __call__(self, observation: Observation, task: Tensor) -> PolicyOutput:
        """Returns what the policy says."""
        spec = self.module.spec
        own = _cropped(spec, observation)
        # A teacher of one task knows it as its first.
        alone = spec.action_mask is None or len(spec.action_mask) == 1
        output: PolicyOutput = self.module(own, torch.zeros_like(task) if alone else task)
        return output

    def fitted(self, suite: Suite, own_spaces: Sequence[TaskSpaces]) -> Teacher:
        """Checks every group that the policy reads, and the actions."""
        spec = self.module.spec
        for task, (observation_space, action_space) in zip(suite, own_spaces, strict=True):
            for name in spec.network.groups:
                wanted = spec.observation_space[name]
                there = observation_space.spaces.get(name)
                if there is None or there.shape != wanted.shape or there.dtype != wanted.dtype:
                    found = (
                        "nothing" if there is None else f"{there.dtype}{list(there.shape or ())}"
                    )
                    raise InputError(
                        f"The teacher {self.source} does not fit the task {task.id!r}: "
                        f"it reads the group {name!r} as {wanted.dtype}{list(wanted.shape or ())}, "
                        f"the task gives {found}."
                    )
            _check_actions(self.source, task, spec.action_space, action_space)
        return self


def _cropped(spec: PolicySpec, observation: Observation) -> Observation:
    """Returns the groups that a policy reads, without what a suite pads them with."""
    own: Observation = {}
    for name in spec.network.groups:
        size = (spec.observation_space[name].shape or (0,))[0]
        own[name] = observation[name][:, :size]
    return own


class ZipTeacher(ModuleTeacher):
    """A policy from a Stable-Baselines3 zip."""

    def __init__(
        self, path: Path, vecnormalize: Path | None, action_space: spaces.Space[Any] | None = None
    ) -> None:
        self.path, self.vecnormalize = path, vecnormalize
        self.loaded = load_zip(path, vecnormalize, action_space)
        module = self.loaded.module
        super().__init__(module, str(path), self.loaded.sha256, _acting_parameters(module))

    @torch.no_grad()
    def __call__(self, observation: Observation, task: Tensor) -> PolicyOutput:
        """Returns what the policy says."""
        seen = observation[DEFAULT_GROUP]
        if len(self.loaded.observation_shape) == 1:
            # A suite pads vectors to the longest of its tasks'.
            seen = seen[:, : self.loaded.observation_shape[0]]
        elif self.loaded.num_observations is not None:
            seen = seen.argmax(-1)  # tasks show discrete observations as one-hot vectors
        output: PolicyOutput = self.module(seen)
        return output

    def fitted(self, suite: Suite, own_spaces: Sequence[TaskSpaces]) -> Teacher:
        """Checks observation and action shapes, and takes the task's own action bounds."""
        for task, (observation_space, action_space) in zip(suite, own_spaces, strict=True):
            if DEFAULT_GROUP not in observation_space.spaces:
                raise InputError(
                    f"The teacher {self.source} does not fit the task {task.id!r}: it reads one "
                    "plain observation, the task gives named groups."
                )
            check_fit(self.loaded, observation_space[DEFAULT_GROUP], action_space, self.path)
        return ZipTeacher(self.path, self.vecnormalize, own_spaces[0][1])


class CallableTeacher(Teacher):
    """Any function of observations and task indices that returns a `PolicyOutput`."""

    def __init__(
        self, function: Callable[[Observation, Tensor], PolicyOutput], source: str = "a function"
    ) -> None:
        self.function = function
        self.source = source
        self.num_parameters = 0

    @torch.no_grad()
    def __call__(self, observation: Observation, task: Tensor) -> PolicyOutput:
        """Returns what the function says."""
        return self.function(observation, task)


class PerTask(Teacher):
    """One teacher a task; each labels its own rows only.

    On CUDA, policies of one architecture label their rows in one batched forward pass.

    Args:
        teachers: Teacher of each task id.
    """

    def __init__(self, teachers: Mapping[str, Teacher]) -> None:
        self.teachers = dict(teachers)
        self.source = f"one each for {', '.join(self.teachers)}"
        self.num_parameters = max(teacher.num_parameters for teacher in teachers.values())
        self._ordered: list[Teacher] = []
        self._stacked: StackedPolicies | None = None
        self._counts: dict[tuple[int, int, int], tuple[list[int], Tensor]] = {}

    def fitted(self, suite: Suite, own_spaces: Sequence[TaskSpaces]) -> Teacher:
        """Fits each teacher to its task, in the order of the suite."""
        missing = [task.id for task in suite if task.id not in self.teachers]
        if missing:
            raise unknown("teacher for the task", missing[0], self.teachers)
        fitted = PerTask(self.teachers)
        fitted.teachers = {
            task.id: self.teachers[task.id].fitted(Suite.of(task), [own])
            for task, own in zip(suite, own_spaces, strict=True)
        }
        fitted._ordered = list(fitted.teachers.values())
        return fitted

    def to(self, device: torch.device) -> Teacher:
        """Returns the teacher, on a device."""
        for teacher in self.teachers.values():
            teacher.to(device)
        if device.type == "cuda":
            self.stack()
        return self

    def stack(self) -> None:
        """Lets policies of one architecture label in one batched forward pass, if all are such."""
        policies = [one.module for one in self._ordered if isinstance(one, PolicyTeacher)]
        if policies and len(policies) == len(self._ordered) and can_stack(policies):
            self._stacked = StackedPolicies(policies)

    @torch.no_grad()
    def __call__(self, observation: Observation, task: Tensor) -> PolicyOutput:
        """Returns what each row's teacher says."""
        counts = self._counted(task)
        if self._stacked is not None and min(counts) == max(counts):
            spec = self._ordered[0].module.spec  # type: ignore[attr-defined]
            return self._stacked(_cropped(spec, observation))
        parts = []
        begin = 0
        for teacher, count in zip(self._ordered, counts, strict=True):
            rows = {name: group[begin : begin + count] for name, group in observation.items()}
            if count:
                parts.append(teacher(rows, task[begin : begin + count]))
            begin += count
        return parts[0] if len(parts) == 1 else _concatenated(parts)

    def _counted(self, task: Tensor) -> list[int]:
        """Returns the number of rows of each task; the device is asked once for each tensor."""
        key = (task.data_ptr(), len(task), task._version)
        if key not in self._counts:
            if len(self._counts) >= MOST_COUNTS:
                self._counts.clear()
            counts = torch.bincount(task, minlength=len(self._ordered)).tolist()
            # The tensor is kept, so that no other one can come to lie at its address.
            self._counts[key] = counts, task
        return self._counts[key][0]

    def describe(self) -> dict[str, Any]:
        """Returns the description of every teacher."""
        return {"per_task": {name: one.describe() for name, one in self.teachers.items()}}


def _concatenated(parts: list[PolicyOutput]) -> PolicyOutput:
    """Returns outputs one below the other; fewer actions are padded with illegal ones."""
    fields: dict[str, Tensor | None] = {}
    for name in ("logits", "q_values", "mean", "log_std"):
        values = [getattr(part, name) for part in parts]
        there = [value for value in values if value is not None]
        if there and len(there) < len(values):
            raise InputError(
                f"The teachers cannot be mixed: some say {name} and others do not; "
                "take teachers of one kind."
            )
        fields[name] = torch.cat(_widened(there)) if there else None
    return PolicyOutput(**fields)


def _widened(values: list[Tensor]) -> list[Tensor]:
    """Returns score tables of one width."""
    width = max(value.shape[-1] for value in values)
    return [
        torch.nn.functional.pad(value, (0, width - value.shape[-1]), value=ILLEGAL)
        for value in values
    ]


@dataclass(frozen=True)
class Card:
    """What is known of a zoo's teacher."""

    task: Task
    stem: Path
    data: Mapping[str, Any]


def zoo_cards() -> list[Card]:
    """Returns the cards of every installed zoo."""
    cards = []
    for folder in zoo_folders():
        for path in sorted(folder.glob("*.card.json")):
            data = json.loads(path.read_text())
            stem = path.with_name(path.name.removesuffix(".card.json"))
            cards.append(Card(Task.from_json(data["task"]), stem, data))
    return cards


def load_teacher(
    source: str | Path | Teacher, vecnormalize: str | Path | None = None, suite: Suite | None = None
) -> Teacher:
    """Returns a teacher.

    Args:
        source: A run directory, a Stable-Baselines3 zip, or "zoo": the installed teacher of each of
            the suite's tasks. A teacher is returned as it is.
        vecnormalize: Observation statistics of a Stable-Baselines3 zip.
        suite: The tasks; needed for "zoo".

    Raises:
        InputError: The source is none of these, or is damaged.
    """
    if isinstance(source, Teacher):
        return source
    if str(source) == ZOO:
        return _zoo_teacher(suite)
    path = Path(source)
    if vecnormalize is not None and path.suffix != ".zip":
        raise InputError(
            f"Observation statistics go with a Stable-Baselines3 zip, but the teacher is {path}."
        )
    if path.is_dir():
        stem = newest_checkpoint(path) / "policy"
        return PolicyTeacher(load_policy(stem), str(path), _sha256(stem))
    if not path.exists():
        raise InputError(
            f"There is no teacher {str(source)!r}: give a run directory, a Stable-Baselines3 zip, "
            f"or {ZOO!r}."
        )
    return ZipTeacher(path, None if vecnormalize is None else Path(vecnormalize))


def _zoo_teacher(suite: Suite | None) -> Teacher:
    """Returns the installed teachers of a suite's tasks."""
    if suite is None:
        raise InputError("The zoo has a teacher for each task: say which suite or task it is for.")
    cards = {card.task.id: card for card in zoo_cards()}
    teachers: dict[str, Teacher] = {}
    for task in suite:
        if task.id not in cards:
            raise unknown("teacher in the zoo for the task", task.id, cards)
        stem = cards[task.id].stem
        teachers[task.id] = PolicyTeacher(load_policy(stem), f"{ZOO}:{task.id}", _sha256(stem))
    return next(iter(teachers.values())) if len(suite) == 1 else PerTask(teachers)


def _sha256(stem: Path) -> str:
    return hashlib.sha256(stem.with_suffix(".safetensors").read_bytes()).hexdigest()


def _acting_parameters(module: nn.Module) -> int:
    """Returns the parameters of a zip's policy but for those that only say the value."""
    return sum(p.numel() for name, p in module.named_parameters() if "value" not in name)


def _check_actions(
    source: str, task: Task, wanted: spaces.Space[Any], there: spaces.Space[Any]
) -> None:
    """Checks that two action spaces are the same."""
    same_kind = type(wanted) is type(there)
    size, given = (
        int(space.n) if isinstance(space, spaces.Discrete) else (space.shape or (0,))[0]
        for space in (wanted, there)
    )
    if not same_kind or size != given:
        raise InputError(
            f"The teacher {source} does not fit the task {task.id!r}: its actions are "
            f"{type(wanted).__name__}({size}), the task's {type(there).__name__}({given})."
        )
