"""The parts of CleanRL's networks that other libraries do not have."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LOG_STD = (-5.0, 2.0)
"""Bounds on the log standard deviation of CleanRL's SAC."""


class Divide(nn.Module):
    """Divides bytes by 255."""

    def forward(self, images: Tensor) -> Tensor:
        """Images from 0 to 1.    (rows, channels, height, width)"""
        return images / 255.0


class ExpectedValue(nn.Module):
    """The Q-values of C51: for each action, the mean of a distribution over fixed returns.

    Source: Bellemare et al. 2017 (arXiv 1707.06887), algorithm 1.
    """

    atoms: Tensor

    def __init__(self, layer: nn.Linear, atoms: Tensor) -> None:
        """Creates it.

        Args:
            layer: Outputs the logits of the returns, action by action.
            atoms: The returns.    (num_atoms,)
        """
        super().__init__()
        self.layer = layer
        self.register_buffer("atoms", atoms)

    def forward(self, features: Tensor) -> Tensor:
        """The Q-values.    (rows, num_actions)

        Args:
            features: The last hidden layer.    (rows, num_features)
        """
        logits: Tensor = self.layer(features)
        probabilities = logits.view(len(features), -1, len(self.atoms)).softmax(-1)
        return torch.mv(probabilities.flatten(0, 1), self.atoms).view(len(features), -1)


class TanhStd(nn.Module):
    """The log standard deviation of CleanRL's SAC: a tanh maps it into bounds."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        """The log standard deviation.    (rows, action_dim)

        Args:
            features: The last hidden layer.    (rows, num_features)
        """
        low, high = LOG_STD
        outputs: Tensor = self.layer(features)
        return low + 0.5 * (high - low) * (outputs.tanh() + 1)
