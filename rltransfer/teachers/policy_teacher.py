"""Policies that rltransfer trained, as teachers."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from gymnasium.spaces import Box, Dict
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.files.checkpoint_names import FINAL
from rltransfer.files.hashing import tensors_sha256
from rltransfer.policies.network import Network
from rltransfer.policies.output import EMPTY, LABELS, Needs, PolicyOutput
from rltransfer.policies.policy import Policy
from rltransfer.policies.work import row_work
from rltransfer.tasks.observation import Observation, resized
from rltransfer.tasks.suite_spaces import (
    SuiteSpaces,
    check_actions,
    check_bounds,
    check_observation,
)
from rltransfer.tasks.task import Suite, Task
from rltransfer.teachers.spec import TeacherSpec
from rltransfer.teachers.teacher import ModuleTeacher, Teacher, in_this_package


class PolicyTeacher(ModuleTeacher):
    """A policy that rltransfer trained.

    Args:
        policy: The policy. One with a recurrent state remembers each row from step to step.
        source: Where it comes from.
        sha256: Hash of its weights.
        suite: The tasks that it was trained on, in the order of its task indices. If None, it only
            labels tasks with its spaces, and task indices are used as they are.
        kind: The `kind` of its specification: "run" or "zoo".
        frame_stack: The number of stacked frames in its observations, 0 for none; None if unknown.
        recorded_return: Mean return that was measured before, by task id.
        checkpoint: The checkpoint of the run at `source` that the policy is from.
    """

    module: Policy
    _index: Tensor | None

    def __init__(
        self,
        policy: Policy,
        source: str,
        sha256: str,
        suite: Suite | None = None,
        *,
        kind: str = "run",
        frame_stack: int | None = None,
        recorded_return: Mapping[str, float] | None = None,
        checkpoint: str | int = FINAL,
    ) -> None:
        num_parameters = policy.num_acting_parameters()
        super().__init__(policy, source, sha256, num_parameters, policy.state_size)
        self.suite = suite
        self.kind = kind
        self.frame_stack = frame_stack
        self.recorded_return = dict(recorded_return or {})
        self.checkpoint = checkpoint
        spec = policy.spec
        self.reads = Dict([(name, spec.observation_space[name]) for name in spec.network.groups])
        self.register_buffer("_index", None, persistent=False)
        self._action_size: int | None = None

    def spec(self) -> TeacherSpec:
        """The specification, with the spaces that the policy was trained on."""
        spec, encoder = self.module.spec, self.module.encoder
        normalizer = None
        if encoder.normalizer is not None:
            normalizer = {
                "kind": "mean and variance",
                "clip": encoder.normalizer.clip,
                "epsilon": encoder.normalizer.epsilon,
                "sha256": tensors_sha256([encoder.normalizer.mean, encoder.normalizer.variance]),
            }
        action_space = spec.action_space
        if spec.host_actions is not None and len(spec.host_actions) == 1:
            (action_space,) = spec.host_actions
        is_image = len(self.reads[encoder.groups[0]].shape or ()) == 3
        return TeacherSpec(
            source=str(self),
            kind=self.kind,
            sha256=self.sha256,
            observation_space=self.reads,
            action_space=action_space,
            preprocessing={
                "groups": list(self.reads),
                "scale": encoder.scale,
                "channels": "first" if is_image else None,
                "frame_stack": self.frame_stack,
                "normalizer": normalizer,
            },
            recorded_return=self.recorded_return,
        )

    def forward(self, observation: Observation, task: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        """The output of the policy."""
        groups, index = self.inputs(observation, task)
        return self.cropped(
            self.remembered(
                lambda state, start: self.module(groups, index, state, start, needs), task
            )
        )

    def network(self) -> Network:
        """The architecture of the policy."""
        return self.module.spec.network

    def row_work(self) -> int:
        """Multiply-adds of the policy on one row."""
        return row_work(self.module)

    def inputs(self, observation: Observation, task: Tensor) -> tuple[Observation, Tensor]:
        """The groups in the sizes that the policy was trained on, and its task indices.

        Args:
            observation: The groups, padded for a suite.    (rows, ...)
            task: Index of each row's task in that suite.   (rows,)
        """
        spec = self.module.spec
        groups = resized(observation, self.reads)
        if self._index is None:
            # A policy of one task knows only the index 0.
            one_mask = spec.action_mask is None or len(spec.action_mask) == 1
            one_task = one_mask and spec.num_tasks == 1
            return groups, torch.zeros_like(task) if one_task else task
        if len(self._index) == 1:
            return groups, self._index.expand_as(task)
        return groups, self._index[task]

    def cropped(self, output: PolicyOutput) -> PolicyOutput:
        """The output without actions that none of the labelled tasks has."""
        for name in (*LABELS, "padding_mask"):
            value = getattr(output, name)
            if value is not None and self._action_size is not None:
                setattr(output, name, value[..., : self._action_size])
        return output

    def fitted(self, spaces: SuiteSpaces) -> Teacher:
        """Checks every group that the policy reads, and the actions, and finds the task indices.

        A policy of several tasks was trained on padded observations and actions, so those of a task
        may be smaller.
        """
        fitted = PolicyTeacher(
            self.module, self.source, self.sha256, self.suite, kind=self.kind,
            frame_stack=self.frame_stack, recorded_return=self.recorded_return,
            checkpoint=self.checkpoint,
        )  # fmt: skip
        spec, who = self.module.spec, f"The teacher {self.source}"
        indices = [self._index_of(task) for task in spaces.suite]
        for task, index, own in zip(spaces.suite, indices, spaces.own, strict=True):
            check_observation(who, self.reads, task.id, own.observation, self._is_padded)
            masks = spec.action_mask if self._is_padded else None
            mask = None if masks is None else masks[index]
            check_actions(who, spec.action_space, mask, task.id, own.action)
            check_bounds(who, repr(self.source), self.bounds_in(task), task.id, own.action)
        if self.suite is not None:
            fitted._index = torch.tensor(indices)
        fitted._action_size = max(spaces.action_sizes)
        return fitted

    def quoted(self) -> str:
        """The source, with that of the checkpoint."""
        return super().quoted() if self.checkpoint == FINAL else str(self)

    def __str__(self) -> str:
        if self.checkpoint == FINAL:
            return self.source
        return f"load_teacher({self.source!r}, checkpoint={self.checkpoint!r})"

    def bounds_in(self, task: Task) -> Box | None:
        """The bounds that the policy was trained with."""
        return self.module.spec.bounds_of(self._index_of(task))

    @functools.cached_property
    def is_ours(self) -> bool:
        """See `Teacher`: the policy may be of another package, too."""
        return in_this_package(type(self)) and in_this_package(type(self.module))

    @property
    def _is_padded(self) -> bool:
        """Whether it was trained on several tasks, and so perhaps on padded spaces."""
        return self.suite is not None and len(self.suite) > 1

    def _index_of(self, task: Task) -> int:
        if self.suite is None or not self._is_padded:
            return 0
        place = self.suite.place_of(task)
        if place is None and not self.module.spec.asks_for_task:
            # The policy does not use the index, so any task with this id will do.
            place = next((i for i, own in enumerate(self.suite) if own.id == task.id), None)
        if place is None:
            raise InputError(
                f"The teacher {self.source} does not fit the task {str(task)!r}: it was trained on "
                f"{', '.join(self.suite.names())}."
            )
        return place
