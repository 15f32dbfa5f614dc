"""The networks of Stable-Baselines3's policies: what they compute."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rltransfer.importers.sb3_vecnormalize import ObservationNormalizer
from rltransfer.policies.encoder import through
from rltransfer.policies.output import MAPS, NOTHING, Needs, PolicyOutput


class Inputs(nn.Module):
    """An environment's own observations in, what the first layer takes out."""

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        one_hot: int | None = None,
        image: bool = False,
        divide: bool = False,
        normalizer: ObservationNormalizer | None = None,
    ) -> None:
        """Makes the first stage of a policy.

        Args:
            shape: The shape of the observations that the networks saw.
            one_hot: Number of discrete observations, where they are discrete.
            image: Whether observations are images, channels first in `shape`.
            divide: Whether they are divided by 255.
            normalizer: What vectors are normalised by.
        """
        super().__init__()
        self.shape = shape
        self.one_hot = one_hot
        self.image = image
        self.divide = divide
        self.normalizer = normalizer

    def forward(self, observation: Tensor) -> Tensor:
        """Returns the inputs of the first layer, float32.    (batch, ...)

        Args:
            observation: What the environment says.    (batch, *shape), or images channels last
        """
        if self.one_hot is not None:
            return F.one_hot(observation.long(), self.one_hot).float()
        if self.image and tuple(observation.shape[1:]) != self.shape:
            observation = observation.permute(0, 3, 1, 2)
        if self.normalizer is not None:
            observation = self.normalizer(observation)
        observation = observation.float()
        return observation / 255.0 if self.divide else observation


class QNetwork(nn.Module):
    """The policy of DQN."""

    def __init__(
        self, inputs: Inputs, extractor: nn.Module, hidden: nn.Module, q_head: nn.Linear
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.extractor = extractor
        self.hidden = hidden
        self.q_head = q_head

    def forward(self, observation: Tensor, needs: Needs = NOTHING) -> PolicyOutput:
        """Returns the Q-values and the last hidden layer.

        Args:
            observation: In the environment's own units.    (batch, ...)
            needs: See `Policy`.
        """
        extracted, maps = _extracted(self.extractor, self.inputs(observation), needs)
        features = self.hidden(extracted)
        return _shown(PolicyOutput(q_values=self.q_head(features), features=features), maps, needs)


class ActionBounds(nn.Module):
    """Brings what a head says into the bounds of the actions."""

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor, *, squash: bool) -> None:
        """Makes the last stage of a policy over continuous actions.

        Args:
            low: The smallest action.    (action_dim,)
            high: The largest action.    (action_dim,)
            squash: Whether a tanh leads into the bounds, or whatever is outside is clipped.
        """
        super().__init__()
        self.squash = squash
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, mean: Tensor) -> Tensor:
        """Returns actions in the environment's units.    (batch, action_dim)"""
        if self.squash:
            return self.low + 0.5 * (mean.tanh() + 1.0) * (self.high - self.low)
        return mean.clamp(self.low, self.high)


class ActorCritic(nn.Module):
    """The policy of PPO and A2C; the mean of a Gaussian is clipped to the action bounds.

    Exploration that depends on the state (gSDE) has no log standard deviation of an action, so that
    `log_std` is None there.
    """

    log_std: Tensor | None

    def __init__(
        self,
        inputs: Inputs,
        extractors: tuple[nn.Module, nn.Module],
        shared: nn.Module,
        hidden: tuple[nn.Module, nn.Module],
        heads: tuple[nn.Linear, nn.Linear],
        bounds: ActionBounds | None,
        log_std: Tensor | None,
    ) -> None:
        """Makes the policy of its parts, each pair that of the policy and that of the value.

        Args:
            inputs: The first stage.
            extractors: Convolutions or flattening; the same module twice where it is shared.
            shared: The hidden layers that both have, in policies of before 2023.
            hidden: The hidden layers.
            heads: The last layers.
            bounds: The last stage of continuous actions; None where actions are discrete.
            log_std: Log standard deviation of continuous actions.    (action_dim,)
        """
        super().__init__()
        self.inputs = inputs
        self.extractor, self.value_extractor = extractors
        self.shared = shared
        self.hidden, self.value_hidden = hidden
        self.action_head, self.value_head = heads
        self.bounds = bounds
        self.register_buffer("log_std", log_std)

    def forward(self, observation: Tensor, needs: Needs = NOTHING) -> PolicyOutput:
        """Returns the distribution's parameters, the value and the policy's last hidden layer.

        Args:
            observation: In the environment's own units.    (batch, ...)
            needs: See `Policy`.
        """
        inputs = self.inputs(observation)
        extracted, maps = _extracted(self.extractor, inputs, needs)
        extracted = seen = self.shared(extracted)
        if self.value_extractor is not self.extractor:
            seen = self.value_extractor(inputs)
        features = self.hidden(extracted)
        value = self.value_head(self.value_hidden(seen)).squeeze(-1)
        scores = self.action_head(features)
        if self.bounds is None:
            return _shown(PolicyOutput(logits=scores, value=value, features=features), maps, needs)
        log_std = None if self.log_std is None else self.log_std.expand_as(scores)
        mean = self.bounds(scores)
        output = PolicyOutput(mean=mean, log_std=log_std, value=value, features=features)
        return _shown(output, maps, needs)


class SquashedActor(nn.Module):
    """The policy of SAC, TD3 and DDPG, as it acts when it does not explore."""

    def __init__(
        self,
        inputs: Inputs,
        extractor: nn.Module,
        hidden: nn.Module,
        head: nn.Module,
        bounds: ActionBounds,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.extractor = extractor
        self.hidden = hidden
        self.head = head
        self.bounds = bounds

    def forward(self, observation: Tensor, needs: Needs = NOTHING) -> PolicyOutput:
        """Returns the greedy action and the last hidden layer.

        Args:
            observation: In the environment's own units.    (batch, ...)
            needs: See `Policy`.
        """
        extracted, maps = _extracted(self.extractor, self.inputs(observation), needs)
        features = self.hidden(extracted)
        return _shown(
            PolicyOutput(mean=self.bounds(self.head(features)), features=features), maps, needs
        )


def _extracted(extractor: nn.Module, inputs: Tensor, needs: Needs) -> tuple[Tensor, Tensor | None]:
    """Returns what an extractor says, and its last feature maps where they are needed."""
    if needs & MAPS and isinstance(extractor, nn.Sequential):
        return through(extractor, inputs)
    return extractor(inputs), None


def _shown(output: PolicyOutput, maps: Tensor | None, needs: Needs) -> PolicyOutput:
    """Returns the output with what is needed of the feature maps."""
    if maps is not None:
        output.add_maps(maps, needs)
    return output
