"""The spaces of a suite: those of each task, and the joint ones that all tasks fit."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.tasks.action import (
    action_mask,
    action_size,
    bounded_dimensions,
    center_and_half_range,
    joint_action_space,
)
from rltransfer.tasks.observation import (
    Observation,
    copied,
    describe_space,
    joint_observation_space,
    resized,
)
from rltransfer.tasks.random_observation import random_observation
from rltransfer.tasks.task import Suite


@dataclass(frozen=True)
class TaskSpaces:
    """The spaces of one task, without padding."""

    observation: spaces.Dict
    action: spaces.Space[Any]
    """`Discrete` from 0, or a float32 `Box` of one axis."""
    host_action: spaces.Space[Any] | None = None
    """The action space as the environment defines it, with its start or its shape; None if unknown.
    Continuous actions of policies with an unknown one are learned in the environment's units."""
    shown: Observation | None = field(default=None, compare=False, repr=False)
    """The first observation of an episode, on the CPU; None if no environment was made.
    (1, ...) each"""

    def first_observation(self) -> Observation:
        """What code of a user is tried on: no random values, which no environment may show.

        Without an environment, they are random after all, and always the same.    (1, ...) each
        """
        if self.shown is None:
            return random_observation(self.observation, 1)
        return copied(self.shown)


def _joint_spaces(names: Sequence[str], own: Sequence[TaskSpaces]) -> TaskSpaces:
    observed = [(name, one.observation) for name, one in zip(names, own, strict=True)]
    actions = [(name, one.action) for name, one in zip(names, own, strict=True)]
    return TaskSpaces(joint_observation_space(observed), joint_action_space(actions))


@dataclass(frozen=True)
class SuiteSpaces:
    """The observations and actions of a suite's tasks.

    Observations are padded with zeros to the largest task; actions are padded and masked.
    """

    suite: Suite
    own: tuple[TaskSpaces, ...]
    """The spaces of each task, without padding, in the order of the suite."""
    observation_space: spaces.Dict
    """The observation groups that all tasks fit."""
    action_space: spaces.Space[Any]
    """The action space that all tasks fit: `Discrete` or `Box`."""

    @staticmethod
    def of(suite: Suite, own: Sequence[TaskSpaces]) -> SuiteSpaces:
        """The spaces of a suite, padded to its largest task.

        Raises:
            InputError: The tasks cannot share a policy.
        """
        joint = _joint_spaces([task.id for task in suite], own)
        return SuiteSpaces(suite, tuple(own), joint.observation, joint.action)

    def padded_to(self, observation_space: spaces.Dict, action_space: spaces.Space[Any]) -> Self:
        """The same tasks, padded to the spaces of a policy for larger tasks.

        Raises:
            InputError: A task cannot share a policy with these spaces.
        """
        names = ["the policy", *(task.id for task in self.suite)]
        _joint_spaces(names, [TaskSpaces(observation_space, action_space), *self.own])
        return type(self)(self.suite, self.own, observation_space, action_space)

    def of_task(self, index: int) -> SuiteSpaces:
        """The spaces of one task alone, without padding."""
        return SuiteSpaces.of(Suite.of(self.suite.tasks[index]), [self.own[index]])

    @property
    def is_discrete(self) -> bool:
        """Whether actions are discrete."""
        return isinstance(self.action_space, spaces.Discrete)

    @functools.cached_property
    def action_mask(self) -> tuple[tuple[bool, ...], ...] | None:
        """The available actions or action dimensions of each task; None if all are available."""
        return action_mask(self.action_space, [one.action for one in self.own])

    @property
    def action_sizes(self) -> tuple[int, ...]:
        """The number of discrete actions, or of action dimensions, of each task."""
        return tuple(action_size(one.action) for one in self.own)

    @property
    def host_actions(self) -> tuple[spaces.Space[Any], ...] | None:
        """The action space of each task as its environment defines it; None if one is unknown."""
        known = tuple(one.host_action for one in self.own if one.host_action is not None)
        return known if len(known) == len(self.own) else None

    def without_host_actions(self) -> Self:
        """The same spaces for policies that act in the environments' units."""
        own = tuple(dataclasses.replace(one, host_action=None) for one in self.own)
        return dataclasses.replace(self, own=own)

    def with_shown(self, observation: Observation) -> Self:
        """The same spaces, with observations that the environments have shown.

        Args:
            observation: The first observation of each task, padded; kept as it is.
                (num_tasks, ...) each
        """
        own = []
        for index, one in enumerate(self.own):
            row = {name: group[index : index + 1] for name, group in observation.items()}
            own.append(dataclasses.replace(one, shown=resized(row, one.observation)))
        return dataclasses.replace(self, own=tuple(own))

    def first_observations(self, device: torch.device) -> Observation:
        """A first observation of each task, padded.    (num_tasks, ...) each"""
        each = [resized(one.first_observation(), self.observation_space) for one in self.own]
        return {name: torch.cat([one[name] for one in each]).to(device) for name in each[0]}

    def num_actions(self, device: torch.device) -> Tensor:
        """`action_sizes` as a tensor.    (num_tasks,)"""
        return torch.tensor(self.action_sizes, device=device)

    def mask_tensor(self, device: torch.device) -> Tensor | None:
        """`action_mask` as a tensor.    (num_tasks, num_actions) or (num_tasks, action_dim)"""
        mask = self.action_mask
        return None if mask is None else torch.tensor(mask, device=device)


