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
    """Tells whether policies are alike but for their weights."""
    first = policies[0].spec
    return len(policies) > 1 and all(
        policy.spec == first and not policy.spec.asks_for_task and not policy.state_size
        for policy in policies
    )


class StackedPolicies:
    """Several policies, each of which says something of its own rows, in one forward pass.

    On a GPU many small networks one after the other leave it idle between launches. On a CPU one
    after the other is faster, as each call fills a core by itself.

    Args:
        policies: Of which `can_stack` is true; their weights are copied.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.num_policies = len(policies)
        self.groups = policies[0].spec.network.groups
        self._weights, self._buffers = stack_module_state(list(policies))
        self._module = copy.deepcopy(policies[0]).to("meta")

    def __call__(self, observation: Observation) -> PolicyOutput:
        """Returns what each policy says of its rows.

        Args:
            observation: The groups, the same number of rows for each policy, the first policy's
                rows first.    (num_policies * rows, ...)
        """
        parts = {
            name: observation[name].unflatten(0, (self.num_policies, -1)) for name in self.groups
        }

        def one(
            weights: dict[str, Tensor], buffers: dict[str, Tensor], seen: Observation
        ) -> dict[str, Tensor]:
            output: PolicyOutput = functional_call(self._module, (weights, buffers), (seen,))
            values = {name: getattr(output, name) for name in LABELS}
            return {name: value for name, value in values.items() if value is not None}

        said = vmap(one)(self._weights, self._buffers, parts)
        return PolicyOutput(**{name: value.flatten(0, 1) for name, value in said.items()})
