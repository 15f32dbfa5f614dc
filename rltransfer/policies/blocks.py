"""Layers of encoders with their normalisation and nonlinearity."""

from __future__ import annotations

import math

from torch import nn

from rltransfer.policies.network import Network


def block(network: Network, layer: nn.Conv1d | nn.Conv2d | nn.Linear) -> list[nn.Module]:
    """A layer with orthogonal weights, its normalisation if any, and its nonlinearity.

    Args:
        network: The configuration.
        layer: The layer, whose weights are set.
    """
    nn.init.orthogonal_(layer.weight, math.sqrt(2))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    modules: list[nn.Module] = [layer]
    if network.layer_norm:
        if isinstance(layer, nn.Linear):
            modules.append(nn.LayerNorm(layer.out_features))
        else:
            # One group over channels and pixels, or steps, is LayerNorm for an image.
            modules.append(nn.GroupNorm(1, layer.out_channels))
    modules.append(nn.Tanh() if network.activation == "tanh" else nn.ReLU())
    return modules
