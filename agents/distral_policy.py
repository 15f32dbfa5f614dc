"""The policies of Distral: the distilled policy, and one column per task.

A column is a network that outputs logits: h for the distilled policy, beta f_i for task i. With
the weight w of h, alpha in eq. 8 (Teh 2017, eq. 6 to 8),

    pi_0(a|s) = softmax(h(s)),    pi_i(a|s) = softmax(w h(s) + beta f_i(s)).

For continuous actions a column outputs a Gaussian; see `gaussian_product` and `distral.py`.

The tasks' columns are stacked (`stacked_layers.py`): one forward pass computes all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.files.checkpoint import newest_checkpoint
from rltransfer.objectives.divergences import categorical_kl, gaussian_kl
from rltransfer.options import path_value
from rltransfer.policies.normalizer import RunningNormalizer
from rltransfer.policies.output import EMPTY, MASKED, Needs, PolicyOutput
from rltransfer.policies.policy import Policy, PolicySpec, bounded_log_std
from rltransfer.policies.saving import load_policy
from rltransfer.policies.stacked_layers import stacked
from rltransfer.tasks.action import action_size
from rltransfer.tasks.observation import Observation

MOST_COLUMNS = 1_000
"""Columns of a policy in a file."""
MOST = 1e6
"""Magnitude of a weight in a file; NaN is not below it."""


@dataclass(frozen=True)
class DistralSpec(PolicySpec):
    """The specification of a `DistralPolicy`."""

    columns: bool = True
    """Whether each task has a column; if not, pi_0 is the policy of all tasks."""
    shared_weight: float = 0.0
    """Weight of pi_0's logits in the tasks' logits."""

    @property
    def asks_for_task(self) -> bool:
        """Whether the output depends on the task."""
        return super().asks_for_task or (self.columns and self.num_tasks > 1)

    def build(self) -> DistralPolicy:
        """Builds a policy with fresh weights."""
        return DistralPolicy(self)

    def to_json(self) -> dict[str, Any]:
        """The JSON form that `from_json` reads."""
        added = {"columns": self.columns, "shared_weight": self.shared_weight}
        return {"kind": "distral", **super().to_json(), **added}

    @staticmethod
    def from_json(data: dict[str, Any]) -> DistralSpec:
        """The specification that `to_json` wrote.

        Raises:
            Exception: The data are not those of a policy: one of `DAMAGE`.
        """
        base = PolicySpec.from_json(data)
        fields = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
        columns, weight = data["columns"], data["shared_weight"]
        if type(columns) is not bool or type(weight) not in (int, float) or not abs(weight) <= MOST:
            raise TypeError("A weight is a number, and columns are there or not.")
        if columns and base.num_tasks > MOST_COLUMNS:
            raise ValueError("Each task has a network, which takes time to build.")
        return DistralSpec(**fields, columns=columns, shared_weight=weight)


class DistralPolicy(Policy):
    """The distilled policy pi_0, and one column per task.

    `forward` outputs the task policies, `both` outputs pi_0 as well.
    """

    spec: DistralSpec

    def __init__(self, spec: DistralSpec) -> None:
        # With columns, the columns output the values.
        super().__init__(dataclasses.replace(spec, value=spec.value and not spec.columns))
        self.spec = spec
        self.columns = _columns(spec) if spec.columns else None

    def forward(
        self,
        observation: Observation,
        task: Tensor | None = None,
        state: Tensor | None = None,
        start: Tensor | None = None,
        needs: Needs = EMPTY,
    ) -> PolicyOutput:
        """The output and value of each row's task policy; see `Policy`."""
        return self.both(observation, task)[1]

    def feature_layers(self) -> Sequence[Sequence[nn.Module]]:
        """See `Policy`: with columns, each task has a network next to that of pi_0."""
        return super().feature_layers() if self.columns is None else ()

    def both(
        self, observation: Observation, task: Tensor | None, in_order: bool = False
    ) -> tuple[PolicyOutput, PolicyOutput]:
        """The outputs of pi_0 and of each row's pi_i.

        Args:
            observation: The groups.                                 (rows, ...)
            task: Index of each row's task; None for one task.       (rows,)
            in_order: Whether the rows are grouped by task, in the tasks' order and equally many of
                each. If not, every column processes every row.
        """
        distilled = super().forward(observation, task)
        if self.columns is None:
            return distilled, distilled
        scores, value = self.scores(observation, task, in_order)
        weight = self.spec.shared_weight
        if distilled.logits is not None:
            logits = scores + weight * distilled.logits if weight else scores
            if self.action_mask is not None:
                logits = logits.masked_fill(~self.action_mask[task], MASKED)
            return distilled, PolicyOutput(logits=logits, value=value)
        assert distilled.mean is not None and distilled.log_std is not None
        assert self.columns.log_std is not None
        log_std = bounded_log_std(self.columns.log_std[0 if task is None else task])
        scores, log_std = self._scaled(scores, log_std.expand_as(scores), task)
        if weight:
            scores, log_std = gaussian_product(
                distilled.mean, distilled.log_std, weight, scores, log_std
            )
        own = self._gaussian(scores, log_std, task)
        own.value = value
        return distilled, own

    def scores(
        self, observation: Observation, task: Tensor | None, in_order: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The output beta f_i (rows, size) and value (rows,) of each row's column; see `both`."""
        columns, count = self.columns, self.spec.num_tasks
        assert columns is not None
        inputs = columns.encoder.inputs(observation, task)
        if in_order:
            inputs = inputs.unflatten(0, (count, -1))
        else:
            inputs = inputs.expand(count, *inputs.shape)
        features = columns.encoder.layers(inputs)
        seen = columns.value_encoder.layers(inputs) if columns.value_encoder else features

        def of_rows(outputs: Tensor) -> Tensor:
            if in_order:
                return outputs.flatten(0, 1)
            if task is None:
                return outputs[0]
            index = task.unsqueeze(0).unsqueeze(-1).expand(1, *outputs.shape[1:])
            return outputs.gather(0, index).squeeze(0)

        scores = of_rows(columns.action_head(features))
        if columns.value_head is None:
            return scores, None
        return scores, of_rows(columns.value_head(seen)).squeeze(-1)

    def update_statistics(self, observation: Observation, task: Tensor | None = None) -> None:
        """Updates the normalisers of vectors; each column has separate statistics."""
        super().update_statistics(observation, task)
        if self.columns is not None and not self.frozen_statistics:
            self.columns.update_statistics(observation, task)

    def distilled_weights(self) -> dict[str, Tensor]:
        """The tensors of pi_0, by name."""
        # The units of actions are each task's own.
        others = ("columns.", "value_", "action_center", "action_half_range")
        state = self.state_dict()
        return {name: tensor for name, tensor in state.items() if not name.startswith(others)}

    def num_acting_parameters(self) -> int:
        """The number of parameters used for acting: without values, with pi_0 if it has weight."""
        count = super().num_acting_parameters()
        if self.columns is None:
            return count
        distilled = count - sum(parameter.numel() for parameter in self.columns.parameters())
        return self.columns.num_acting_parameters() + (distilled if self.spec.shared_weight else 0)


def _columns(spec: PolicySpec) -> Policy:
    """A policy and value per task, stacked: the first axis of each weight is the task."""
    single = PolicySpec(
        spec.network, spec.observation_space, spec.action_space,
        value=spec.value, image_bounds=spec.image_bounds,
    )  # fmt: skip
    policies = [Policy(single) for _ in range(spec.num_tasks)]
    together = policies[0]
    for name in ("encoder", "value_encoder"):
        encoder = getattr(together, name)
        if encoder is not None:
            encoder.layers = stacked([getattr(policy, name).layers for policy in policies])
    for name in ("action_head", "value_head"):
        if getattr(together, name) is not None:
            setattr(together, name, stacked([getattr(policy, name) for policy in policies]))
    if together.log_std is not None:
        together.log_std = nn.Parameter(torch.zeros(spec.num_tasks, len(together.log_std)))
    if together.encoder.normalizer is not None:
        size = together.encoder.normalizer.mean.shape[-1]
        together.encoder.normalizer = RunningNormalizer(size, num_tasks=spec.num_tasks)
        if together.value_encoder is not None:
            together.value_encoder.normalizer = None  # its inputs are already normalised
    return together


def load_distilled(policy: DistralPolicy, run_dir: str) -> None:
    """Initialises pi_0 with the distilled policy of a run, except for per-task statistics.

    Args:
        policy: The policy whose pi_0 is overwritten.
        run_dir: A Distral run with the same network, observations and actions.

    Raises:
        InputError: The folder is not such a run.
    """
    other = load_policy(newest_checkpoint(path_value("distilled", run_dir)) / "policy")
    if not isinstance(other, DistralPolicy):
        raise InputError(
            f"{run_dir} does not contain a distilled policy: use a run of distral or soft-q."
        )
    for name in ("network", "observation_space", "action_space"):
        ours, theirs = getattr(policy.spec, name), getattr(other.spec, name)
        # A policy does not depend on the bounds of continuous actions.
        alike = name == "action_space" and type(ours) is type(theirs)
        if ours != theirs and not (alike and action_size(ours) == action_size(theirs)):
            raise InputError(
                f"The distilled policy of {run_dir} has the {name.replace('_', ' ')} {theirs}, "
                f"but {ours} is needed: use a run that matches."
            )
    if other.spec.host_actions is None and policy.spec.action_units() is not None:
        raise InputError(
            f"The distilled policy of {run_dir} was written by an earlier version and acts in the "
            "environment's units: train it again, as policies now act in [-1, 1]."
        )
    weights = other.distilled_weights()
    if policy.spec.network.statistics == "per-task":
        # The statistics of the other run's tasks do not apply to these tasks.
        weights = {n: w for n, w in weights.items() if not n.startswith("encoder.normalizer.")}
    policy.load_state_dict(weights, strict=False)


def gaussian_product(
    mean: Tensor, log_std: Tensor, weight: float, own_mean: Tensor, own_log_std: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and log standard deviation of N(mean, std)^weight * N(own_mean, own_std), normalised.

    Source: Teh 2017, eq. 8, for a Gaussian pi_0 and a parabola beta f_i.

    Args:
        mean: pi_0's mean.                                       (..., action_dim)
        log_std: pi_0's log standard deviation.                  (..., action_dim)
        weight: alpha.
        own_mean: The task column's mean.                        (..., action_dim)
        own_log_std: The task column's log standard deviation.   (..., action_dim)
    """
    precision, own_precision = weight * (-2 * log_std).exp(), (-2 * own_log_std).exp()
    total = precision + own_precision
    return (precision * mean + own_precision * own_mean) / total, -0.5 * total.log()


def divergence(own: PolicyOutput, distilled: PolicyOutput) -> Tensor:
    """KL(pi_i || pi_0), with a gradient for pi_0 only.    (rows,)

    The gradient is that of -E_pi_i[log pi_0]: by pi_0's logits, pi_0 - pi_i (eq. 10).

    Args:
        own: The output of pi_i.
        distilled: The output of pi_0.
    """
    if own.logits is not None:
        return categorical_kl(own.logits.detach(), distilled.preferences(), 1.0)
    assert own.mean is not None and own.log_std is not None
    assert distilled.mean is not None and distilled.log_std is not None
    mean, log_std = own.mean.detach(), own.log_std.detach()
    return gaussian_kl(mean, log_std, distilled.mean, distilled.log_std, 1.0, own.padding_mask)
