"""Functions as teachers, with checks of what they return."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.policies.output import EMPTY, LABELS, Needs, PolicyOutput, upcast
from rltransfer.policies.scores import is_masked, mask_infinite
from rltransfer.tasks.observation import Observation, copied, images_as_shown, resized
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.teachers.spec import TeacherSpec
from rltransfer.teachers.teacher import Teacher

WHOLE_NUMBERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
"""Types of labels that are cast to float32, as those of floats are."""


class CallableTeacher(Teacher):
    """Any function of observations and task indices that returns a `PolicyOutput`.

    Observations have the size of the largest task that it labels, without further padding of a
    suite. Images are as the environments show them, e.g. (rows, height, width, channels); if the
    tasks show them in different ways, their channels are first. Actions that the task of a row does
    not have are masked, and so are those with a logit or Q-value of minus infinity.

    Args:
        function: Takes the groups, (rows, ...) each, and the task of each row, (rows,). Returns
            logits, Q-values or a mean, (rows, num_actions) or (rows, action_dim).
        source: A name, by which a resumed run recognises the function.

    Raises:
        InputError: It takes other arguments; later, it returns something else.
    """

    function: Callable[[Observation, Tensor], PolicyOutput]
    _padding_mask: Tensor | None

    def __init__(
        self, function: Callable[[Observation, Tensor], PolicyOutput], source: str = "a function"
    ) -> None:
        super().__init__()
        if not isinstance(source, str):
            raise InputError(f"The source of a CallableTeacher is {source!r}: it must be text.")
        try:
            inspect.signature(function).bind({}, None)
        except TypeError as error:
            raise InputError(
                f"{source} cannot be a teacher: it must take two arguments, the observation (a "
                "dictionary of tensors with a row each) and the task of each row."
            ) from error
        except ValueError:
            pass  # a C function without a signature
        # A module that a user passes stays the user's: it is not moved and not put in another mode.
        object.__setattr__(self, "function", function)
        self.source = source
        self.num_parameters = 0
        self.observation_space: spaces.Dict | None = None
        self.action_space: spaces.Space[Any] | None = None
        self._reads: spaces.Dict | None = None
        self._width: int | None = None
        self.register_buffer("_padding_mask", None, persistent=False)

    def fitted(self, spaces: SuiteSpaces) -> Teacher:
        """Accepts any task, and keeps the spaces if they are the same for all tasks."""
        fitted = CallableTeacher(self.function, self.source)
        if all(own == spaces.own[0] for own in spaces.own):
            first = spaces.own[0]
            fitted.observation_space, fitted.action_space = first.observation, first.action
        # The padding of these tasks alone: a suite with more tasks may pad further.
        own = SuiteSpaces.of(spaces.suite, spaces.own)
        fitted._reads, fitted._width = own.observation_space, max(own.action_sizes)
        mask = own.mask_tensor(torch.device("cpu"))
        fitted._padding_mask = None if mask is None else ~mask
        return fitted

    def spec(self) -> TeacherSpec:
        """The name of the teacher, and the spaces of the tasks that it is fitted to."""
        return TeacherSpec(
            source=self.source,
            kind="callable",
            observation_space=self.observation_space,
            action_space=self.action_space,
        )

    def forward(self, observation: Observation, task: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        """The output of the function.

        Raises:
            InputError: It contains no label, or not one for each row.
        """
        groups = observation
        if self._reads is not None:
            groups = images_as_shown(resized(groups, self._reads), self._reads)
        # Copies, so that in-place operations of the function do not change the rollout.
        with torch.set_grad_enabled("jacobian" in needs):
            output = self.function(copied(groups), task.clone())
        if not isinstance(output, PolicyOutput):
            raise InputError(
                f"{self.source} returned a {type(output).__name__}: it must return a PolicyOutput, "
                "e.g. PolicyOutput(logits=logits)."
            )
        labels = {name: value for name in LABELS if (value := getattr(output, name)) is not None}
        if not labels.keys() & {"logits", "q_values", "mean"}:
            raise InputError(
                f"{self.source} returned an empty PolicyOutput: it must contain logits, q_values "
                "or a mean."
            )
        masked: dict[str, Any] = {
            name: self._masked(name, value, task) for name, value in labels.items()
        }
        return dataclasses.replace(output, **masked)

    def _masked(self, name: str, value: Tensor, task: Tensor) -> Tensor:
        """A label in float32, with the actions masked that the task of a row does not have.

        Args:
            name: One of `LABELS`.
            value: The label that the function returned.
            task: Index of each row's task.    (rows,)

        Raises:
            InputError: It does not have a row for each task index, has more columns than there are
                actions, or contains other than finite real numbers.
        """
        if not isinstance(value, Tensor) or value.shape[:-1] != task.shape:
            found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"{self.source} returned {name} of {found} for {len(task)} rows: it must be a "
                "tensor with a row for each, and a column for each action."
            )
        self._check_kind(name, value, task)
        if self._width is not None and value.shape[-1] > self._width:
            raise InputError(
                f"{self.source} returned {name} with {value.shape[-1]} columns, but its tasks have "
                f"at most {self._width} actions: return a column for each action."
            )
        filler = LABELS[name]
        label = upcast(value)
        if self._padding_mask is not None:
            label = label.masked_fill(self._padding_mask[task][:, : label.shape[1]], filler)
        if filler != 0:
            label = mask_infinite(label)
        if label.device.type == "cpu":  # elsewhere it would wait for the device at each step
            self._check_values(name, label)
        return label

    def _check_kind(self, name: str, value: Tensor, task: Tensor) -> None:
        """Refuses tensors that no arithmetic with the student's fits."""
        real = value.dtype.is_floating_point or value.dtype in WHOLE_NUMBERS
        if not real or value.layout != torch.strided or value.device != task.device:
            raise InputError(
                f"{self.source} returned {name} as a {value.layout} tensor of {value.dtype} on "
                f"{value.device}: it must be a dense tensor of real numbers on {task.device}."
            )

    def _check_values(self, name: str, label: Tensor) -> None:
        """Refuses labels that say nothing."""
        if not label.isfinite().all():
            raise InputError(
                f"The teacher {self.source} outputs {name} that are not finite: the teacher is at "
                "fault."
            )
        if LABELS[name] != 0 and is_masked(label).all(-1).any():
            raise InputError(
                f"The teacher {self.source} outputs {name} of minus infinity for every action of a "
                "row: at least one action must be possible."
            )
