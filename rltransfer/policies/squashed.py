"""A Gaussian that a tanh squashes into the bounds of an action.

Source: Haarnoja et al. 2018 (arXiv 1801.01290), appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class SquashedGaussian:
    """The distribution of low + (tanh(u) + 1) / 2 * (high - low) with u ~ N(mean, std^2)."""

    mean: Tensor
    """Mean of u.                        (..., action_dim)"""
    log_std: Tensor
    """Log standard deviation of u.      (..., action_dim)"""
    low: Tensor
    """The smallest action.              (action_dim,)"""
    high: Tensor
    """The largest action.               (action_dim,)"""

    def map(self, function: Callable[[Tensor], Tensor]) -> SquashedGaussian:
        """The distribution with each tensor changed, e.g. with dimensions in another order.

        Args:
            function: Maps (..., action_dim) to (..., action_dim).
        """
        return SquashedGaussian(*map(function, (self.mean, self.log_std, self.low, self.high)))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """An action.    (..., action_dim)

        Args:
            generator: The source of randomness, on the distribution's device.
        """
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return squash(self.mean + self.log_std.exp() * noise, self.low, self.high)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density of an action, in the units of the bounds.    (...)

        Args:
            action: Actions; one at a bound counts as the nearest float inside.    (..., action_dim)
        """
        half = 0.5 * (self.high - self.low)
        inside = 1 - torch.finfo(action.dtype).eps
        u = ((action - self.low) / half - 1).clamp(-inside, inside).atanh()
        error = (u - self.mean) / self.log_std.exp()
        density = -0.5 * error.square() - self.log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(u)^2), which stays finite for large u.
        slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
        return (density - slope - half.log()).sum(-1)


def squash(u: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Maps numbers into bounds: low + (tanh(u) + 1) / 2 * (high - low).    (..., action_dim)"""
    return low + 0.5 * (u.tanh() + 1.0) * (high - low)
