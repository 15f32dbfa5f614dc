"""What networks out of other libraries' files have in common: which groups they read, and how."""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.policies.output import PolicyOutput
from rltransfer.tasks.observation import DEFAULT_GROUP, Observation, describe_space


class FileModule(nn.Module, abc.ABC):
    """A network out of a file that says little of the observations and actions it was made for.

    It reads one group as it is, or several vectors side by side. `fitted` makes it ready for a
    task, and refuses a task that it does not fit.

    Attributes:
        kind: What a `TeacherSpec` calls it.
        path: The file.
        sha256: Hash of the file, in hexadecimal.
        groups: The observation groups that it reads.
        observation_space: The groups as a task shows them; None before `fitted`.
        action_space: The actions of that task; None before `fitted`.
    """

    kind: ClassVar[str]

    def __init__(self, path: Path, sha256: str, groups: Sequence[str] = (DEFAULT_GROUP,)) -> None:
        super().__init__()
        self.path = path
        self.sha256 = sha256
        self.groups = tuple(groups)
        self.observation_space: spaces.Dict | None = None
        self.action_space: spaces.Space[Any] | None = None

    def num_parameters(self) -> int:
        """Returns the number of parameters that acting needs."""
        return sum(parameter.numel() for parameter in self.parameters())

    def preprocessing(self) -> dict[str, Any]:
        """Returns what is done to observations before the first layer, as JSON."""
        return {"groups": list(self.groups)}

    def read(self, observation: Observation) -> Tensor:
        """Returns what the network sees, as float32.    (rows, ...)

        A suite pads vectors and channels to the longest of its tasks'; they are cut off again.

        Args:
            observation: The groups.    (rows, ...)
        """
        parts = [observation[name].float() for name in self.groups]
        if self.observation_space is not None:
            shapes = _shapes(self.observation_space)
            parts = [part[:, : shape[0]] for part, shape in zip(parts, shapes, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat([part.flatten(1) for part in parts], 1)

    @abc.abstractmethod
    def forward(self, observation: Observation) -> PolicyOutput:
        """Returns what the network says.

        Args:
            observation: The groups.    (rows, ...)
        """

    def fitted(
        self, task_id: str, observation_space: spaces.Dict, action_space: spaces.Space[Any]
    ) -> FileModule:
        """Returns the network, ready for a task; it shares its weights with this one.

        Args:
            task_id: The task, for the errors.
            observation_space: The task's own groups, before padding.
            action_space: The task's own actions, before padding.

        Raises:
            InputError: The network does not fit the task, or was fitted to an unlike one.
        """
        missing = [name for name in self.groups if name not in observation_space.spaces]
        if missing:
            there = ", ".join(map(repr, observation_space.spaces))
            raise InputError(
                f"The teacher {self.path} does not fit the task {task_id!r}: it reads the group "
                f"{missing[0]!r}, the task gives {there}; say `?group=NAME` behind the file."
            )
        own = spaces.Dict([(name, observation_space[name]) for name in self.groups])
        if self.observation_space is not None and _shapes(own) != _shapes(self.observation_space):
            raise InputError(
                f"The teacher {self.path} reads observations of one shape, but those of the task "
                f"{task_id!r} differ from those of the task before it: give each its own teacher."
            )
        fitted = copy.copy(self)
        fitted.observation_space, fitted.action_space = own, action_space
        fitted.check_fit(task_id)
        return fitted

    @abc.abstractmethod
    def check_fit(self, task_id: str) -> None:
        """Checks the network against the spaces that it has just been given.

        Raises:
            InputError: They do not fit.
        """

    def refusal(self, task_id: str, reads: str) -> InputError:
        """Returns the error for observations or actions of another shape.

        Args:
            task_id: The task.
            reads: What the file holds, as a sentence's predicate, e.g. "reads 48 numbers".
        """
        assert self.observation_space is not None and self.action_space is not None
        shown = " and ".join(describe_space(self.observation_space[name]) for name in self.groups)
        return InputError(
            f"The teacher {self.path} does not fit the task {task_id!r}: it {reads}, but the task "
            f"shows {shown} and takes {describe_space(self.action_space)}."
        )


def _shapes(space: spaces.Dict) -> list[tuple[int, ...]]:
    """Returns the shape of each group; that of a number is (1,)."""
    return [part.shape or (1,) for part in space.spaces.values()]


def flat_size(space: spaces.Dict) -> int:
    """Returns how many numbers the groups of a space hold together."""
    return sum(math.prod(shape) for shape in _shapes(space))
