"""Layers of several networks as one operation, with separate weights.

`stacked([a, b, c])` is one module that applies the k-th network to row k of its input: a layer that
takes (batch, ...) becomes one that takes (networks, batch, ...). Many small networks cost little
more than one with as many rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def stacked(networks: Sequence[nn.Module]) -> nn.Module:
    """Networks of one shape as one module, with copies of their weights.

    Args:
        networks: Networks built from the layers of `encoder.py`.

    Raises:
        TypeError: A layer is of another kind.
    """
    first = networks[0]
    if isinstance(first, nn.Sequential):
        parts = zip(*(network.children() for network in networks), strict=True)
        return nn.Sequential(*(stacked(layers) for layers in parts))
    for kind, stack in _STACKS:
        if isinstance(first, kind):
            return stack(networks)
    if next(first.parameters(), None) is not None:
        raise TypeError(f"Layers of the kind {type(first).__name__} cannot be stacked.")
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
        # Transposed, unlike torch's: the gradient then has the memory layout of the weights.
        self.weight = nn.Parameter(self.weight.detach().transpose(1, 2).contiguous())

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps (networks, batch, inputs) to (networks, batch, outputs)."""
        return torch.baddbmm(self.bias.unsqueeze(1), inputs, self.weight)


class StackedConv2d(_Stack):
    """Convolutions without padding, as one grouped convolution."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__(layers)
        self.weight = nn.Parameter(self.weight.detach().contiguous())
        self.stride: tuple[int, int] = layers[0].stride

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps (networks, batch, channels, ...) to (networks, batch, outputs, ...)."""
        networks = len(inputs)
        wide = inputs.transpose(0, 1).flatten(1, 2)
        weight, bias = self.weight.flatten(0, 1), self.bias.flatten()
        wide_maps = F.conv2d(wide, weight, bias, self.stride, groups=networks)
        maps: Tensor = wide_maps.unflatten(1, (networks, -1)).transpose(0, 1)
        return maps


class StackedNorm(_Stack):
    """LayerNorm; for images, GroupNorm with one group."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__(layers)
        self.epsilon = float(layers[0].eps)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalises (networks, batch, channels, ...)."""
        normal = F.layer_norm(inputs, inputs.shape[2:], eps=self.epsilon)
        places = (slice(None), None, slice(None), *[None] * (inputs.dim() - 3))
        return normal * self.weight[places] + self.bias[places]


class StackedFlatten(nn.Module):
    """Flattens all axes but networks and batch."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps (networks, batch, ...) to (networks, batch, features)."""
        return inputs.flatten(2)


_STACKS = (
    (nn.Linear, StackedLinear),
    (nn.Conv2d, StackedConv2d),
    (nn.LayerNorm, StackedNorm),
    (nn.GroupNorm, StackedNorm),
    (nn.Flatten, StackedFlatten),
)
"""The stacked form of each kind of layer."""
