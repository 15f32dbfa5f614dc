"""The output of a policy for a batch of observations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from rltransfer.policies.squashed import SquashedGaussian

MASKED = -1e9
"""The logit and Q-value of a masked action: finite, so that a probability of zero times its
logarithm is zero and not NaN, also after division by a small temperature."""

LABELS = {
    "logits": MASKED, "q_values": MASKED, "mean": 0.0, "log_std": 0.0, "low": 0.0, "high": 0.0,
}  # fmt: skip
"""Label fields, and the fill value for padded actions and action dimensions."""

Needs = frozenset[str]
"""Optional fields of `PolicyOutput` that an objective needs."""
EMPTY: Needs = frozenset()
MAPS: Needs = frozenset({"maps", "attention"})
"""Fields that are computed from feature maps."""


def upcast(tensor: Tensor) -> Tensor:
    """The tensor in float32 or wider, for softmaxes and sums of squares."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@dataclass
class PolicyOutput:
    """Distribution parameters or Q-values, value, features; None for what a policy lacks.

    Policies over discrete actions output `logits` or `q_values` (a Q-network only the latter);
    policies over continuous actions output `mean` and, unless deterministic, `log_std`. The mean of
    a Gaussian with bounds may be outside: its actions are clipped, its log-probabilities are not.
    """

    logits: Tensor | None = None
    """Unnormalised log-probabilities of discrete actions.          (..., num_actions)"""
    q_values: Tensor | None = None
    """State-action values of discrete actions.                     (..., num_actions)"""
    mean: Tensor | None = None
    """Mean of continuous actions, in the environment's units.      (..., action_dim)"""
    log_std: Tensor | None = None
    """Log standard deviation of the action, same units.            (..., action_dim)"""
    low: Tensor | None = None
    """Lower bound that actions of the Gaussian are clipped to.     (..., action_dim)"""
    high: Tensor | None = None
    """Upper bound, given with `low`.                               (..., action_dim)"""
    padding_mask: Tensor | None = None
    """Which action dimensions are padding, where `mean` and `log_std` are 0; None if no task is
    padded, and in labels.                                          (..., action_dim)"""
    value: Tensor | None = None
    """The state's value.                                           (...)"""
    features: Tensor | None = None
    """The last hidden layer.                                       (..., num_features)"""
    maps: Tensor | None = None
    """The last convolution's activations, if needed.       (..., channels, height, width)"""
    attention: Tensor | None = None
    """The sum of `maps` squared over channels, if needed.          (..., height, width)"""
    jacobian: Tensor | None = None
    """Gradient of one output with respect to the observation; see `labeller.py`.
    (..., observation_size)"""
    state: Tensor | None = None
    """The recurrent state after these observations.                (num_envs, state_size)"""
    squashed: SquashedGaussian | None = field(default=None, init=False)
    """The distribution of actions with the greedy action `mean` where `log_std` is None: SAC's. It
    is set afterwards, and `dataclasses.replace` drops it."""
    _log_probs: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def tensors(self) -> dict[str, Tensor]:
        """Every field of labels and features that is not None, by name."""
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.init}
        return {name: value for name, value in named.items() if value is not None}

    def add_maps(self, maps: Tensor | None, needs: Needs) -> None:
        """Sets those of `maps` and `attention` that are needed.

        Args:
            maps: After the nonlinearity; None without maps.    (..., channels, height, width)
            needs: The fields that are needed.
        """
        if "maps" in needs:
            self.maps = maps
        if "attention" in needs and maps is not None:
            self.attention = upcast(maps).square().sum(-3)

    def preferences(self) -> Tensor:
        """The logits, or the Q-values of a Q-network.    (..., num_actions)

        Raises:
            ValueError: The policy is over continuous actions.
        """
        scores = self.logits if self.logits is not None else self.q_values
        if scores is None:
            raise ValueError("A policy over continuous actions has neither logits nor Q-values.")
        return scores

    def greedy(self) -> Tensor:
        """The greedy action: int64 (...) or float32 (..., action_dim)."""
        return self.preferences().argmax(-1) if self.mean is None else self._clipped(self.mean)

    def _clipped(self, action: Tensor) -> Tensor:
        """Continuous actions within the bounds, if any.    (..., action_dim)"""
        return action if self.low is None else action.clamp(self.low, self.high)

    @property
    def is_stochastic(self) -> bool:
        """Whether there is a distribution to sample from."""
        return any(one is not None for one in (self.logits, self.log_std, self.squashed))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """A sample of the policy's distribution; greedy for Q-networks and deterministic policies.

        Args:
            generator: The source of randomness, on the output's device.
        """
        if self.squashed is not None:
            return self.squashed.sample(generator)
        if self.mean is not None and self.log_std is not None:
            noise = torch.empty_like(self.mean).normal_(generator=generator)
            return self._clipped(self.mean + self.mask_padding(self.log_std.exp() * noise))
        if self.logits is None:
            return self.greedy()
        # The Gumbel trick: the argmax of logits plus Gumbel noise is a sample of their softmax.
        # Exponential noise of 0 would select its action, even if it is masked.
        noise = torch.empty_like(self.logits, dtype=torch.float32).exponential_(generator=generator)
        noise.clamp_(min=torch.finfo(torch.float32).tiny)
        return (self.logits.float() - noise.log()).argmax(-1)

    def log_probs(self) -> Tensor:
        """Log pi of every discrete action, computed once.    (..., num_actions)"""
        if self._log_probs is None:
            assert self.logits is not None
            self._log_probs = F.log_softmax(upcast(self.logits), -1)
        return self._log_probs

    def log_prob(self, action: Tensor) -> Tensor:
        """Log pi(action), of the Gaussian before its actions are clipped.    (...)

        Args:
            action: Discrete actions (...) or continuous ones (..., action_dim).

        Raises:
            ValueError: The policy has Q-values only, or is deterministic.
        """
        if self.logits is not None:
            return self.log_probs().gather(-1, action.unsqueeze(-1)).squeeze(-1)
        if self.squashed is not None:
            return self.squashed.log_prob(action)
        if self.mean is None or self.log_std is None:
            raise ValueError("Only a stochastic policy has log-probabilities.")
        error = (action - self.mean) / self.log_std.exp()
        density = -0.5 * error.square() - self.log_std - 0.5 * math.log(2 * math.pi)
        return self.mask_padding(density).sum(-1)

    def entropy(self) -> Tensor:
        """Entropy in nats; differential entropy for continuous actions.    (...)

        Raises:
            ValueError: The policy has Q-values only, or is deterministic.
        """
        if self.logits is not None:
            log_probs = self.log_probs()
            return -(log_probs.exp() * log_probs).sum(-1)
        if self.mean is None or self.log_std is None:
            raise ValueError("Only a stochastic policy has an entropy.")
        return self.mask_padding(self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def mask_padding(self, values: Tensor) -> Tensor:
        """Values of each action dimension, 0 where it is padding.    (..., action_dim)"""
        return values if self.padding_mask is None else values.masked_fill(self.padding_mask, 0.0)
