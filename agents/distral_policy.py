"""The policies of Distral: the distilled one, and beside it a column for each task.

A column is a network that says logits: h is the distilled policy's, beta f_i that of task i. With w
the weight of h, alpha in eq. 8 (Teh 2017, eq. 6 to 8),

    pi_0(a|s) = softmax(h(s)),    pi_i(a|s) = softmax(w h(s) + beta f_i(s)).

For continuous actions a column says a Gaussian; see `distral.py`, and `gaussian_product` below.

The tasks' columns stand side by side (`stacked_layers.py`): one forward pass serves all tasks.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.files.checkpoint import newest_checkpoint
from rltransfer.objectives.divergences import categorical_kl, gaussian_kl
from rltransfer.policies.normalizer import RunningNormalizer
from rltransfer.policies.output import ILLEGAL, NOTHING, Needs, PolicyOutput
from rltransfer.policies.policy import Policy, PolicySpec, bounded_log_std
from rltransfer.policies.saving import load_policy
from rltransfer.policies.stacked_layers import stacked
from rltransfer.tasks.action import action_size
from rltransfer.tasks.observation import Observation


@dataclass(frozen=True)
class DistralSpec(PolicySpec):
    """What a `DistralPolicy` is built from."""

    columns: bool = True
    """Whether each task has a column of its own; if not, pi_0 is the policy of all."""
    shared_weight: float = 0.0
    """Weight of pi_0's logits in those of the tasks."""

    @property
    def asks_for_task(self) -> bool:
        """Whether what the policy says depends on which task it is."""
        return super().asks_for_task or (self.columns and self.num_tasks > 1)

    def build(self) -> DistralPolicy:
        """Returns a policy with fresh weights."""
        return DistralPolicy(self)

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON form that `from_json` reads."""
        own = {"columns": self.columns, "shared_weight": self.shared_weight}
        return {"kind": "distral", **super().to_json(), **own}

    @staticmethod
    def from_json(data: dict[str, Any]) -> DistralSpec:
        """Returns the specification that `to_json` wrote."""
        base = PolicySpec.from_json(data)
        fields = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
        return DistralSpec(**fields, columns=data["columns"], shared_weight=data["shared_weight"])


class DistralPolicy(Policy):
    """The distilled policy pi_0, and beside it a column for each task.

    As a policy it speaks for the tasks; `both` says what pi_0 says too.
    """

    spec: DistralSpec

    def __init__(self, spec: DistralSpec) -> None:
        # With columns the values are theirs: pi_0 has none.
        super().__init__(dataclasses.replace(spec, value=spec.value and not spec.columns))
        self.spec = spec
        self.columns = _columns(spec) if spec.columns else None

    def forward(
        self,
        observation: Observation,
        task: Tensor | None = None,
        state: Tensor | None = None,
        start: Tensor | None = None,
        needs: Needs = NOTHING,
    ) -> PolicyOutput:
        """Returns what each row's task's policy says, and its value; see `Policy`."""
        return self.both(observation, task)[1]

    def both(
        self, observation: Observation, task: Tensor | None, in_order: bool = False
    ) -> tuple[PolicyOutput, PolicyOutput]:
        """Returns what pi_0 says, and what each row's pi_i says.

        Args:
            observation: The groups.                                       (rows, ...)
            task: Index of each row's task; None where there is but one.    (rows,)
            in_order: Whether there are as many rows of each task, the first task's first. If not,
                every column looks at every row.
        """
        distilled = super().forward(observation, task)
        if self.columns is None:
            return distilled, distilled
        scores, value = self.scores(observation, task, in_order)
        weight = self.spec.shared_weight
        if distilled.logits is not None:
            logits = scores + weight * distilled.logits if weight else scores
            if self.action_mask is not None:
                logits = logits.masked_fill(~self.action_mask[task], ILLEGAL)
            return distilled, PolicyOutput(logits=logits, value=value)
        assert distilled.mean is not None and distilled.log_std is not None
        assert self.columns.log_std is not None
        log_std = bounded_log_std(self.columns.log_std[0 if task is None else task])
        log_std = log_std.expand_as(scores)
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
        """Returns what each row's column says, beta f_i (rows, size), and its value (rows,).

        Args: see `both`.
        """
        columns, count = self.columns, self.spec.num_tasks
        assert columns is not None
        inputs = columns.encoder.inputs(observation, task)
        if in_order:
            inputs = inputs.unflatten(0, (count, -1))
        else:
            inputs = inputs.expand(count, *inputs.shape)
        features = columns.encoder.layers(inputs)
        seen = columns.value_encoder.layers(inputs) if columns.value_encoder else features

        def of_rows(said: Tensor) -> Tensor:
            if in_order:
                return said.flatten(0, 1)
            if task is None:
                return said[0]
            index = task.unsqueeze(0).unsqueeze(-1).expand(1, *said.shape[1:])
            return said.gather(0, index).squeeze(0)

        scores = of_rows(columns.action_head(features))
        if columns.value_head is None:
            return scores, None
        return scores, of_rows(columns.value_head(seen)).squeeze(-1)

    def update_statistics(self, observation: Observation, task: Tensor | None = None) -> None:
        """Lets the normalisers of vectors see more; each column has statistics of its own."""
        super().update_statistics(observation, task)
        if self.columns is not None:
            self.columns.update_statistics(observation, task)

    def distilled_weights(self) -> dict[str, Tensor]:
        """Returns what pi_0 consists of, by name."""
        rest = ("columns.", "value_")
        state = self.state_dict()
        return {name: tensor for name, tensor in state.items() if not name.startswith(rest)}

    def num_acting_parameters(self) -> int:
        """Returns the number of parameters that acting needs: no values, and pi_0's if heard."""
        count = super().num_acting_parameters()
        if self.columns is None:
            return count
        distilled = count - sum(parameter.numel() for parameter in self.columns.parameters())
        heard = distilled if self.spec.shared_weight else 0
        return heard + self.columns.num_acting_parameters()


