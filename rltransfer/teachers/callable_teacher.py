"""A function as a teacher: it sees what its tasks show, and what it says is looked at."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.policies.output import LABELS, PolicyOutput, asked, upcast
from rltransfer.policies.scores import marked_illegal
from rltransfer.tasks.action import action_size
from rltransfer.tasks.observation import Observation
from rltransfer.tasks.task import Suite
from rltransfer.teachers.spec import TeacherSpec
from rltransfer.teachers.teacher import TaskSpaces, Teacher, shown_shape


class CallableTeacher(Teacher):
    """Any function of observations and task indices that returns a `PolicyOutput`.

    It is given what its tasks show, padded to the largest of them if it labels several, and not
    what a suite pads beyond that. Of what it says only the actions count that a row's task has; a
    logit or Q-value of minus infinity says that an action is illegal.

    Args:
        function: Takes the groups, (rows, ...) each, and each row's task, (rows,); returns logits,
            Q-values or a mean, (rows, num_actions) or (rows, action_dim).
        source: What it is called, by which a run that goes on tells it from another function.

    Raises:
        InputError: It takes other arguments; later, it returns something else.
    """

    def __init__(
        self, function: Callable[[Observation, Tensor], PolicyOutput], source: str = "a function"
    ) -> None:
        try:
            inspect.signature(function).bind({}, None)
        except TypeError as error:
            raise InputError(
                f"{source} cannot teach, as it takes other arguments than the two that it is given "
                "for a batch of rows: the observation, a dictionary of tensors, and each row's "
                "task."
            ) from error
        except ValueError:
            pass  # a function of C's that does not tell
        self.function = function
        self.source = source
        self.num_parameters = 0
        self.observation_space: spaces.Dict | None = None
        self.action_space: spaces.Space[Any] | None = None
        self._sizes: dict[str, int] = {}
        self._width: int | None = None
        self._absent: Tensor | None = None

    def to(self, device: torch.device) -> Teacher:
        """Returns the teacher, on a device; the function sees to itself."""
        self._absent = None if self._absent is None else self._absent.to(device)
        return self

    def fitted(self, suite: Suite, own_spaces: Sequence[TaskSpaces]) -> Teacher:
        """Takes any task, and keeps the spaces of tasks that are all alike."""
        fitted = copy.copy(self)
        if all(own == own_spaces[0] for own in own_spaces):
            fitted.observation_space, fitted.action_space = own_spaces[0]
        fitted._sizes = {}
        for observed, _ in own_spaces:
            for name, space in observed.spaces.items():
                size = next(iter(shown_shape(space)), 0)
                fitted._sizes[name] = max(size, fitted._sizes.get(name, 0))
        counts = torch.tensor([action_size(acted) for _, acted in own_spaces])
        fitted._width = int(counts.max())
        several = len(counts.unique()) > 1
        padding_mask = torch.arange(fitted._width) >= counts.unsqueeze(1)
        fitted._absent = padding_mask if several else None
        return fitted

    def spec(self) -> TeacherSpec:
        """Returns what is known of the teacher: what it is called, and where it is asked."""
        return TeacherSpec(
            source=self.source,
            kind="callable",
            observation_space=self.observation_space,
            action_space=self.action_space,
        )

    def __call__(self, observation: Observation, task: Tensor) -> PolicyOutput:
        """Returns what the function says.

        Raises:
            InputError: It says nothing that can be learned, or not of each row.
        """
        # Copies: what a function does in place must not reach the rollout.
        seen = {
            name: group[:, : self._sizes.get(name)].clone() for name, group in observation.items()
        }
        # What is asked by its gradient is asked with gradients.
        with torch.set_grad_enabled(asked("jacobian")):
            output = self.function(seen, task)
        if not isinstance(output, PolicyOutput):
            raise InputError(
                f"{self.source} returned a {type(output).__name__}: it must return a PolicyOutput, "
                "e.g. PolicyOutput(logits=logits)."
            )
        said = {name: value for name in LABELS if (value := getattr(output, name)) is not None}
        if not said.keys() - {"log_std"}:
            raise InputError(
                f"{self.source} returned an empty PolicyOutput: it must say logits, q_values or a "
                "mean."
            )
        own = {name: self._own(name, value, task) for name, value in said.items()}
        return dataclasses.replace(output, **own)

    def _own(self, name: str, value: Tensor, task: Tensor) -> Tensor:
        """Returns what was said of the actions that each row's task has.

        Args:
            name: One of `LABELS`.
            value: What was said.
            task: Index of each row's task.    (rows,)
        """
        if not isinstance(value, Tensor) or value.shape[:-1] != task.shape:
            found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"{self.source} returned {name} of {found} for {len(task)} rows: it must be a "
                "tensor with a row for each, and a column for each action."
            )
        filler = LABELS[name]
        own = upcast(value)[:, : self._width]
        if self._absent is not None:
            own = own.masked_fill(self._absent[task][:, : own.shape[1]], filler)
        return own if filler == 0 else marked_illegal(own)
