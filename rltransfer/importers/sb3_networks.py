"""The networks of Stable-Baselines3's policies."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.importers.sb3_vecnormalize import ObservationNormalizer
from rltransfer.policies.encoder import through
from rltransfer.policies.output import EMPTY, MAPS, Needs, PolicyOutput
from rltransfer.tasks.observation import shown_shape


class Inputs(nn.Module):
    """Turns the observations of a task into the input of the first layer."""

    def __init__(
        self,
        space: spaces.Box | spaces.Discrete,
        *,
        is_image: bool = False,
        divide: bool = False,
        normalizer: ObservationNormalizer | None = None,
    ) -> None:
        """Creates the first stage of a policy.

        Args:
            space: The observations that the policy was trained on, images channels first.
            is_image: Whether observations are images.
            divide: Whether they are divided by 255.
            normalizer: Normalises vectors.
        """
        super().__init__()
        self.space = space
        self.shape = shown_shape(space)
        self.is_image = is_image
        self.divide = divide
        self.normalizer = normalizer

    def forward(self, observation: Tensor) -> Tensor:
        """The input of the first layer, float32.    (batch, *shape)

        Args:
            observation: As tasks show it: in the units of the environment, images also channels
                last, discrete observations one-hot.    (batch, ...)
        """
        if isinstance(self.space, spaces.Discrete):
            return F.one_hot(observation.argmax(-1), int(self.space.n)).float()
        if self.is_image and tuple(observation.shape[1:]) != self.shape:
            observation = observation.permute(0, 3, 1, 2)
        if self.normalizer is not None:
            observation = self.normalizer(observation)
        observation = observation.float()
        return observation / 255.0 if self.divide else observation


class ActionBounds(nn.Module):
    """Brings the mean of an action into the bounds of the actions."""

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor, *, squash: bool) -> None:
        """Creates the last stage of a policy over continuous actions.

        Args:
            low: The smallest action.    (action_dim,)
            high: The largest action.    (action_dim,)
            squash: Whether a tanh maps the mean into the bounds; else it is clipped.
        """
        super().__init__()
        self.squash = squash
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, mean: Tensor) -> Tensor:
        """Actions in the units of the environment.    (batch, action_dim)"""
        if self.squash:
            return self.low + 0.5 * (mean.tanh() + 1.0) * (self.high - self.low)
        return mean.clamp(self.low, self.high)


class SingleHead(nn.Module):
    """The policy of DQN, or the actor of SAC, TD3 and DDPG, before the action bounds."""

    def __init__(
        self,
        extractor: nn.Module,
        hidden: nn.Module,
        head: nn.Module,
        output: Literal["q_values", "mean"],
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.hidden = hidden
        self.head = head
        self.output = output

    def forward(self, inputs: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        """The Q-values or the greedy action, and the last hidden layer.

        Args:
            inputs: The output of `Inputs`.    (batch, ...)
            needs: See `Policy`.
        """
        extracted, maps = _extracted(self.extractor, inputs, needs)
        features = self.hidden(extracted)
        output = PolicyOutput(**{self.output: self.head(features)}, features=features)
        output.add_maps(maps, needs)
        return output


class ActorCritic(nn.Module):
    """The policy of PPO and A2C, before the action bounds.

    With state-dependent exploration (gSDE) an action has no log standard deviation of its own:
    `log_std` is None.
    """

    log_std: Tensor | None

    def __init__(
        self,
        extractors: tuple[nn.Module, nn.Module],
        shared: nn.Module,
        hidden: tuple[nn.Module, nn.Module],
        heads: tuple[nn.Linear, nn.Linear],
        log_std: Tensor | None,
        discrete: bool,
    ) -> None:
        """Creates the policy from its parts. Each pair is that of the policy and of the value.

        Args:
            extractors: Convolutions or flattening; the same module twice where it is shared.
            shared: The hidden layers that both use, in policies from before 2023.
            hidden: The hidden layers.
            heads: The last layers.
            log_std: Log standard deviation of continuous actions.    (action_dim,)
            discrete: Whether actions are discrete.
        """
        super().__init__()
        self.extractor, self.value_extractor = extractors
        self.shared = shared
        self.hidden, self.value_hidden = hidden
        self.action_head, self.value_head = heads
        self.discrete = discrete
        self.register_buffer("log_std", log_std)

    def forward(self, inputs: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        """The distribution parameters, the value and the last hidden layer of the policy.

        Args:
            inputs: The output of `Inputs`.    (batch, ...)
            needs: See `Policy`.
        """
        extracted, maps = _extracted(self.extractor, inputs, needs)
        extracted = value_inputs = self.shared(extracted)
        if self.value_extractor is not self.extractor:
            value_inputs = self.value_extractor(inputs)
        features = self.hidden(extracted)
        value = self.value_head(self.value_hidden(value_inputs)).squeeze(-1)
        scores = self.action_head(features)
        output = PolicyOutput(value=value, features=features)
        if self.discrete:
            output.logits = scores
        else:
            output.mean = scores
            output.log_std = None if self.log_std is None else self.log_std.expand_as(scores)
        output.add_maps(maps, needs)
        return output


def _extracted(extractor: nn.Module, inputs: Tensor, needs: Needs) -> tuple[Tensor, Tensor | None]:
    """The output of an extractor, and its last feature maps where they are needed."""
    if needs & MAPS and isinstance(extractor, nn.Sequential):
        return through(extractor, inputs)
    return extractor(inputs), None
