"""One teacher for each task of a suite."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError, unknown
from rltransfer.files.untrusted import parse_json
from rltransfer.policies.output import EMPTY, Needs, PolicyOutput
from rltransfer.policies.stacked_policies import StackedPolicies, can_stack
from rltransfer.tasks.observation import Observation, resized
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.tasks.task import Task
from rltransfer.teachers.composition import Composition, labels_of, of_one_kind
from rltransfer.teachers.policy_teacher import PolicyTeacher
from rltransfer.teachers.spec import TeacherSpec
from rltransfer.teachers.teacher import Teacher

NOT_STACKED: Needs = frozenset({"features", "maps", "attention", "jacobian"})
"""Fields that stacked policies do not output."""
MOST_COUNTS = 64
"""Task tensors whose row counts a `PerTask` caches."""


class PerTask(Composition):
    """One teacher per task. Each labels only the rows of its task.

    On CUDA, policies of one architecture label their rows in one batched forward pass.

    Args:
        teachers: The teacher of each task. An id matches every task with this id. A `Task` or its
            text, 'CartPole-v1{"sutton_barto_reward": true}', matches tasks with at least these
            arguments. If several match, the one with most arguments counts.

    Raises:
        InputError: A name is not that of a task, or there are no names.
    """

    def __init__(self, teachers: Mapping[str, Teacher] | Mapping[Task, Teacher]) -> None:
        if not isinstance(teachers, Mapping):
            raise InputError(
                f"PerTask was given {teachers!r}: it takes a teacher for each task by name, as in "
                "PerTask({'CartPole-v1': teacher})."
            )
        self._tasks = {str(task): task for task in map(_task_of, teachers)}
        if len(self._tasks) < len(teachers):
            raise InputError(
                f"PerTask names a task twice among {', '.join(self._tasks)}: name each task once."
            )
        super().__init__(list(teachers.values()))
        self.num_parameters = max(teacher.num_parameters for teacher in self.members)
        self._stacks = True
        self._stacked: StackedPolicies | None = None
        self._counts: dict[tuple[int, int, int], tuple[list[int], Tensor]] = {}

    @property
    def teachers(self) -> dict[str, Teacher]:
        """The teacher of each task, by the task's id and arguments."""
        return dict(zip(self._tasks, self.members, strict=True))

    def _text(self) -> str:
        words = [f"{name!r}: {teacher.quoted()}" for name, teacher in self.teachers.items()]
        return f"PerTask({{{', '.join(words)}}})"

    def fitted(self, spaces: SuiteSpaces) -> Teacher:
        """Fits each teacher to its task, in the order of the suite."""
        fitted = {}
        for index, (name, task) in enumerate(zip(spaces.suite.names(), spaces.suite, strict=True)):
            teacher = self._teacher_of(task)
            if teacher is None:
                raise unknown("teacher for the task", name, self.teachers)
            fitted[name] = teacher.fitted(spaces.of_task(index))
        return PerTask(fitted)

    def _teacher_of(self, task: Task) -> Teacher | None:
        """The teacher of a task; None if there is none."""
        fits = [key for key, one in self._tasks.items() if task.only(one) == one]
        if not fits:
            return None
        return self.teachers[max(fits, key=lambda key: len(self._tasks[key].kwargs))]

    def bounds_in(self, task: Task) -> spaces.Box | None:
        """Those of the teacher of the task."""
        teacher = self._teacher_of(task)
        return None if teacher is None else teacher.bounds_in(task)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the teachers, and drops the stacked copies of their weights."""
        self._stacked = None
        return super()._apply(fn, recurse)

    def stack(self) -> None:
        """Stacks the policies for one batched forward pass, if all have one architecture.

        The first call on CUDA does this: it is eager, even if later calls are captured.
        """
        policies = [
            one.module for one in self.members if isinstance(one, PolicyTeacher) and one.is_ours
        ]
        self._stacks = len(policies) == len(self.members) and can_stack(policies)
        self._stacked = StackedPolicies(policies) if self._stacks else None

    def begin_step(self, start: Tensor, task: Tensor) -> None:
        """Tells each teacher of the rows of its task."""
        begin = 0
        counts = self._counted(task) if len(self.members) > 1 else [len(task)]
        for teacher, count in zip(self.members, counts, strict=True):
            rows = slice(begin, begin + count)
            teacher.begin_step(start[rows], task[rows])
            begin += count

    def forward(self, observation: Observation, task: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        """The output of the teacher of each row; with a single task, its bits."""
        if len(self.members) == 1:
            return self.members[0](observation, task, needs)
        if task.is_cuda and self._stacks and self._stacked is None:
            self.stack()
        counts = self._counted(task)
        stackable = min(counts) == max(counts) and not needs & NOT_STACKED
        if self._stacked is not None and stackable:
            first = self.members[0]
            assert isinstance(first, PolicyTeacher)
            return self._stacked(resized(observation, first.reads))
        parts = []
        begin = 0
        for teacher, count in zip(self.members, counts, strict=True):
            rows = {name: group[begin : begin + count] for name, group in observation.items()}
            if count:
                parts.append(teacher(rows, task[begin : begin + count], needs))
            begin += count
        return parts[0] if len(parts) == 1 else _concatenated(parts)

    def _counted(self, task: Tensor) -> list[int]:
        """The number of rows of each task; it waits for the device once for each tensor."""
        if task.is_inference():  # changes of these are not tracked
            return self._count(task)
        key = (task.data_ptr(), len(task), task._version)
        if key not in self._counts:
            if len(self._counts) >= MOST_COUNTS:
                self._counts.clear()
            # Keeping the tensor prevents another one from being allocated at its address.
            self._counts[key] = self._count(task), task
        return self._counts[key][0]

    def _count(self, task: Tensor) -> list[int]:
        counts: list[int] = torch.bincount(task, minlength=len(self.members)).tolist()
        return counts

    def figures(self) -> dict[str, float]:
        """The figures of each teacher, with the id of its task."""
        return {
            f"{name}/{task_id}": value
            for task_id, teacher in self.teachers.items()
            for name, value in teacher.figures().items()
        }

    def describe_figures(self) -> dict[str, str]:
        """The descriptions of all teachers."""
        every = [teacher.describe_figures() for teacher in self.teachers.values()]
        return {name: text for one in every for name, text in one.items()}

    def spec(self) -> TeacherSpec:
        """The specification of each teacher, with the tasks in the same order."""
        return dataclasses.replace(super().spec(), options={"tasks": list(self.teachers)})

    def describe(self) -> dict[str, Any]:
        """The description of every teacher."""
        return {"per_task": {name: one.describe() for name, one in self.teachers.items()}}


def _task_of(name: str | Task) -> Task:
    """The task that a name means: an id, perhaps with arguments, as in `str(task)`.

    Raises:
        InputError: The name has another form.
    """
    if isinstance(name, Task):
        return name
    if not isinstance(name, str):
        raise InputError(f"PerTask names the task {name!r}: use an id or a Task.")
    task_id, brace, rest = name.partition("{")
    try:
        return Task(task_id.strip(), parse_json(brace + rest) if brace else {})
    except ValueError as error:
        raise InputError(
            f"{name!r} does not name a task for PerTask: write arguments as JSON, as in "
            'CartPole-v1{"sutton_barto_reward": true}.'
        ) from error


def _concatenated(parts: Sequence[PolicyOutput]) -> PolicyOutput:
    """The rows of several outputs in one.

    - If one teacher of continuous actions is deterministic, all of them count as deterministic.
    - Fields other than labels, e.g. a value, are kept if all outputs have them in one size.
    - Features are padded with zeros to the longest.
    """
    parts = of_one_kind(parts)
    fields = {name: torch.cat(values) for name, values in labels_of(parts).items()}
    for field in dataclasses.fields(PolicyOutput):
        values = [getattr(part, field.name) for part in parts]
        # Not what an output computes from its fields and caches.
        keeps = field.init and field.name not in fields and field.name != "state"
        if not keeps or any(value is None for value in values):
            continue
        if field.name == "features":
            widest = max(value.shape[-1] for value in values)
            values = [F.pad(value, (0, widest - value.shape[-1])) for value in values]
        if len({value.shape[1:] for value in values}) == 1:
            fields[field.name] = torch.cat(values)
    return PolicyOutput(**fields)
