"""How much a policy depends on each layer of each column (Rusu 2016, 1606.04671, section 4).

With h_i^(k) the features of layer i of column k, divided by their standard deviation over the
states, the diagonal of the Fisher information of the policy with respect to them is

    F_i^(k)(m, m) = E_{rho(s, a)}[(d log pi(a|s) / d h_i^(k)(m))^2],

where m is a unit, or the channel of a convolution, over whose pixels it is summed. The average
Fisher sensitivity of a layer in a column is

    AFS(i, k) = mean over m of F_i^(k)(m, m) / sum over k of F_i^(k)(m, m).

Derivatives are total ones: features act on the policy through all layers above them, also those of
later columns.

Differs from the paper: a mean over features in place of its sum, so that the columns of a layer sum
to 1. A feature on which no column's output depends is left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.policy import Policy
from rltransfer.tasks.observation import Observation

BATCH = 1_024
"""States of a forward pass."""


@dataclass(frozen=True)
class FeatureStatistics:
    """What is measured of the features of one layer of one column."""

    std: Tensor
    """Standard deviation over the states, and the pixels of a convolution.    (features,)"""
    fisher: Tensor
    """The diagonal of the Fisher information; see the module.                 (features,)"""


def checked_layers(policy: Policy, name: str) -> Sequence[Sequence[nn.Module]]:
    """The policy's `feature_layers`.

    Args:
        policy: The policy.
        name: What an error calls it.

    Raises:
        InputError: The policy is recurrent, consists of several networks, or has no hidden layer.
    """
    layers = policy.feature_layers()
    if policy.state_size:
        raise InputError(
            f"{name} is recurrent, so that its actions depend on earlier features too: use a "
            "policy without --gru."
        )
    if not layers:
        raise InputError(
            f"{name} has several networks: use a policy of one network, or a progressive one."
        )
    if not layers[0]:
        raise InputError(f"{name} has no hidden layer: use a policy with --hidden or --channels.")
    return layers


def feature_statistics(
    policy: Policy, observation: Observation, task: Tensor, generator: torch.Generator
) -> list[list[FeatureStatistics]]:
    """The statistics of each layer's features, by layer, then by column.

    Actions are sampled from the policy; for Q-values, from their softmax. The gradients of the
    policy's parameters stay as they are.

    Args:
        policy: The policy, without recurrence.
        observation: The groups of some states.      (states, ...)
        task: Index of each state's task.            (states,)
        generator: Samples actions, on the policy's device.
    """
    layers = [list(column) for column in zip(*policy.feature_layers(), strict=True)]
    sums: list[Tensor] = []
    for index in torch.arange(len(task), device=task.device).split(BATCH):
        batch = {name: group[index] for name, group in observation.items()}
        found = _sums(policy, layers, batch, task[index], generator)
        sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
    statistics = iter(sums)
    return [[_statistics(next(statistics), len(task)) for _ in layer] for layer in layers]


def _sums(
    policy: Policy,
    layers: list[list[nn.Module]],
    observation: Observation,
    task: Tensor,
    generator: torch.Generator,
) -> list[Tensor]:
    """Sums over states of what `_statistics` needs, for each module.    [(4, features)]"""
    modules = [module for layer in layers for module in layer]
    with torch.enable_grad(), _recorded(modules) as recorded:
        # Not `policy(...)`, which is another function once it was compiled.
        output: PolicyOutput = policy.forward(observation, task)
        if output.q_values is not None:
            output = PolicyOutput(logits=output.q_values)
        log_prob = output.log_prob(output.sample(generator).detach())
        # States do not depend on each other: the gradient of the sum contains that of each.
        features = [recorded[module] for module in modules]
        gradients = torch.autograd.grad(
            log_prob.sum(), features, allow_unused=True, materialize_grads=True
        )
    found = []
    for one, gradient in zip(features, gradients, strict=True):
        # In float64, as the squares of small derivatives would become zero.
        value, slope = one.detach().double(), gradient.double()
        if value.dim() == 2:  # units are channels of one pixel
            value, slope = value.unsqueeze(2), slope.unsqueeze(2)
        value, slope = value.flatten(2), slope.flatten(2)  # (states, features, pixels)
        pixels = value.mean(2), value.square().mean(2), slope.square().sum(2)
        found.append(torch.stack(pixels).sum(1))
    return found


def _statistics(sums: Tensor, states: int) -> FeatureStatistics:
    """The statistics of one layer of one column.

    Args:
        sums: The features, their squares, and the squares of the derivatives, each over all states;
            the first two are means over pixels, the last is a sum.    (3, features)
        states: Number of states.
    """
    mean, square, slope = sums / states
    variance = (square - mean.square()).clamp(min=0)
    # d / d(h / std) = std * d / dh
    return FeatureStatistics(variance.sqrt(), slope * variance)


def average_fisher_sensitivity(statistics: Sequence[Sequence[FeatureStatistics]]) -> Tensor:
    """AFS(i, k) of each layer and column; see the module.    (layers, columns)

    The columns of a layer sum to 1, or are 0 if the actions depend on none of its features. Where
    columns differ in width, no feature of one corresponds to a feature of another: their sums are
    compared, sum over m of F_i^(k)(m, m) / sum over k and m of F_i^(k)(m, m).

    Args:
        statistics: By layer, then by column.
    """
    return torch.stack([_of_layer([one.fisher for one in layer]) for layer in statistics])


def _of_layer(fisher: list[Tensor]) -> Tensor:
    """The average Fisher sensitivity of a layer.    (columns,)

    Args:
        fisher: The diagonal of each column.    [(features,)]
    """
    if len({len(one) for one in fisher}) > 1:
        fisher = [one.sum(0, keepdim=True) for one in fisher]
    each = torch.stack(fisher)
    total = each.sum(0)
    used = total > 0
    fractions = (each / total.where(used, 1.0)).sum(1)
    return fractions / used.sum().clamp(min=1)


@contextlib.contextmanager
def noise_added(module: nn.Module, std: Tensor, generator: torch.Generator) -> Iterator[None]:
    """Adds Gaussian noise to a module's output in the block, fresh in each forward pass.

    Args:
        module: The last module of a layer; see `Policy.feature_layers`.
        std: Standard deviation of each feature's noise, the same for all of its pixels. (features,)
        generator: Source of the noise, on the module's device.
    """

    def add(_: nn.Module, __: object, output: Tensor) -> Tensor:
        noise = torch.empty_like(output).normal_(generator=generator)
        return output + noise * std.to(output.dtype).view(-1, *[1] * (output.dim() - 2))

    hook = module.register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def _recorded(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """Yields the outputs of modules in the next forward pass, which then require gradients."""
    found: dict[nn.Module, Tensor] = {}

    def record(module: nn.Module, _: object, output: Tensor) -> None:
        # The output of frozen weights has no graph yet; the layers above then extend one.
        found[module] = output.requires_grad_()

    hooks = [module.register_forward_hook(record) for module in modules]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
