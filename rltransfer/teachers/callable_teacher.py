"""A function as a teacher: it sees what its tasks show, and what it says is looked at."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.policies.output import LABELS, NOTHING, Needs, PolicyOutput, upcast
from rltransfer.policies.scores import marked_illegal
from rltransfer.tasks.observation import Observation, resized
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.teachers.spec import TeacherSpec
from rltransfer.teachers.teacher import Teacher


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

    function: Callable[[Observation, Tensor], PolicyOutput]
    _padding_mask: Tensor | None

    def __init__(
        self, function: Callable[[Observation, Tensor], PolicyOutput], source: str = "a function"
    ) -> None:
        super().__init__()
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
        # A module that a user passes stays the user's: it is not moved and not put in another mode.
        object.__setattr__(self, "function", function)
        self.source = source
        self.num_parameters = 0
        self.observation_space: spaces.Dict | None = None
        self.action_space: spaces.Space[Any] | None = None
        self._shown: spaces.Dict | None = None
        self._width: int | None = None
        self.register_buffer("_padding_mask", None, persistent=False)

    def fitted(self, spaces: SuiteSpaces) -> Teacher:
        """Takes any task, and keeps the spaces of tasks that are all alike."""
        fitted = CallableTeacher(self.function, self.source)
        if all(own == spaces.own[0] for own in spaces.own):
            fitted.observation_space, fitted.action_space = spaces.own[0]
        # What its own tasks show and do: a suite of more tasks may pad both further.
        own = SuiteSpaces.of(spaces.suite, spaces.own)
        fitted._shown, fitted._width = own.observation_space, max(own.action_sizes)
        mask = own.mask_tensor(torch.device("cpu"))
        fitted._padding_mask = None if mask is None else ~mask
        return fitted

    def spec(self) -> TeacherSpec:
        """Returns what is known of the teacher: what it is called, and where it is asked."""
        return TeacherSpec(
            source=self.source,
            kind="callable",
            observation_space=self.observation_space,
            action_space=self.action_space,
        )

    def forward(
        self, observation: Observation, task: Tensor, needs: Needs = NOTHING
    ) -> PolicyOutput:
        """Returns what the function says.

        Raises:
            InputError: It says nothing that can be learned, or not of each row.
        """
        # Copies: what a function does in place must not reach the rollout.
        shown = observation if self._shown is None else resized(observation, self._shown)
        seen = {name: group.clone() for name, group in shown.items()}
        # What is asked by its gradient is asked with gradients.
        with torch.set_grad_enabled("jacobian" in needs):
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
        if self._padding_mask is not None:
            own = own.masked_fill(self._padding_mask[task][:, : own.shape[1]], filler)
        return own if filler == 0 else marked_illegal(own)
