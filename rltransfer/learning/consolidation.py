"""Elastic weight consolidation (EWC): weights that earlier tasks need are pulled to their values.

Adds to every loss (Kirkpatrick 2017, arXiv 1612.00796, eq. 3, with one term per earlier task)

    lambda / 2 * sum over tasks k and weights i of F_k,i (w_i - w_k,i)^2,

where w_k are the weights of the policy that had learned task k, and F_k is the diagonal of its
Fisher information on the states that it visits:

    F_k,i = E[(d log pi(a | s) / d w_i)^2],  a ~ pi.

A sum of quadratics is one quadratic: only sum F_k and sum F_k w_k are stored, whatever the number
of tasks. Weights that the policy does not depend on, such as the value's, stay free. A run that
begins with the weights of an earlier one also keeps its statistics of the observations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.learning.learner import Learner
from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.policy import Policy
from rltransfer.tasks.observation import Observation

FISHER, WEIGHTED = "fisher", "weighted"
"""Keys of a checkpoint: sum F_k and sum F_k w_k."""


def fisher_information(
    policy: Policy, observation: Observation, task: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """The diagonal of a policy's Fisher information, by the names of its parameters.

    A Q-network stands for the policy softmax(Q).

    Args:
        policy: The policy, without recurrent state.
        observation: States that it visits.         (samples, ...)
        task: Index of each state's task.           (samples,)
        generator: Source of the actions, on the policy's device.

    Raises:
        InputError: The policy is recurrent or deterministic.
    """
    if policy.state_size:
        raise InputError("The Fisher information of a recurrent policy is not supported.")
    named = list(policy.named_parameters())
    parameters = [parameter.requires_grad_() for _, parameter in named]
    total = {name: torch.zeros_like(parameter) for name, parameter in named}
    for sample in range(len(task)):
        row = slice(sample, sample + 1)
        seen = {name: group[row] for name, group in observation.items()}
        log_prob = _sampled_log_prob(policy(seen, task[row]), generator).sum()
        gradients = torch.autograd.grad(log_prob, parameters, allow_unused=True)
        for (name, _), gradient in zip(named, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient.square()
    return {name: one / max(len(task), 1) for name, one in total.items()}


def _sampled_log_prob(output: PolicyOutput, generator: torch.Generator) -> Tensor:
    """Log pi of an action that the policy samples.    (samples,)"""
    if output.mean is None:
        log_probs = output.preferences().float().log_softmax(-1)
        action = torch.multinomial(log_probs.detach().exp(), 1, generator=generator)
        return log_probs.gather(-1, action)[..., 0]
    if not output.is_stochastic:
        raise InputError("A deterministic policy has no Fisher information: its action is certain.")
    with torch.no_grad():
        sampled = output.sample(generator)
    return output.log_prob(sampled)


class Consolidation:
    """The quadratic pull of all earlier tasks on a policy's weights.

    Args:
        policy: The policy in training.
        learner: Its learner.
        weight: lambda.
    """

    def __init__(self, policy: Policy, learner: Learner, weight: float) -> None:
        self._named: dict[str, nn.Parameter] = dict(policy.named_parameters())
        self._learner, self._weight = learner, weight
        self._fisher: dict[str, Tensor] = {}
        self._weighted: dict[str, Tensor] = {}

    def add(self, source: str, weights: Mapping[str, Tensor], fisher: Mapping[str, Tensor]) -> None:
        """Adds an earlier task.

        Args:
            source: The name of its run, for the error.
            weights: The weights w_k of its policy.
            fisher: Its Fisher information F_k.

        Raises:
            InputError: Its policy has another network.
        """
        expected = {name: one.shape for name, one in self._named.items()}
        if {name: weights[name].shape for name in fisher} != expected:
            raise InputError(
                f"{source} has another network than this run: EWC compares weights one by one, so "
                "use the same network, observations and actions."
            )
        for name, importance in fisher.items():
            zero = torch.zeros_like(importance)
            self._fisher[name] = self._fisher.get(name, zero) + importance
            weighted = importance * weights[name].detach()
            self._weighted[name] = self._weighted.get(name, zero) + weighted
        self._pull()

    def _pull(self) -> None:
        pairs, strengths = [], []
        for name, fisher in self._fisher.items():
            target = self._weighted[name] / fisher.clamp(min=torch.finfo(fisher.dtype).tiny)
            pairs.append((self._named[name], target))
            strengths.append(fisher)
        self._learner.pull("ewc", self._weight, pairs, strengths)

    def state_dict(self) -> dict[str, Any]:
        """The sums over the earlier tasks."""
        parts = {FISHER: self._fisher, WEIGHTED: self._weighted}
        return {key: {n: one.clone() for n, one in part.items()} for key, part in parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a state of `state_dict`."""
        for part, stored in ((self._fisher, state[FISHER]), (self._weighted, state[WEIGHTED])):
            part.update({n: stored[n].to(one.device) for n, one in self._named.items()})
        self._pull()