def _columns(spec: PolicySpec) -> Policy:
    """Returns a policy and a value of each task: the first axis of every weight is the task."""
    own = PolicySpec(spec.network, spec.observation_space, spec.action_space, value=spec.value)
    policies = [Policy(own) for _ in range(spec.num_tasks)]
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
            together.value_encoder.normalizer = None  # it is given what the other one is given
    return together


def begin_with(policy: DistralPolicy, run_dir: str) -> None:
    """Copies the distilled policy of a run, but for statistics that are each task's own.

    Args:
        policy: Whose pi_0 is overwritten.
        run_dir: Folder of a run of Distral with the same network, observations and actions.

    Raises:
        InputError: The folder is no such run.
    """
    other = load_policy(newest_checkpoint(Path(run_dir)) / "policy")
    if not isinstance(other, DistralPolicy):
        raise InputError(f"{run_dir} holds no distilled policy: it is no run of Distral.")
    for name in ("network", "observation_space", "action_space"):
        ours, theirs = getattr(policy.spec, name), getattr(other.spec, name)
        # The bounds of continuous actions are no part of a policy.
        alike = name == "action_space" and type(ours) is type(theirs)
        if ours != theirs and not (alike and action_size(ours) == action_size(theirs)):
            raise InputError(
                f"The distilled policy of {run_dir} has another {name.replace('_', ' ')}: "
                f"{theirs}, where {ours} is needed."
            )
    weights = other.distilled_weights()
    if policy.spec.network.statistics == "per-task":
        # Statistics of the other run's tasks say nothing of these.
        weights = {n: w for n, w in weights.items() if not n.startswith("encoder.normalizer.")}
    policy.load_state_dict(weights, strict=False)


def gaussian_product(
    mean: Tensor, log_std: Tensor, weight: float, own_mean: Tensor, own_log_std: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns mean and log deviation of N(mean, std)^weight * N(own_mean, own_std), normalised.

    Source: Teh 2017, eq. 8, where pi_0 is a Gaussian and beta f_i a parabola.

    Args:
        mean: pi_0's.                       (..., action_dim)
        log_std: pi_0's.                    (..., action_dim)
        weight: alpha.
        own_mean: The task's.               (..., action_dim)
        own_log_std: The task's.            (..., action_dim)
    """
    precision, own_precision = weight * (-2 * log_std).exp(), (-2 * own_log_std).exp()
    total = precision + own_precision
    return (precision * mean + own_precision * own_mean) / total, -0.5 * total.log()


def divergence(own: PolicyOutput, distilled: PolicyOutput) -> Tensor:
    """Returns KL(pi_i || pi_0), whose gradient reaches pi_0 alone.    (rows,)

    Its gradient is that of -E_pi_i[log pi_0]: by pi_0's logits it is pi_0 - pi_i, eq. 10.

    Args:
        own: What pi_i says.
        distilled: What pi_0 says.
    """
    if own.logits is not None:
        return categorical_kl(own.logits.detach(), distilled.preferences(), 1.0)
    assert own.mean is not None and own.log_std is not None
    assert distilled.mean is not None and distilled.log_std is not None
    return gaussian_kl(
        own.mean.detach(),
        own.log_std.detach(),
        distilled.mean,
        distilled.log_std,
        1.0,
        own.padding_mask,
    )
