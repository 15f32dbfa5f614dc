"""Teachers of tasks with other observations or other actions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError, check_choice
from rltransfer.options import to_builtin
from rltransfer.policies.output import EMPTY, MASKED, Needs, PolicyOutput
from rltransfer.policies.scores import mask_infinite
from rltransfer.tasks.action import bounded_dimensions, center_and_half_range
from rltransfer.tasks.observation import DEFAULT_GROUP, Observation, copied, resized
from rltransfer.tasks.suite_spaces import SuiteSpaces, TaskSpaces, describe_bounds
from rltransfer.tasks.task import Task
from rltransfer.teachers import time_feature
from rltransfer.teachers.row_states import RowStates
from rltransfer.teachers.teacher import Teacher
from rltransfer.teachers.time_feature import TimeFeature, group_of, with_time
from rltransfer.teachers.transformed import Wrapper

ObservationMap = Callable[[Observation], Observation] | Mapping[str, str] | Sequence[int] | str
"""Maps the observation of a task to that of a teacher: see `Adapted`."""
BoundsName = Literal["scale", "keep"]


class Adapted(Wrapper):
    """A teacher of a task with other observations or other actions.

    If several actions of the teacher map to one action of the task, their probabilities add, and
    the largest of their Q-values counts. Task actions with no teacher counterpart are masked. The
    dimensions of continuous actions can be reordered, and scaled to the bounds of the task.

    Args:
        teacher: The teacher.
        observation: The input of the teacher; the task's observation if None. One of:
            - A dictionary with the task's group for each group of the teacher,
              `{"policy": "privileged"}`.
            - Indices: for each image channel or vector entry of the teacher, that of the task,
              `(0, 2, 1)`.
            - "time_feature": The task's observation with the remaining time of the episode, as
              `TimeFeatureWrapper` of sb3-contrib and rl-zoo appends it; see `time_feature.py`.
            - A function from the groups of the task (rows, ...) to those of the teacher. The
              teacher cannot then be written as text.
        action: For each action, or action dimension, of the teacher, that of the task,
            `(0, 0, 1)`; the same actions if None.
        bounds: What happens where the teacher's continuous actions have other bounds than the
            task's: "scale" scales each dimension linearly from its bounds to the task's, "keep"
            leaves its actions as they are; None refuses such a task.

    Raises:
        InputError: An index is negative, there is none, or `bounds` is unknown.
    """

    observation: ObservationMap | None
    _picked: Tensor | None
    _offset: Tensor | None
    _factor: Tensor | None

    def __init__(
        self,
        teacher: Teacher,
        observation: ObservationMap | None = None,
        action: Sequence[int] | None = None,
        bounds: BoundsName | None = None,
    ) -> None:
        if bounds is not None:
            check_choice("treatment of bounds", bounds, get_args(BoundsName))
        if isinstance(observation, Mapping):
            observation = dict(observation)
        is_timed = isinstance(observation, str) and observation == time_feature.NAME
        if not (observation is None or is_timed or isinstance(observation, dict | Callable)):
            observation = _checked("observation", observation)
        action = None if action is None else _checked("action", action)
        super().__init__(teacher, observation=observation, action=action, bounds=bounds)
        self.loadable = self.loadable and not callable(observation)
        # A module that a user passes stays the user's: it is not moved and not put in another mode.
        object.__setattr__(self, "observation", observation)
        self.action = action
        self.bounds = bounds
        picked = torch.tensor(observation) if isinstance(observation, tuple) else None
        self.register_buffer("_picked", picked, persistent=False)
        self.register_buffer("_offset", None, persistent=False)
        self.register_buffer("_factor", None, persistent=False)
        self._time: TimeFeature | None = None
        if is_timed:
            self.states = RowStates(1)
        self._task_space: spaces.Dict | None = None
        self._num_actions = 0 if action is None else max(action) + 1

    def fitted(self, spaces: SuiteSpaces) -> Teacher:
        """Fits the teacher to the mapped spaces of every task."""
        mapped = [
            self._mapped_spaces(task, own)
            for task, own in zip(spaces.suite, spaces.own, strict=True)
        ]
        try:
            member = self.members[0].fitted(SuiteSpaces.of(spaces.suite, mapped))
        except InputError as error:
            if self.states is None or "but the task shows" not in str(error):
                raise
            raise InputError(
                f"{str(error).rstrip('.')}, counting the value that {time_feature.NAME!r} appends."
            ) from error
        fitted = self._again([member])
        # The padding of these tasks alone: a suite with more tasks may pad further.
        own = SuiteSpaces.of(spaces.suite, spaces.own)
        fitted._task_space = own.observation_space
        if self.states is not None:
            fitted._time = TimeFeature(spaces)
        if self.bounds == "scale":
            fitted._offset, fitted._factor = self._units(spaces)
        if own.is_discrete:
            fitted._num_actions = max(*own.action_sizes, fitted._num_actions)
        return fitted

    def forward(self, observation: Observation, task: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        """The output of the teacher, as actions of the task."""
        mapped = (
            self._mapped(observation) if self.states is None else self._timed(observation, task)
        )
        output = self.members[0](mapped, task, needs)
        if self.action is not None:
            output = self._with_actions(output)
        return output if self._factor is None else self._scaled(output, task)

    def begin_step(self, start: Tensor, task: Tensor) -> None:
        """Tells its teacher, and begins a step of the counted time."""
        super().begin_step(start, task)
        if self.states is not None:
            self.states.begin_step(start)

    def label_state(self) -> dict[str, Any]:
        """That of its teacher, and the counted time of all rows."""
        time = {} if self.states is None else {"time": self.states.state_dict()}
        return {**super().label_state(), **time}

    def load_label_state(self, state: dict[str, Any]) -> None:
        """Restores what `label_state` returned."""
        super().load_label_state(state)
        if self.states is not None:
            place = torch.device("cpu") if self._time is None else self._time.limits.device
            self.states.load_state_dict(state["time"], place)

    def _timed(self, observation: Observation, task: Tensor) -> Observation:
        """The observation with the remaining time of each row's episode."""
        assert self.states is not None
        if self._time is None:
            raise InputError(f"{self.source} must be fitted to a task first, whose limit it uses.")
        steps, start = self.states.before(len(task), task.device)
        steps = steps.masked_fill(start[:, None], 0.0)
        self.states.after(steps + 1)
        timed: Observation = self._time(observation, task, steps)
        return timed

    def _scaled(self, output: PolicyOutput, task: Tensor) -> PolicyOutput:
        """The output with continuous actions in the bounds of the task."""
        if output.mean is None:
            return output
        assert self._offset is not None and self._factor is not None
        offset, factor = self._offset[task], self._factor[task]
        changed: dict[str, Any] = {
            name: offset + factor * value
            for name in ("mean", "low", "high")
            if (value := getattr(output, name)) is not None
        }
        if output.log_std is not None:
            changed["log_std"] = output.log_std + factor.log()
        scaled = dataclasses.replace(output, **changed)
        if output.squashed is not None:
            low, high = (offset + factor * b for b in (output.squashed.low, output.squashed.high))
            scaled.squashed = dataclasses.replace(output.squashed, low=low, high=high)
        return scaled

    def _with_actions(self, output: PolicyOutput) -> PolicyOutput:
        """The output for the actions of the task."""
        changed: dict[str, Any] = {
            name: self._reordered(value)
            for name in ("mean", "log_std", "low", "high")
            if (value := getattr(output, name)) is not None
        }
        if output.logits is not None:
            changed["logits"] = self._merged(output.logits, torch.logsumexp)
        if output.q_values is not None:
            changed["q_values"] = self._merged(output.q_values, torch.amax)
        adapted = dataclasses.replace(output, **changed)
        if output.squashed is not None:
            adapted.squashed = output.squashed.map(self._reordered)
        return adapted

    def _mapped(self, observation: Observation) -> Observation:
        if self.observation is None:
            return observation
        if isinstance(self.observation, dict):
            return {name: observation[task] for name, task in self.observation.items()}
        if self._picked is not None:
            picked = observation[DEFAULT_GROUP].index_select(1, self._picked)
            return {**observation, DEFAULT_GROUP: picked}
        assert callable(self.observation)
        # Functions get observations without the padding of a suite, and may change them in place.
        space = self._task_space
        return self.observation(
            copied(observation if space is None else resized(observation, space))
        )

    def _merged(self, scores: Tensor, merge: Callable[[Tensor, int], Tensor]) -> Tensor:
        """The scores of the task's actions.    (rows, num_actions)

        Args:
            scores: The scores of the teacher's actions.    (rows, len(action))
            merge: Combines several scores into one, e.g. `torch.amax`.
        """
        assert self.action is not None
        if scores.shape[-1] != len(self.action):
            raise InputError(
                f"Adapted maps {len(self.action)} actions of {self.members[0].source}, but it has "
                f"{scores.shape[-1]}: set an index in `action` for each."
            )
        columns = []
        for action in range(self._num_actions):
            sources = [index for index, target in enumerate(self.action) if target == action]
            if len(sources) == 1:
                columns.append(scores[..., sources[0]])
            elif sources:
                column = torch.stack([scores[..., index] for index in sources], -1)
                columns.append(merge(column, -1))
            else:
                columns.append(torch.full_like(scores[..., 0], MASKED))
        return mask_infinite(torch.stack(columns, -1))

    def _reordered(self, values: Tensor) -> Tensor:
        """The dimensions of a continuous action in the order of the task.    (rows, action_dim)"""
        assert self.action is not None
        order = [self.action.index(dimension) for dimension in range(len(self.action))]
        return torch.stack([values[..., index] for index in order], -1)

    def _mapped_spaces(self, task: Task, own: TaskSpaces) -> TaskSpaces:
        """The spaces of a task as the teacher sees them."""
        action = self._acted(task, own.action)
        if callable(self.observation):
            return self._of_function(own, action)
        observed, shown = self._observed(task, own.observation), own.shown
        if self.states is not None:
            shown = None if shown is None else _at_start(shown, group_of((task, own.observation)))
        elif shown is not None and isinstance(self.observation, tuple):
            shown = {**shown, DEFAULT_GROUP: shown[DEFAULT_GROUP][:, list(self.observation)]}
        elif shown is not None:
            shown = self._mapped(shown)
        return TaskSpaces(observed, action, shown=shown)

    def _of_function(self, own: TaskSpaces, action: spaces.Space[Any]) -> TaskSpaces:
        """The spaces of a task with the observations that a function returns."""
        assert callable(self.observation)
        mapped = self.observation(own.first_observation())
        if not isinstance(mapped, Mapping):
            raise InputError(
                f"The observation of Adapted returned a {type(mapped).__name__}: it must return "
                "the groups of the teacher by name, e.g. {'policy': tensor}."
            )
        observed = spaces.Dict({name: _like(one) for name, one in mapped.items()})
        return TaskSpaces(observed, action, shown=dict(mapped))

    def _observed(self, task: Task, observed: spaces.Dict) -> spaces.Dict:
        if self.observation is None:
            return observed
        if self.states is not None:
            return with_time(observed, group_of((task, observed)))
        if isinstance(self.observation, dict):
            for name in self.observation.values():
                if name not in observed.spaces:
                    raise InputError(
                        f"Adapted reads the group {name!r}, but the task {task.id!r} shows only "
                        f"{', '.join(map(repr, observed.spaces))}."
                    )
            return spaces.Dict({name: observed[own] for name, own in self.observation.items()})
        return self._picked_space(task, observed)

    def _picked_space(self, task: Task, observed: spaces.Dict) -> spaces.Dict:
        space = observed.spaces.get(DEFAULT_GROUP)
        assert isinstance(self.observation, tuple)
        if not isinstance(space, spaces.Box) or max(self.observation) >= space.shape[0]:
            found = "nothing" if space is None else str(space)
            raise InputError(
                f"Adapted picks {self.observation} from the group {DEFAULT_GROUP!r}, but the task "
                f"{task.id!r} shows {found} there: use indices of channels or entries, from 0."
            )
        picked = list(self.observation)
        dtype = np.dtype(space.dtype).type
        box = spaces.Box(space.low[picked], space.high[picked], dtype=dtype)
        return spaces.Dict({**observed.spaces, DEFAULT_GROUP: box})

    def _acted(self, task: Task, acted: spaces.Space[Any]) -> spaces.Space[Any]:
        """The actions of the teacher in a task."""
        mapped = acted if self.action is None else self._unmapped(task, acted)
        if self.bounds is None or not isinstance(mapped, spaces.Box):
            return mapped
        own = self._own_bounds(task)
        if own.low.size != mapped.low.size:
            raise InputError(
                f"The actions of {self.members[0].source} have {own.low.size} dimensions, but "
                f"those of the task {task.id!r} {mapped.low.size}: bounds={self.bounds!r} of "
                f"Adapted needs as many{self._option}."
            )
        return spaces.Box(own.low.flatten(), own.high.flatten(), dtype=np.float32)

    def _own_bounds(self, task: Task) -> spaces.Box:
        """The bounds of the teacher's actions in a task.

        Raises:
            InputError: They are unknown.
        """
        own = self.members[0].bounds_in(task)
        if own is None:
            advice = self.members[0].bounds_advice()
            raise InputError(
                f"The bounds of the actions of {self.members[0].source} are unknown: leave out "
                f"bounds={self.bounds!r} of Adapted{self._option}{advice and f'; {advice}'}."
            )
        return own

    @property
    def _option(self) -> str:
        """The option of the command line that also scales actions, for errors."""
        return ", or leave out --rescale-actions" if self.bounds == "scale" else ""

    def _units(self, suite: SuiteSpaces) -> tuple[Tensor, Tensor]:
        """What scales actions to the bounds of each task: task = offset + factor * teacher.

        Dimensions without bounds keep their units.

        Returns:
            offset and factor, (num_tasks, action_dim) each.

        Raises:
            InputError: A dimension has bounds only in the teacher, or only in the task.
        """
        offset = torch.zeros(len(suite.own), max(suite.action_sizes))
        factor = torch.ones_like(offset)
        for row, (task, own) in enumerate(zip(suite.suite, suite.own, strict=True)):
            if not isinstance(own.action, spaces.Box):
                continue
            teacher = self._own_bounds(task)
            (from_center, from_half), (to_center, to_half) = (
                center_and_half_range(box) for box in (teacher, own.action)
            )
            both = bounded_dimensions(teacher)
            if self.action is not None:
                order = [self.action.index(dimension) for dimension in range(len(self.action))]
                from_center, from_half, both = from_center[order], from_half[order], both[order]
            if not np.array_equal(both, bounded_dimensions(own.action)):
                raise InputError(
                    f"The actions of {self.members[0].source} are in {describe_bounds(teacher)}, "
                    f"those of the task {task.id!r} in {describe_bounds(own.action)}: only actions "
                    "with bounds in both can be scaled; use bounds='keep' of "
                    f"Adapted{self._option}."
                )
            scale = np.where(both, to_half / from_half, 1.0)
            shift = np.where(both, to_center - scale * from_center, 0.0)
            factor[row, : len(scale)] = torch.from_numpy(scale)
            offset[row, : len(shift)] = torch.from_numpy(shift)
        return offset, factor

    def _unmapped(self, task: Task, acted: spaces.Space[Any]) -> spaces.Space[Any]:
        """The actions of the teacher before `action` maps them to those of the task."""
        assert self.action is not None
        if isinstance(acted, spaces.Discrete):
            if max(self.action) >= int(acted.n):
                raise InputError(
                    f"Adapted maps actions to {self.action}, but the task {task.id!r} has only "
                    f"{int(acted.n)}: use indices of its actions, from 0."
                )
            return spaces.Discrete(len(self.action))
        assert isinstance(acted, spaces.Box)
        if sorted(self.action) != list(range(acted.shape[0])):
            raise InputError(
                f"Adapted maps action dimensions to {self.action}, but the task {task.id!r} has "
                f"{acted.shape[0]}: name each of them once, from 0."
            )
        order = list(self.action)
        return spaces.Box(acted.low[order], acted.high[order], dtype=np.dtype(acted.dtype).type)


