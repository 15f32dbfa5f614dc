"""Labels: what a teacher outputs for an objective, on each observation.

Gradients and feature maps cost time, and labels cost memory, so a label contains only what its
objective needs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.policies.output import LABELS, PolicyOutput
from rltransfer.tasks.observation import Observation
from rltransfer.teachers.teacher import Teacher


class Labeller:
    """Labels observations with a teacher's outputs; labels of all tasks have one size.

    The first call fixes the fields of a label and the number of features: it must contain rows of
    every task.

    Args:
        teacher: Fitted to the tasks, on its device.
        needs: `Objective.needs`.
        groups: The observation groups that the student reads.
        action_mask: Which actions or action dimensions each task has; None if all tasks have
            all.    (tasks, actions)
    """

    def __init__(
        self,
        teacher: Teacher,
        needs: Collection[str],
        groups: Sequence[str],
        action_mask: Tensor | None,
    ) -> None:
        self.needs = frozenset(needs)
        self.fields = (*LABELS, *sorted(needs))
        self.groups = groups
        self.action_mask = action_mask
        self.num_features: int | None = None
        self.teacher = teacher
        self._is_first = True

    def __call__(self, observation: Observation, task: Tensor) -> PolicyOutput:
        """Labels observations, without gradients.

        Args:
            observation: The groups.           (rows, ...)
            task: Index of each row's task.    (rows,)
        """
        output = network_output(
            lambda seen: self._masked(self.teacher(seen, task, self.needs), task),
            observation, self.needs, self.groups,
        )  # fmt: skip
        if "features" in self.needs and output.features is not None:
            # Teachers of some tasks may have fewer features: pad them with zeros.
            size = output.features.shape[-1]
            self.num_features = self.num_features or size
            output.features = F.pad(output.features, (0, self.num_features - size))
        label = {name: getattr(output, name) for name in self.fields}
        if self._is_first:
            # For some tasks alone, a teacher may output fields that it lacks for others.
            self.fields = tuple(name for name, value in label.items() if value is not None)
            self._is_first = False
        return PolicyOutput(**{n: v if v is None else v.detach() for n, v in label.items()})

    def student_output(
        self,
        student: Callable[[Observation], PolicyOutput],
        observation: Observation,
        label: PolicyOutput,
    ) -> PolicyOutput:
        """The student's output on labelled observations; see `network_output`."""
        return network_output(student, observation, self.needs, self.groups, label)

    def _masked(self, output: PolicyOutput, task: Tensor) -> PolicyOutput:
        """The output padded to all actions, with those masked that a row's task lacks."""
        if self.action_mask is None:
            return output
        lacking = ~self.action_mask[task]
        masked: dict[str, Any] = {}
        for name, filler in LABELS.items():
            value = getattr(output, name)
            if value is not None:
                # Teachers of some tasks may know only these tasks' actions.
                missing = lacking.shape[-1] - value.shape[-1]
                if missing < 0:
                    return output
                if missing and self._is_first and name == "mean":
                    self._check_long_enough(value, lacking)
                masked[name] = F.pad(value, (0, missing), value=filler).masked_fill(lacking, filler)
        padding_mask = None if output.mean is None else lacking
        return dataclasses.replace(output, **masked, padding_mask=padding_mask)

    def _check_long_enough(self, mean: Tensor, padding_mask: Tensor) -> None:
        known = mean.shape[-1]
        if not bool(padding_mask[:, known:].all()):
            needed = int((~padding_mask).sum(-1).max())
            raise InputError(
                f"The teacher {self.teacher.source} outputs {known} of a task's {needed} action "
                "dimensions: use a teacher with the same actions."
            )


def network_output(
    network: Callable[[Observation], PolicyOutput],
    observation: Observation,
    needs: Collection[str],
    groups: Sequence[str],
    label: PolicyOutput | None = None,
) -> PolicyOutput:
    """A network's output, with its gradient by the observation if needed.

    Args:
        network: A teacher, or a student.
        observation: The groups.    (batch, ...)
        needs: `Objective.needs`.
        groups: The groups to differentiate by.
        label: The teacher's output, if the network is a student: the gradient is that of the
            teacher's best action, and can be differentiated again. None for the teacher itself.
    """
    if "jacobian" not in needs:
        return network(observation)
    with torch.enable_grad():
        # Bytes have no gradient: the network gets float32 copies.
        by = {name: observation[name].detach().float().requires_grad_() for name in groups}
        output = network({**observation, **by})
        output.jacobian = _gradient(output, label or output, by, again=label is not None)
    return output


def _gradient(
    output: PolicyOutput, label: PolicyOutput, by: Observation, again: bool
) -> Tensor | None:
    """The gradient of one output by the groups; None if it depends on none.

    Args:
        output: The differentiated output.
        label: Its largest logit, Q-value or action dimension selects which one.
        by: The groups.    (batch, ...) each
        again: Whether the gradient will be differentiated.

    Returns:
        The gradients by the groups, concatenated.    (batch, observation_size)
    """
    scores, selector = (o.preferences() if o.mean is None else o.mean for o in (output, label))
    if not scores.requires_grad:
        return None
    if output.padding_mask is not None:
        selector = selector.masked_fill(output.padding_mask, -math.inf)
    chosen = scores.gather(-1, selector.argmax(-1, keepdim=True)).sum()
    found = torch.autograd.grad(chosen, list(by.values()), create_graph=again, allow_unused=True)
    if all(gradient is None for gradient in found):
        return None
    parts = [
        torch.zeros_like(group) if gradient is None else gradient
        for gradient, group in zip(found, by.values(), strict=True)
    ]
    return torch.cat([part.flatten(1) for part in parts], 1)
