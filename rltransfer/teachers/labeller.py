"""Labels: what a teacher is asked of each observation, beside what it says by itself.

Gradients by the observation and feature maps cost time, and labels memory: they are asked for only
where an objective needs them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.policies.output import LABELS, PolicyOutput
from rltransfer.tasks.observation import Observation
from rltransfer.teachers.teacher import Teacher


class Labeller:
    """Asks a teacher for what an objective needs; labels of all tasks have one size.

    The first call says what a label holds, and how many features: it must hold rows of every task.

    Args:
        teacher: Fitted to the tasks, on its device.
        needs: `Objective.needs`.
        groups: The observation groups that the student reads.
        action_mask: For each task, which actions, or numbers of a continuous action, it has; None
            where each has all.    (tasks, actions)
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
        """Returns the labels, without gradients.

        Args:
            observation: The groups.           (rows, ...)
            task: Index of each row's task.    (rows,)
        """

        def says(seen: Observation) -> PolicyOutput:
            return self._legal(self.teacher(seen, task, self.needs), task)

        output = answer(says, observation, self.needs, self.groups)
        if "features" in self.needs and output.features is not None:
            output.features = self._padded(output.features)
        label = {name: getattr(output, name) for name in self.fields}
        if self._is_first:
            # One task alone may say more, e.g. the deviation of actions that others do not have.
            self.fields = tuple(name for name, value in label.items() if value is not None)
            self._is_first = False
        return PolicyOutput(**{n: v if v is None else v.detach() for n, v in label.items()})

    def answered(
        self,
        says: Callable[[Observation], PolicyOutput],
        observation: Observation,
        label: PolicyOutput,
    ) -> PolicyOutput:
        """Returns what a student says of what was labelled; see `answer`."""
        return answer(says, observation, self.needs, self.groups, label)

    def _padded(self, features: Tensor) -> Tensor:
        """Returns the features of some tasks' teachers, with zeros where others have more."""
        if self.num_features is None:
            self.num_features = features.shape[-1]
        return F.pad(features, (0, self.num_features - features.shape[-1]))

    def _legal(self, output: PolicyOutput, task: Tensor) -> PolicyOutput:
        """Returns the output with the actions masked that a row's task does not have."""
        if self.action_mask is None:
            return output
        illegal = ~self.action_mask[task]
        masked = {}
        for name, filler in LABELS.items():
            said = getattr(output, name)
            if said is not None:
                # The teachers of some tasks may know fewer actions than there are in all.
                missing = illegal.shape[-1] - said.shape[-1]
                if missing < 0:
                    return output
                if missing and self._is_first and name == "mean":
                    self._check_long_enough(said, illegal)
                masked[name] = F.pad(said, (0, missing), value=filler).masked_fill(illegal, filler)
        padding_mask = None if output.mean is None else illegal
        return dataclasses.replace(output, **masked, padding_mask=padding_mask)

    def _check_long_enough(self, mean: Tensor, padding_mask: Tensor) -> None:
        """Checks that a teacher says every number of a continuous action that the tasks have.

        Raises:
            InputError: It says too few.
        """
        known = mean.shape[-1]
        if not bool(padding_mask[:, known:].all()):
            raise InputError(
                f"The teacher {self.teacher.source} says {known} numbers of an action, but a task "
                f"has {int((~padding_mask).sum(-1).max())}: take a teacher of the same actions."
            )


def answer(
    says: Callable[[Observation], PolicyOutput],
    observation: Observation,
    needs: Collection[str],
    groups: Sequence[str],
    label: PolicyOutput | None = None,
) -> PolicyOutput:
    """Returns what a network says, with what is needed beside it.

    Args:
        says: The network.
        observation: The groups.    (batch, ...)
        needs: `Objective.needs`.
        groups: By which groups gradients are taken.
        label: What the teacher says: which output the gradient is of, the one that is largest for
            the teacher; None if the network is the teacher. Only with a label can the gradient be
            differentiated again.
    """
    if "jacobian" not in needs:
        return says(observation)
    with torch.enable_grad():
        # Bytes have no gradient: the network gets float32. The caller's own tensors stay as they
        # are.
        by = {name: observation[name].detach().float().requires_grad_() for name in groups}
        output = says({**observation, **by})
        output.jacobian = _gradient(output, label or output, by, again=label is not None)
    return output


def _gradient(
    output: PolicyOutput, label: PolicyOutput, by: Observation, again: bool
) -> Tensor | None:
    """Returns the gradient of one output by groups, side by side; None where there is none.

    Args:
        output: What is differentiated.
        label: Its largest logit, Q-value or action tells which output it is.
        by: The groups.    (batch, ...) each
        again: Whether the gradient will be differentiated.

    Returns:
        (batch, observation_size)
    """
    scores, wanted = (
        one.preferences() if one.mean is None else one.mean for one in (output, label)
    )
    if not scores.requires_grad:
        return None
    if output.padding_mask is not None:
        wanted = wanted.masked_fill(output.padding_mask, -math.inf)
    chosen = scores.gather(-1, wanted.argmax(-1, keepdim=True)).sum()
    found = torch.autograd.grad(chosen, list(by.values()), create_graph=again, allow_unused=True)
    if all(gradient is None for gradient in found):
        return None
    parts = [
        torch.zeros_like(group) if gradient is None else gradient
        for gradient, group in zip(found, by.values(), strict=True)
    ]
    return torch.cat([part.flatten(1) for part in parts], 1)