def _checked(what: str, numbers: Any) -> tuple[int, ...]:
    """Indices as a tuple.

    Raises:
        InputError: There is none, or one is negative or not an integer.
    """
    numbers = to_builtin(numbers)
    # Iterating over a dictionary would give its keys, over bytes their codes.
    named = isinstance(numbers, Mapping | set | frozenset | bytes | bytearray)
    named = named or not isinstance(numbers, Iterable)
    checked = () if named else tuple(numbers)
    if not checked or not all(isinstance(n, int | np.integer) and n >= 0 for n in checked):
        name = f', or "{time_feature.NAME}"' if what == "observation" else ""
        raise InputError(
            f"The {what} of Adapted is {numbers!r}: it must be integers from 0, such as (0, 2)"
            f"{name}."
        )
    return tuple(int(number) for number in checked)


def _at_start(shown: Observation, group: str) -> Observation:
    """The first observation of an episode with the remaining time, which is 1."""
    return {**shown, group: torch.cat([shown[group], torch.ones_like(shown[group][:, :1])], 1)}


def _like(sample: Tensor) -> spaces.Box:
    """A space that contains a sample of one row."""
    shape = tuple(sample.shape[1:])
    if sample.dtype == torch.uint8:
        return spaces.Box(0, 255, shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, shape, np.float32)
