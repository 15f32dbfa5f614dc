"""Sensitivities of a policy to its layers, compared with loops over states, features and pixels."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.agents.distral_policy import DistralSpec
from rltransfer.agents.progressive_policy import (
    ProgressivePolicy,
    ProgressiveSpec,
    columns_of,
)
from rltransfer.errors import InputError
from rltransfer.policies import sensitivity
from rltransfer.policies.network import Network
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.policies.sensitivity import (
    FeatureStatistics,
    average_fisher_sensitivity,
    checked_layers,
    feature_statistics,
    noise_added,
)
from rltransfer.tasks.task import Suite

GRID = Network(encoder="grid", channels=(3,), hidden=(4,), activation="tanh")
VECTORS = Network(encoder="mlp", hidden=(4, 3), activation="tanh")
BOX = spaces.Box(-2, 2, (2,), np.float32)


def plain(network: Network, shape: tuple[int, ...], **rest: Any) -> PolicySpec:
    space = spaces.Box(0, 1, shape, np.float32)
    fields: dict[str, Any] = {"action_space": spaces.Discrete(3), **rest}
    return PolicySpec(network, spaces.Dict(policy=space), **fields)


def progressive(new: PolicySpec, *earlier: PolicySpec) -> ProgressivePolicy:
    fields = {field.name: getattr(new, field.name) for field in dataclasses.fields(PolicySpec)}
    suites = (Suite.of("a"),) * len(earlier)
    policy = ProgressivePolicy(ProgressiveSpec(**fields, earlier=earlier, suites=suites))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return policy


def measured(policy: Policy, seen: Tensor) -> list[list[FeatureStatistics]]:
    task = torch.zeros(len(seen), dtype=torch.int64)
    return feature_statistics(policy, {"policy": seen}, task, torch.Generator().manual_seed(3))


def sampled(policy: Policy, seen: Tensor) -> Tensor:
    """The actions that `measured` samples."""
    output = policy({"policy": seen})
    if output.q_values is not None:
        output = dataclasses.replace(output, logits=output.q_values, q_values=None)
    with torch.no_grad():
        return output.sample(torch.Generator().manual_seed(3))


def log_prob(policy: Policy, features: list[list[Tensor]], action: Tensor) -> Tensor:
    """Log pi of one state's action, from the head on: by the last features of all columns."""
    *others, own = (one[-1].flatten(1) for one in features)
    scores = policy.action_head(torch.cat([own, *others], 1))
    if policy.log_std is not None:
        center, half = policy.spec.action_units() or (torch.zeros(2), torch.ones(2))
        mean, std = center + half * scores, half * policy.log_std.exp()
        return torch.distributions.Normal(mean, std).log_prob(action).sum()
    return torch.distributions.Categorical(logits=scores).log_prob(action).sum()


def by_loops(policy: ProgressivePolicy, seen: Tensor) -> list[list[Tensor]]:
    """The Fisher diagonal by layer and column, one state, feature and pixel after the other."""
    actions = sampled(policy, seen)
    inputs = policy._seen({"policy": seen}, None)
    plain_features = [columns_of(policy, row[None]) for row in inputs]
    layers, columns = len(plain_features[0][0]), len(plain_features[0])
    found = []
    for layer in range(layers):
        of_layer = []
        for column in range(columns):
            values = torch.cat([one[column][layer] for one in plain_features]).detach()
            std = values.transpose(0, 1).flatten(1).std(1, correction=0)
            diagonal = torch.zeros(values.shape[1])
            for row, action in zip(inputs, actions, strict=True):
                replaced: list[Tensor] = []

                def leaf(_: nn.Module, __: Any, output: Tensor, to: Any = replaced) -> Tensor:
                    to.append(output.detach().clone().requires_grad_())
                    return to[-1]

                hook = policy.feature_layers()[column][layer].register_forward_hook(leaf)
                value = log_prob(policy, columns_of(policy, row[None]), action)
                hook.remove()
                (slope,) = torch.autograd.grad(value, replaced, allow_unused=True)
                for place in np.ndindex(*slope.shape[1:]):
                    feature = place[0]
                    diagonal[feature] += (slope[0][place] * std[feature]) ** 2 / len(inputs)
            of_layer.append(diagonal)
        found.append(of_layer)
    return found


