"""Policies of one architecture as one batched forward pass."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from rltransfer.policies.output import LABELS, PolicyOutput
from rltransfer.policies.policy import Policy
from rltransfer.tasks.observation import Observation


def can_stack(policies: Sequence[Policy]) -> bool:
    """Whether policies differ only in their weights."""
    first = policies[0].spec
    return len(policies) > 1 and all(
        policy.spec == first and not policy.spec.asks_for_task and not policy.state_size
        for policy in policies
    )


class StackedPolicies:
    """Several policies, each for a part of the rows, in one forward pass.

    Small networks called one after the other leave a GPU idle between launches. On a CPU that is
    faster, as each call keeps a core busy.

    Args:
        policies: Policies for which `can_stack` is true; their weights are copied.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.num_policies = len(policies)
        self.groups = policies[0].spec.network.groups
        self._weights, self._buffers = stack_module_state(list(policies))
        self._module = copy.deepcopy(policies[0]).to("meta")

    def __call__(self, observation: Observation) -> PolicyOutput:
        """The output of each policy for its rows.

        Args:
            observation: The groups, equally many rows for each policy, in the order of the
                policies.    (num_policies * rows, ...)
        """
        shape = (self.num_policies, -1)
        parts = {name: observation[name].unflatten(0, shape) for name in self.groups}

        def one(
            weights: dict[str, Tensor], buffers: dict[str, Tensor], rows: Observation
        ) -> dict[str, Tensor]:
            output: PolicyOutput = functional_call(self._module, (weights, buffers), (rows,))
            values = {name: getattr(output, name) for name in LABELS}
            return {name: value for name, value in values.items() if value is not None}

        outputs = vmap(one)(self._weights, self._buffers, parts)
        return PolicyOutput(**{name: value.flatten(0, 1) for name, value in outputs.items()})
