"""Layers of several networks side by side: each with its own weights, all in one operation.

`stacked([a, b, c])` is one module that does to row k of its input what the k-th network does: where
a layer takes (batch, ...), the stacked one takes (networks, batch, ...). Many small networks cost
little more than one that sees as many rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def stacked(networks: Sequence[nn.Module]) -> nn.Module:
    """Returns networks of one shape, side by side, with copies of their weights.

    Args:
        networks: Made of the layers that `network.py` makes encoders and heads of.
    """
    first = networks[0]
    if isinstance(first, nn.Sequential):
        parts = zip(*(network.children() for network in networks), strict=True)
        return nn.Sequential(*(stacked(layers) for layers in parts))
    for kind, stack in _STACKS:
        if isinstance(first, kind):
            return stack(networks)
    if next(first.parameters(), None) is not None:
        raise TypeError(f"Layers of the kind {type(first).__name__} cannot stand side by side.")
    return first


class _Stack(nn.Module):
    """Layers with weights and biases, one for each network."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))


class StackedLinear(_Stack):
    """Fully connected layers; the weights are (networks, inputs, outputs)."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__(layers)
        # The other way round than torch's: so the gradient comes out as the weights lie.
        self.weight = nn.Parameter(self.weight.detach().transpose(1, 2).contiguous())

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns (networks, batch, outputs) of (networks, batch, inputs)."""
        return torch.baddbmm(self.bias.unsqueeze(1), inputs, self.weight)


class StackedConv2d(_Stack):
    """Convolutions without padding, as one of as many groups as there are networks."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__(layers)
        self.weight = nn.Parameter(self.weight.detach().contiguous())
        self.stride: tuple[int, int] = layers[0].stride

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns (networks, batch, outputs, ...) of (networks, batch, channels, ...)."""
        networks = len(inputs)
        wide = inputs.transpose(0, 1).flatten(1, 2)
        weight, bias = self.weight.flatten(0, 1), self.bias.flatten()
        wide_maps = F.conv2d(wide, weight, bias, self.stride, groups=networks)
        maps: Tensor = wide_maps.unflatten(1, (networks, -1)).transpose(0, 1)
        return maps


class StackedNorm(_Stack):
    """LayerNorm, which for images is GroupNorm with one group."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__(layers)
        self.epsilon = float(layers[0].eps)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the normalised (networks, batch, channels, ...)."""
        normal = F.layer_norm(inputs, inputs.shape[2:], eps=self.epsilon)
        places = (slice(None), None, slice(None), *[None] * (inputs.dim() - 3))
        return normal * self.weight[places] + self.bias[places]


class StackedFlatten(nn.Module):
    """Flattens all but networks and batch."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns (networks, batch, features) of (networks, batch, ...)."""
        return inputs.flatten(2)


_STACKS = (
    (nn.Linear, StackedLinear),
    (nn.Conv2d, StackedConv2d),
    (nn.LayerNorm, StackedNorm),
    (nn.GroupNorm, StackedNorm),
    (nn.Flatten, StackedFlatten),
)
"""What each kind of layer becomes."""
