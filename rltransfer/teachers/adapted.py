"""Teachers of another observation, or of other actions, than a task's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.policies.output import ILLEGAL, NOTHING, Needs, PolicyOutput
from rltransfer.policies.scores import marked_illegal
from rltransfer.tasks.observation import DEFAULT_GROUP, Observation, resized, shown_shape
from rltransfer.tasks.suite_spaces import SuiteSpaces, TaskSpaces
from rltransfer.tasks.task import Task
from rltransfer.teachers.teacher import Teacher
from rltransfer.teachers.transformed import Wrapper

ObservationMap = Callable[[Observation], Observation] | Mapping[str, str] | Sequence[int]
"""How a task's observation becomes a teacher's: see `Adapted`."""


class Adapted(Wrapper):
    """A teacher of another observation, or of other actions, than the task's.

    Probabilities of several of the teacher's actions that are one action of the task add; of their
    Q-values the largest counts. Actions of the task that none of the teacher's is are illegal.
    Continuous actions can be put in another order.

    Args:
        teacher: The teacher.
        observation: What the teacher sees, in one of three forms. A dictionary names the task's
            group for each group of the teacher, `{"policy": "privileged"}`. Whole numbers say which
            channel of the task's image, or which entry of its vector, each of the teacher's is,
            `(0, 2, 1)`. A function takes the task's own groups (rows, ...) and returns the
            teacher's; such a teacher cannot be written as text. As it is if None.
        action: For each action of the teacher, which one of the task it is, `(0, 0, 1)`; for each
            number of a continuous action, which number of the task's. As they are if None.

    Raises:
        InputError: A number is negative, or there is none.
    """

    observation: ObservationMap | None
    _picked: Tensor | None

    def __init__(
        self,
        teacher: Teacher,
        observation: ObservationMap | None = None,
        action: Sequence[int] | None = None,
    ) -> None:
        if isinstance(observation, Mapping):
            observation = dict(observation)
        elif observation is not None and not callable(observation):
            observation = _checked("observation", observation)
        action = None if action is None else _checked("action", action)
        super().__init__(teacher, observation=observation, action=action)
        self.loadable = self.loadable and not callable(observation)
        # A module that a user passes stays the user's: it is not moved and not put in another mode.
        object.__setattr__(self, "observation", observation)
        self.action = action
        picked = torch.tensor(observation) if isinstance(observation, tuple) else None
        self.register_buffer("_picked", picked, persistent=False)
        self._shown_space: spaces.Dict | None = None
        self._num_actions = 0 if action is None else max(action) + 1

    def fitted(self, spaces: SuiteSpaces) -> Teacher:
        """Fits the teacher to what it sees and does of every task."""
        seen = [
            TaskSpaces(self._seen(task, own.observation), self._done(task, own.action))
            for task, own in zip(spaces.suite, spaces.own, strict=True)
        ]
        fitted = self._again([self.members[0].fitted(SuiteSpaces.of(spaces.suite, seen))])
        # What its own tasks show and do: a suite of more tasks may pad both further.
        own = SuiteSpaces.of(spaces.suite, spaces.own)
        fitted._shown_space = own.observation_space
        if own.is_discrete:
            fitted._num_actions = max(*own.action_sizes, fitted._num_actions)
        return fitted

    def forward(
        self, observation: Observation, task: Tensor, needs: Needs = NOTHING
    ) -> PolicyOutput:
        """Returns what the teacher says of what it sees, as actions of the task."""
        output = self.members[0](self._shown(observation), task, needs)
        if self.action is None:
            return output
        changed = {
            name: self._reordered(value)
            for name in ("mean", "log_std")
            if (value := getattr(output, name)) is not None
        }
        if output.logits is not None:
            changed["logits"] = self._gathered(output.logits, torch.logsumexp)
        if output.q_values is not None:
            changed["q_values"] = self._gathered(output.q_values, torch.amax)
        return dataclasses.replace(output, **changed)

    def _shown(self, observation: Observation) -> Observation:
        """Returns what the teacher sees."""
        if self.observation is None:
            return observation
        if isinstance(self.observation, dict):
            return {own: observation[name] for own, name in self.observation.items()}
        if self._picked is not None:
            picked = observation[DEFAULT_GROUP].index_select(1, self._picked)
            return {**observation, DEFAULT_GROUP: picked}
        assert callable(self.observation)
        # Functions see what the task itself shows, without what a suite pads it with.
        space = self._shown_space
        return self.observation(observation if space is None else resized(observation, space))

    def _gathered(self, scores: Tensor, together: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Returns scores of the task's actions.    (rows, num_actions)

        Args:
            scores: Those of the teacher's.                 (rows, len(action))
            together: Makes one score of several, e.g. `torch.amax`.
        """
        assert self.action is not None
        if scores.shape[-1] != len(self.action):
            raise InputError(
                f"Adapted says what {len(self.action)} actions of {self.members[0].source} are, "
                f"but it has {scores.shape[-1]}: the action takes a number for each."
            )
        columns = []
        for action in range(self._num_actions):
            own = [index for index, meant in enumerate(self.action) if meant == action]
            if len(own) == 1:
                columns.append(scores[..., own[0]])
            elif own:
                column = torch.stack([scores[..., index] for index in own], -1)
                columns.append(together(column, -1))
            else:
                columns.append(torch.full_like(scores[..., 0], ILLEGAL))
        return marked_illegal(torch.stack(columns, -1))

    def _reordered(self, values: Tensor) -> Tensor:
        """Returns the numbers of a continuous action in the task's order.    (rows, action_dim)"""
        assert self.action is not None
        order = [self.action.index(number) for number in range(len(self.action))]
        return torch.stack([values[..., index] for index in order], -1)

    def _seen(self, task: Task, observed: spaces.Dict) -> spaces.Dict:
        """Returns the space of what the teacher sees of a task."""
        if self.observation is None:
            return observed
        if isinstance(self.observation, dict):
            for name in self.observation.values():
                if name not in observed.spaces:
                    raise InputError(
                        f"Adapted reads the group {name!r}, but the task {task.id!r} shows only "
                        f"{', '.join(map(repr, observed.spaces))}."
                    )
            return spaces.Dict({own: observed[name] for own, name in self.observation.items()})
        if isinstance(self.observation, tuple):
            return self._picked_space(task, observed)
        assert callable(self.observation)
        sample = {
            name: torch.zeros(1, *shown_shape(space), dtype=_dtype(space))
            for name, space in observed.spaces.items()
        }
        shown = self.observation(sample)
        if not isinstance(shown, Mapping):
            raise InputError(
                f"The observation of Adapted returned a {type(shown).__name__}: it must return the "
                "teacher's groups by name, e.g. {'policy': tensor}."
            )
        return spaces.Dict({name: _like(one) for name, one in shown.items()})

    def _picked_space(self, task: Task, observed: spaces.Dict) -> spaces.Dict:
        """Returns the space of the channels or entries that are picked."""
        space = observed.spaces.get(DEFAULT_GROUP)
        assert isinstance(self.observation, tuple)
        if not isinstance(space, spaces.Box) or max(self.observation) >= space.shape[0]:
            found = "nothing" if space is None else str(space)
            raise InputError(
                f"Adapted picks {self.observation} of the group {DEFAULT_GROUP!r}, but the task "
                f"{task.id!r} shows {found} there: the numbers count channels or entries from 0."
            )
        picked = list(self.observation)
        dtype = np.dtype(space.dtype).type
        box = spaces.Box(space.low[picked], space.high[picked], dtype=dtype)
        return spaces.Dict({**observed.spaces, DEFAULT_GROUP: box})

    def _done(self, task: Task, acted: spaces.Space[Any]) -> spaces.Space[Any]:
        """Returns the space of the teacher's actions in a task."""
        if self.action is None:
            return acted
        if isinstance(acted, spaces.Discrete):
            if max(self.action) >= int(acted.n):
                raise InputError(
                    f"Adapted makes actions of {self.action}, but the task {task.id!r} has only "
                    f"{int(acted.n)}: the numbers count its actions from 0."
                )
            return spaces.Discrete(len(self.action))
        assert isinstance(acted, spaces.Box)
        if sorted(self.action) != list(range(acted.shape[0])):
            raise InputError(
                f"Adapted makes actions of {self.action}, but those of the task {task.id!r} are "
                f"{acted.shape[0]} continuous numbers: name each of them once, from 0."
            )
        order = list(self.action)
        return spaces.Box(acted.low[order], acted.high[order], dtype=np.dtype(acted.dtype).type)


def _checked(what: str, numbers: Sequence[int]) -> tuple[int, ...]:
    """Returns whole numbers as a tuple.

    Raises:
        InputError: There is none, or one is negative or not whole.
    """
    # The keys of a dictionary would be taken for its numbers.
    named = isinstance(numbers, Mapping | set | frozenset) or not isinstance(numbers, Iterable)
    checked = () if named else tuple(numbers)
    if not checked or not all(isinstance(n, int | np.integer) and n >= 0 for n in checked):
        raise InputError(
            f"The {what} of Adapted is {numbers!r}: it takes whole numbers from 0, such as (0, 2)."
        )
    return tuple(int(number) for number in checked)


def _dtype(space: spaces.Space[Any]) -> torch.dtype:
    """Returns the type of an observation as rollouts show it."""
    return torch.uint8 if space.dtype == np.uint8 else torch.float32


def _like(sample: Tensor) -> spaces.Box:
    """Returns a space that a sample of one row is of."""
    shape = tuple(sample.shape[1:])
    if sample.dtype == torch.uint8:
        return spaces.Box(0, 255, shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, shape, np.float32)
