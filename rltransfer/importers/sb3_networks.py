"""The networks of Stable-Baselines3's policies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.importers.sb3_vecnormalize import ObservationNormalizer
from rltransfer.policies.encoder import through
from rltransfer.policies.output import EMPTY, MAPS, Needs, PolicyOutput
from rltransfer.policies.scores import one_hot_logits
from rltransfer.policies.squashed import SquashedGaussian, squash
from rltransfer.tasks.observation import shown_shape

SAC_LOG_STD = (-20.0, 2.0)
"""Bounds on the log standard deviation of SAC without gSDE."""

GSDE_EPSILON = 1e-6
"""Added to the variance of gSDE."""


class GroupInputs(nn.Module):
    """Turns one observation group of a task into an input of the first layer."""

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


class Inputs(nn.Module):
    """Turns the observation groups of a task into the input of the first layer.

    Several groups are flattened and follow one another, as in Stable-Baselines3's
    `CombinedExtractor`.
    """

    def __init__(self, groups: Mapping[str, GroupInputs]) -> None:
        """Creates the first stage of a policy.

        Args:
            groups: Each group by its name, in the order in which they follow one another.
        """
        super().__init__()
        self.names = tuple(groups)
        # Names of groups may be those of a module's attributes, so this is a list.
        self._groups = nn.ModuleList(groups.values())
        shapes = [one.shape for one in groups.values()]
        self.shape = shapes[0] if len(shapes) == 1 else (sum(map(math.prod, shapes)),)
        self.is_image = any(one.is_image for one in groups.values())
        self.divide = any(one.divide for one in groups.values())
        self.space = spaces.Dict([(name, one.space) for name, one in groups.items()])

    @property
    def groups(self) -> dict[str, GroupInputs]:
        """The groups by name."""
        return dict(zip(self.names, self._groups, strict=True))  # type: ignore[arg-type]

    def forward(self, *groups: Tensor) -> Tensor:
        """The input of the first layer, float32.    (batch, *shape)

        Args:
            groups: In the order of `names`; see `GroupInputs`.    (batch, ...) each
        """
        parts = [one(group) for one, group in zip(self._groups, groups, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat([part.flatten(1) for part in parts], 1)


class ActionBounds(nn.Module):
    """Brings actions into their bounds."""

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor, *, squash: bool) -> None:
        """Creates the last stage of a policy over continuous actions.

        Args:
            low: The smallest action.    (action_dim,)
            high: The largest action.    (action_dim,)
            squash: Whether a tanh maps actions into the bounds; else they are clipped.
        """
        super().__init__()
        self.squash = squash
        # Labels must be finite, also where there is no bound.
        largest = torch.finfo(torch.float32).max
        self.register_buffer("low", low.clamp(min=-largest))
        self.register_buffer("high", high.clamp(max=largest))

    def forward(self, output: PolicyOutput) -> None:
        """Turns the output of the layers into actions in the units of the environment.

        Args:
            output: With a mean, and a log standard deviation if it is known.
        """
        mean, log_std = output.mean, output.log_std
        assert mean is not None
        if self.squash:
            output.mean, output.log_std = squash(mean, self.low, self.high), None
            if log_std is not None:
                output.squashed = SquashedGaussian(mean, log_std, self.low, self.high)
        elif log_std is None:
            output.mean = mean.clamp(self.low, self.high)
        else:
            output.low, output.high = self.low.expand_as(mean), self.high.expand_as(mean)


class DiagonalStd(nn.Module):
    """A log standard deviation that does not depend on the state: PPO, A2C."""

    log_std: Tensor

    def __init__(self, log_std: Tensor) -> None:
        """Creates it.

        Args:
            log_std: One for each action dimension.    (action_dim,)
        """
        super().__init__()
        self.register_buffer("log_std", log_std)

    def forward(self, features: Tensor) -> Tensor:
        """The log standard deviation.    (batch, action_dim)

        Args:
            features: The last hidden layer.    (batch, num_features)
        """
        return self.log_std.expand(len(features), -1)


class LayerStd(nn.Module):
    """A log standard deviation from a layer of its own, bounded: SAC, CrossQ."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        """The log standard deviation.    (batch, action_dim)

        Args:
            features: The last hidden layer.    (batch, num_features)
        """
        log_std: Tensor = self.layer(features)
        return log_std.clamp(*SAC_LOG_STD)


class StateDependentStd(nn.Module):
    """The standard deviation of state-dependent exploration (gSDE).

    Stable-Baselines3 draws a noise matrix of independent Gaussians and adds features @ matrix to
    the mean. Over matrices, the noise of one action is Gaussian with the variance
    features^2 @ std^2. Successive actions share a matrix there; here each action is drawn anew.

    Source: Raffin et al. 2021 (arXiv 2005.05719), eq. 6.
    """

    std: Tensor

    def __init__(self, log_std: Tensor, expln: bool) -> None:
        """Creates it.

        Args:
            log_std: That of the matrix; a single column counts for all.
                (num_features, action_dim) or (num_features, 1)
            expln: Whether it grows only like a logarithm above 0.
        """
        super().__init__()
        above = (log_std.clamp(min=0.0) + 1.0).log() + 1.0
        std = torch.where(log_std <= 0, log_std.exp(), above) if expln else log_std.exp()
        self.register_buffer("std", std)

    def forward(self, features: Tensor) -> Tensor:
        """The log standard deviation.    (batch, action_dim) or (batch, 1)

        Args:
            features: The last hidden layer.    (batch, num_features)
        """
        variance = features.square() @ self.std.square()
        return 0.5 * (variance + GSDE_EPSILON).log()


class BatchRenorm(nn.Module):
    """A batch renormalisation outside training: by its running statistics, then scale and bias.

    Source: Ioffe 2017 (arXiv 1702.03275), algorithm 1, "Inference"; Bhatt 2019 (arXiv 1902.05605)
    uses it in CrossQ.
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self, mean: Tensor, variance: Tensor, scale: Tensor, bias: Tensor, epsilon: float
    ) -> None:
        """Creates it.

        Args:
            mean: The running mean.    (num_features,)
            variance: The running variance.    (num_features,)
            scale: What normalised features are multiplied by.    (num_features,)
            bias: What is then added.    (num_features,)
            epsilon: Added to the variance.
        """
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("variance", variance)
        self.scale, self.bias = nn.Parameter(scale), nn.Parameter(bias)
        self.epsilon = epsilon

    def forward(self, features: Tensor) -> Tensor:
        """The normalised features.    (batch, num_features)

        Args:
            features: Those before it.    (batch, num_features)
        """
        std = (self.variance + self.epsilon).sqrt()
        return self.scale * ((features - self.mean) / std) + self.bias


