"""Stacked layers do to row k what the k-th network does to it, and learn as it does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.policies.encoder import Encoder
from rltransfer.policies.network import Network
from rltransfer.policies.stacked_layers import stacked

COUNT, BATCH = 3, 17
VECTOR = spaces.Box(-1, 1, (70,), np.float32)
SMALL_IMAGE = spaces.Box(0, 1, (4, 10, 10), np.uint8)
LARGE_IMAGE = spaces.Box(0, 255, (2, 36, 44), np.uint8)
CASES = {
    "mlp": (Network(), VECTOR),
    "mlp with norms and tanh": (Network(layer_norm=True, activation="tanh"), VECTOR),
    "no layer at all": (Network(hidden=()), VECTOR),
    "grid": (Network(), SMALL_IMAGE),
    "grid with norms": (Network(layer_norm=True), SMALL_IMAGE),
    "two convolutions": (Network(channels=(8, 6), hidden=(9, 5), layer_norm=True), SMALL_IMAGE),
    "nature": (Network(width=0.25), LARGE_IMAGE),
    "nature with norms": (Network(width=0.25, layer_norm=True), LARGE_IMAGE),
}


def encoders(network: Network, space: spaces.Box) -> list[Encoder]:
    """Networks whose every number is another one's, the zeros and ones of fresh layers too."""
    made = [Encoder(network, spaces.Dict(policy=space)) for _ in range(COUNT)]
    for encoder in made:
        for parameter in encoder.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return made


def seen(space: spaces.Box) -> Tensor:
    """What each network sees.    (COUNT, BATCH, ...)"""
    space.seed(0)
    return torch.from_numpy(
        np.stack([[space.sample() for _ in range(BATCH)] for _ in range(COUNT)])
    )


def of_network(gradient: Tensor, index: int) -> Tensor:
    """One network's share of a stacked gradient, as torch's own layers have it."""
    own = gradient[index]
    return own.T if own.dim() == 2 else own


@pytest.mark.parametrize("case", CASES)
def test_row_k_is_what_the_kth_network_says_and_learns(case: str) -> None:
    # In float64: float32 sums in another order can fall on the other side of a ReLU's corner,
    # where the gradients are other ones altogether.
    torch.manual_seed(0)
    network, space = CASES[case]
    alone, observations = encoders(network, space), seen(space)
    for encoder in alone:
        encoder.double()
    together = stacked([encoder.layers for encoder in alone])

    inputs = alone[0].inputs({"policy": observations.flatten(0, 1)})
    wide = inputs.double().unflatten(0, (COUNT, BATCH)).detach().requires_grad_()
    outputs = together(wide)
    directions = torch.randn_like(outputs)
    (outputs * directions).sum().backward()
    assert wide.grad is not None

    for index, encoder in enumerate(alone):
        own = encoder.inputs({"policy": observations[index]}).detach().double().requires_grad_()
        expected = encoder.layers(own)
        (expected * directions[index]).sum().backward()
        # Tolerance: float64 sums in another order.
        close = {"atol": 1e-10, "rtol": 1e-8}
        torch.testing.assert_close(outputs[index], expected, **close)
        torch.testing.assert_close(wide.grad[index], own.grad, **close)
        pairs = zip(together.parameters(), encoder.parameters(), strict=True)
        for parameter, single in pairs:
            torch.testing.assert_close(of_network(parameter.grad, index), single.grad, **close)


def test_networks_are_copied() -> None:
    alone = encoders(*CASES["grid"])
    together = stacked([encoder.layers for encoder in alone])
    before = [parameter.clone() for parameter in together.parameters()]
    for encoder in alone:
        for parameter in encoder.parameters():
            parameter.data.zero_()
    assert all(torch.equal(a, b) for a, b in zip(together.parameters(), before, strict=True))


def test_weights_go_to_disk_and_back() -> None:
    network, space = CASES["grid with norms"]
    first, second = (stacked([one.layers for one in encoders(network, space)]) for _ in range(2))
    inputs = torch.rand(COUNT, BATCH, *space.shape)
    assert not torch.equal(first(inputs), second(inputs))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(inputs), second(inputs))


def test_networks_of_other_depths_are_refused() -> None:
    short, long = (Encoder(Network(hidden=h), spaces.Dict(policy=VECTOR)) for h in ((8,), (8, 8)))
    with pytest.raises(ValueError, match=r"shorter|longer"):
        stacked([short.layers, long.layers])


@pytest.mark.parametrize("layer", [nn.ConvTranspose2d(1, 1, 2), nn.BatchNorm1d(3), nn.PReLU()])
def test_unknown_layers_with_weights_are_refused(layer: nn.Module) -> None:
    # Whoever passed one through would let all networks share the first one's weights.
    with pytest.raises(TypeError, match=type(layer).__name__):
        stacked([nn.Sequential(nn.Linear(3, 3), layer), nn.Sequential(nn.Linear(3, 3), layer)])