@pytest.mark.parametrize(
    ("network", "shape", "columns", "rest"),
    [
        (VECTORS, (5,), 2, {}), (GRID, (2, 5, 5), 2, {}), (GRID, (2, 5, 5), 3, {}),
        (VECTORS, (5,), 2, {"q_values": True}),
        (VECTORS, (5,), 2, {"action_space": BOX, "host_actions": (BOX,)}),
    ],
    ids=["mlp", "grid", "three", "q-values", "continuous"],
)  # fmt: skip
def test_the_fisher_diagonal_by_loops(
    network: Network,
    shape: tuple[int, ...],
    columns: int,
    rest: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    earlier = plain(network, shape)
    policy = progressive(
        plain(network, shape, **rest),
        earlier if columns == 2 else progressive(earlier, earlier).spec,
    )
    seen = torch.rand(7, *shape, generator=torch.Generator().manual_seed(2))
    expected = by_loops(policy, seen)
    found = measured(policy, seen)
    for layer, of_layer in zip(found, expected, strict=True):
        for one, diagonal in zip(layer, of_layer, strict=True):
            assert diagonal.max() > 0
            torch.testing.assert_close(one.fisher.float(), diagonal, rtol=1e-4, atol=1e-9)
    by_hand = [
        np.mean([[float(one[m] / sum(each[m] for each in layer)) for one in layer]
                 for m in range(len(layer[0]))], 0)
        for layer in expected
    ]  # fmt: skip
    sensitivities = average_fisher_sensitivity(found)
    np.testing.assert_allclose(sensitivities, by_hand, rtol=1e-4)
    np.testing.assert_allclose(sensitivities.sum(1), 1.0)
    assert not any(parameter.grad is not None for parameter in policy.parameters())

    # In several batches: the same states, whose actions the same generator samples.
    monkeypatch.setattr(sensitivity, "BATCH", 3)
    halves = measured(policy, seen.repeat(2, *[1] * len(shape)))
    once = measured(policy, seen)
    for two, one in zip(halves, once, strict=True):
        for a, b in zip(two, one, strict=True):
            torch.testing.assert_close(a.std, b.std)


def test_the_standard_deviation_is_over_states_and_pixels() -> None:
    policy = progressive(plain(GRID, (2, 5, 5)), plain(GRID, (2, 5, 5)))
    seen = torch.rand(6, 2, 5, 5)
    for layer, of_layer in enumerate(measured(policy, seen)):
        for column, one in enumerate(of_layer):
            features = columns_of(policy, seen)[column][layer].detach().double()
            expected = features.transpose(0, 1).flatten(1).std(1, correction=0)
            torch.testing.assert_close(one.std, expected)


@pytest.mark.parametrize(
    ("network", "shape"), [(GRID, (2, 5, 5)), (VECTORS, (5,))], ids=["grid", "mlp"]
)
def test_a_column_without_influence_has_no_sensitivity(
    network: Network, shape: tuple[int, ...]
) -> None:
    policy = progressive(plain(network, shape), plain(network, shape))
    head: Any = policy.action_head
    seen = torch.rand(8, *shape)
    with torch.no_grad():
        for adapter in policy.adapters:
            adapter.unite.weight.zero_()
    # The head still sees the last features of the first column.
    below, top = average_fisher_sensitivity(measured(policy, seen)).split([1, 1])
    assert below[0, 0] > 0 and 0 < top[0, 0] < 1
    with torch.no_grad():
        for lateral in head.outputs():
            lateral.weight.zero_()
    assert average_fisher_sensitivity(measured(policy, seen)).tolist() == [[0.0, 1.0]] * 2


def test_a_column_reaches_the_actions_through_the_layers_above() -> None:
    policy = progressive(plain(VECTORS, (5,)), plain(VECTORS, (5,)))
    head: Any = policy.action_head
    with torch.no_grad():
        for lateral in head.outputs():
            lateral.weight.zero_()
    below, top = average_fisher_sensitivity(measured(policy, torch.rand(8, 5)))
    # The adapter of layer 2 reads the first layer of the first column; nothing reads the second.
    assert 0 < below[0] < 1 and top.tolist() == [0.0, 1.0]


def test_a_new_column_whose_outputs_are_zero_has_no_sensitivity() -> None:
    policy = progressive(plain(VECTORS, (5,)), plain(VECTORS, (5,)))
    policy.start_as_previous()
    assert average_fisher_sensitivity(measured(policy, torch.rand(8, 5))).tolist() == [[1, 0]] * 2


def test_columns_of_three_and_of_other_widths_sum_to_one() -> None:
    spec, wide = plain(GRID, (2, 5, 5)), dataclasses.replace(GRID, width=2.0)
    policy = progressive(plain(wide, (2, 5, 5)), progressive(spec, spec).spec)
    statistics = measured(policy, torch.rand(8, 2, 5, 5))
    found = average_fisher_sensitivity(statistics)
    assert found.shape == (2, 3) and bool((found > 0).all())
    torch.testing.assert_close(found.sum(1), torch.ones(2, dtype=torch.float64))
    sums = torch.tensor([float(one.fisher.sum()) for one in statistics[0]])
    torch.testing.assert_close(found[0].float(), sums / sums.sum())


def test_a_feature_that_nothing_depends_on_is_left_out() -> None:
    def layer(*diagonals: list[float]) -> list[FeatureStatistics]:
        return [FeatureStatistics(torch.ones(2), torch.tensor(one)) for one in diagonals]

    found = average_fisher_sensitivity([layer([1.0, 0.0], [3.0, 0.0]), layer([0.0, 0.0], [0, 0])])
    assert found.tolist() == [[0.25, 0.75], [0.0, 0.0]]


def test_a_plain_policy_is_one_column() -> None:
    found = measured(Policy(plain(GRID, (2, 5, 5))), torch.rand(8, 2, 5, 5))
    assert average_fisher_sensitivity(found).tolist() == [[1.0], [1.0]]


def test_noise_is_fresh_and_of_the_stated_size() -> None:
    policy = Policy(plain(GRID, (2, 5, 5)))
    module, generator = policy.feature_layers()[0][0], torch.Generator().manual_seed(0)
    seen = torch.rand(2_000, 2, 5, 5)
    std = torch.tensor([0.0, 0.5, 2.0])
    with torch.no_grad():
        clean = policy.encoder.layers[:2](seen)
        with noise_added(module, std, generator):
            once, again = (policy.encoder.layers[:2](seen) - clean for _ in range(2))
        assert torch.equal(policy.encoder.layers[:2](seen), clean)
    assert not torch.equal(once, again)
    size = once.transpose(0, 1).flatten(1)
    torch.testing.assert_close(size.std(1), std, rtol=0.02, atol=0.0)
    # Each state and each pixel has noise of its own.
    assert abs(torch.corrcoef(size[1:])[0, 1]) < 0.02
    assert len(once[:, 2].unique()) > 0.9 * once[:, 2].numel()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (plain(dataclasses.replace(VECTORS, gru=4), (5,)), "RUN is recurrent"),
        (plain(dataclasses.replace(VECTORS, hidden=()), (5,)), "RUN has no hidden layer"),
        (
            DistralSpec(**{field.name: getattr(plain(VECTORS, (5,), num_tasks=2), field.name)
                           for field in dataclasses.fields(PolicySpec)}),
            "RUN has several networks",
        ),
    ],
)  # fmt: skip
def test_policies_that_are_refused(spec: PolicySpec, words: str) -> None:
    with pytest.raises(InputError, match=words):
        checked_layers(spec.build(), "RUN")