class BestAction(nn.Module):
    """The discrete actions of ARS, one-hot: the action with the highest score, and no other.

    A search over weights only compares the returns of greedy actions, so nothing trains the scores
    to be log-probabilities or returns. As logits or Q-values they would pass their arbitrary scale
    on to a student: the temperature of a KL would decide how random it becomes. The label therefore
    contains what the policy does, as the logits of a policy that always takes this action.
    """

    def __init__(self, scores: nn.Linear) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, features: Tensor) -> Tensor:
        """The logit 0 for the best action, `LOSING` for the others.    (batch, num_actions)

        Args:
            features: The last hidden layer.    (batch, num_features)
        """
        scores: Tensor = self.scores(features)
        return one_hot_logits(scores.argmax(-1, keepdim=True), torch.ones_like(scores).bool())


class SingleHead(nn.Module):
    """The policy of DQN, QR-DQN and ARS, or the actor of the others, before the action bounds."""

    def __init__(
        self,
        extractor: nn.Module,
        hidden: nn.Module,
        head: nn.Module,
        output: Literal["logits", "q_values", "mean"],
        log_std: nn.Module | None = None,
    ) -> None:
        """Creates the policy from its parts.

        Args:
            extractor: Convolutions or flattening.
            hidden: The hidden layers.
            head: The last layer.
            output: What it outputs.
            log_std: From the last hidden layer to the log standard deviation of SAC or CrossQ.
        """
        super().__init__()
        self.log_std = log_std
        self.extractor = extractor
        self.hidden = hidden
        self.head = head
        self.output = output

    def forward(self, inputs: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        """The Q-values, or the distribution parameters, and the last hidden layer.

        Args:
            inputs: The output of `Inputs`.    (batch, ...)
            needs: See `Policy`.
        """
        extracted, maps = extracted_by(self.extractor, inputs, needs)
        features = self.hidden(extracted)
        output = PolicyOutput(**{self.output: self.head(features)}, features=features)
        output.log_std = log_std_by(self.log_std, features, output.mean)
        output.add_maps(maps, needs)
        return output


class ActorCritic(nn.Module):
    """The policy of PPO and A2C, before the action bounds.

    `log_std` is None where exploration has layers of its own, as in old zips with gSDE.
    """

    def __init__(
        self,
        extractors: tuple[nn.Module, nn.Module],
        shared: nn.Module,
        hidden: tuple[nn.Module, nn.Module],
        heads: tuple[nn.Linear, nn.Linear],
        log_std: nn.Module | None,
        discrete: bool,
    ) -> None:
        """Creates the policy from its parts. Each pair is that of the policy and of the value.

        Args:
            extractors: Convolutions or flattening; the same module twice where it is shared.
            shared: The hidden layers that both use, in policies from before 2023.
            hidden: The hidden layers.
            heads: The last layers.
            log_std: From the last hidden layer to the log standard deviation of continuous actions.
            discrete: Whether actions are discrete.
        """
        super().__init__()
        self.extractor, self.value_extractor = extractors
        self.shared = shared
        self.hidden, self.value_hidden = hidden
        self.action_head, self.value_head = heads
        self.discrete = discrete
        self.log_std = log_std

    def forward(self, inputs: Tensor, needs: Needs = EMPTY) -> PolicyOutput:
        """The distribution parameters, the value and the last hidden layer of the policy.

        Args:
            inputs: The output of `Inputs`.    (batch, ...)
            needs: See `Policy`.
        """
        extracted, maps = extracted_by(self.extractor, inputs, needs)
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
            output.log_std = log_std_by(self.log_std, features, scores)
        output.add_maps(maps, needs)
        return output


def log_std_by(layer: nn.Module | None, features: Tensor, mean: Tensor | None) -> Tensor | None:
    """The log standard deviation, if known.    (batch, action_dim)"""
    return None if layer is None or mean is None else layer(features).expand_as(mean)


def extracted_by(
    extractor: nn.Module, inputs: Tensor, needs: Needs
) -> tuple[Tensor, Tensor | None]:
    """The output of an extractor, and its last feature maps where they are needed."""
    if needs & MAPS and isinstance(extractor, nn.Sequential):
        return through(extractor, inputs)
    return extractor(inputs), None