def check_observation(
    who: str, reads: spaces.Dict, task_id: str, shown: spaces.Dict, padded: bool
) -> None:
    """Checks that a task has every observation group that a policy reads.

    Args:
        who: The policy, at the beginning of a sentence.
        reads: The groups that it reads.
        task_id: The task.
        shown: The task's observation space, without padding.
        padded: Whether the policy was trained on padded observations, so that those of the task may
            be shorter.

    Raises:
        InputError: A group is missing, or has another type or shape.
    """
    for name, expected in reads.spaces.items():
        actual = shown.spaces.get(name)
        if actual is not None and actual.dtype == expected.dtype:
            size, *rest = expected.shape or (0,)
            own, *own_rest = actual.shape or (0,)
            if rest == own_rest and (own == size or (padded and own < size)):
                continue
        found = "does not have it" if actual is None else f"has {describe_space(actual)}"
        raise InputError(
            f"{who} does not fit the task {task_id!r}: it reads the group {name!r} as "
            f"{describe_space(expected)}, but the task {found}."
        )


def check_actions(
    who: str,
    known: spaces.Space[Any],
    mask: Sequence[bool] | None,
    task_id: str,
    own: spaces.Space[Any],
) -> None:
    """Checks that the available actions of a policy are those of a task.

    Args:
        who: The policy, at the beginning of a sentence.
        known: Its actions, over all of its tasks.
        mask: Which of them are available in this task; None for all.
        task_id: The task.
        own: The action space of the task, without padding.

    Raises:
        InputError: The kinds or numbers of actions differ.
    """
    size = action_size(known) if mask is None else sum(mask)
    if type(known) is not type(own) or action_size(own) != size:
        raise InputError(
            f"{who} does not fit the task {task_id!r}: its actions are "
            f"{type(known).__name__}({size}), the task's {type(own).__name__}({action_size(own)})."
        )


def check_bounds(
    who: str, source: str, known: spaces.Box | None, task_id: str, own: spaces.Space[Any]
) -> None:
    """Checks that a policy acts within the bounds of a task.

    Args:
        who: The policy, at the beginning of a sentence.
        source: The policy as a teacher, for the remedy.
        known: The policy's action space; None if its bounds are unknown.
        task_id: The task.
        own: The action space of the task, without padding.

    Raises:
        InputError: The bounds of an action dimension differ.
    """
    if known is None or not isinstance(own, spaces.Box):
        return
    units = zip(center_and_half_range(known), center_and_half_range(own), strict=True)
    same = np.array_equal(bounded_dimensions(known), bounded_dimensions(own))
    if same and all(np.allclose(ours, theirs, rtol=1e-4) for ours, theirs in units):
        return
    scale = (
        f"--rescale-actions or \"Adapted({source}, bounds='scale')\" to scale the actions to the "
        "task's bounds, or bounds='keep' to leave them as they are"
    )
    keep = (
        f"\"Adapted({source}, bounds='keep')\" to leave the actions to the environment as they are"
    )
    raise InputError(
        f"{who} does not fit the task {task_id!r}: it acts in {describe_bounds(known)}, but the "
        f"actions of the task are in {describe_bounds(own)}; use {scale if same else keep}."
    )


def describe_bounds(box: spaces.Box) -> str:
    """The bounds of an action space in errors, e.g. "[-1, 1]" or "[0, 1] x [-2, 2]"."""
    each = [f"[{low:g}, {high:g}]" for low, high in zip(box.low.flat, box.high.flat, strict=True)]
    return each[0] if len(set(each)) == 1 else " x ".join(each)
