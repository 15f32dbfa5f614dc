"""The linear layer of the CPU: torch's own numbers, gradients and all, wherever it is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rltransfer.policies import linear
from rltransfer.policies.linear import Linear

onednn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch without oneDNN"
)


def layer(inputs: int = 96, outputs: int = 512, bias: bool = True) -> Linear:
    torch.manual_seed(0)
    return Linear(inputs, outputs, bias=bias)


def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Returns the shapes of the inputs of every product that oneDNN is asked for."""
    shapes: list[tuple[int, ...]] = []
    real: Callable[..., Tensor] = linear._product

    def watched(inputs: Tensor, *rest: Any) -> Tensor:
        shapes.append(tuple(inputs.shape))
        return real(inputs, *rest)

    monkeypatch.setattr(linear, "_product", watched)
    return shapes


@onednn
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_torchs(monkeypatch: pytest.MonkeyPatch, bias: bool) -> None:
    shapes = products(monkeypatch)
    ours = layer(bias=bias)
    inputs = torch.randn(32, 96, requires_grad=True)
    towards = torch.randn(32, 512)
    wanted = torch.autograd.grad(
        F.linear(inputs, ours.weight, ours.bias), [inputs, *ours.parameters()], towards
    )
    found = torch.autograd.grad(ours(inputs), [inputs, *ours.parameters()], towards)
    assert shapes == [(32, 96), (32, 512), (512, 32)]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        torch.testing.assert_close(ours(inputs), F.linear(inputs, ours.weight, ours.bias))


@onednn
def test_no_product_for_a_gradient_that_nobody_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = products(monkeypatch)
    frozen = layer().requires_grad_(False)
    inputs = torch.randn(32, 96, requires_grad=True)
    frozen(inputs).sum().backward()
    assert shapes == [(32, 96), (32, 512)]
    shapes.clear()
    layer()(torch.randn(32, 96)).sum().backward()
    assert shapes == [(32, 96), (512, 32)]


@onednn
def test_gradients_of_gradients() -> None:
    ours = layer()
    inputs = torch.randn(32, 96, requires_grad=True)

    def penalty(output: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(output.tanh().sum(), inputs, create_graph=True)
        return slope.square().sum()

    (found,) = torch.autograd.grad(penalty(ours(inputs)), ours.weight)
    plain = F.linear(inputs, ours.weight, ours.bias)
    (wanted,) = torch.autograd.grad(penalty(plain), ours.weight)
    torch.testing.assert_close(found, wanted)


@onednn
def test_gradients_of_each_sample() -> None:
    ours = layer()
    parameters = dict(ours.named_parameters())
    inputs = torch.randn(3, 32, 96)

    def loss(weights: dict[str, Tensor], one: Tensor) -> Tensor:
        return torch.func.functional_call(ours, weights, (one,)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, inputs)["weight"]
    for one, sample in zip(found, inputs, strict=True):
        (wanted,) = torch.autograd.grad(loss(parameters, sample), ours.weight)
        torch.testing.assert_close(one, wanted)


@pytest.mark.parametrize(
    "inputs",
    [
        torch.randn(2, 96),
        torch.randn(4, 32, 96),
        torch.randn(32, 96, dtype=torch.float64),
        torch.randn(32, 96, dtype=torch.bfloat16),
    ],
    ids=["few rows", "sequences", "float64", "bfloat16"],
)
def test_the_rest_is_torchs_own(monkeypatch: pytest.MonkeyPatch, inputs: Tensor) -> None:
    shapes = products(monkeypatch)
    ours = layer().to(inputs.dtype)
    assert torch.equal(ours(inputs), F.linear(inputs, ours.weight, ours.bias))
    assert not shapes


def test_autocast_and_export_see_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = products(monkeypatch)
    ours, inputs = layer(), torch.randn(32, 96)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(inputs).dtype == torch.bfloat16
    rows = torch.export.Dim("rows", min=1)
    exported = torch.export.export(ours, (inputs,), dynamic_shapes=({0: rows},))
    assert not shapes
    targets = [str(node.target) for node in exported.graph.nodes]
    assert "aten.linear.default" in targets
