"""Stable-Baselines3's policies, built from the tensors of a zip.

The names and shapes of the tensors say how the networks are built, and each tensor must be of use:
what is built is what the tensors fit.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.sb3_networks import (
    ActionBounds,
    ActorCritic,
    Inputs,
    QNetwork,
    SquashedActor,
)
from rltransfer.policies.linear import Linear

ACTIVATIONS: dict[str, type[nn.Module]] = {
    activation.__name__: activation
    for activation in (
        nn.CELU, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity,
        nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid,
        nn.Softplus, nn.Softsign, nn.Tanh, nn.Tanhshrink,
    )
}  # fmt: skip
"""The nonlinearities that have no parameters, by name."""

NATURE_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Channels, kernel size and stride of the three convolutions.

Source: Mnih et al. 2015, Methods, "Model architecture".
"""


@dataclass(frozen=True)
class Settings:
    """What the tensors of a zip do not say about its networks."""

    activation: type[nn.Module]
    """The nonlinearity between fully connected layers."""
    squash: bool = False
    """Whether PPO or A2C with gSDE squashes its actions."""
    clip_mean: float = 2.0
    """Bound on what the head of SAC with gSDE says, before the tanh."""


class StoredTensors:
    """The tensors of a zip: taken one by one, checked against what the layer before hands on."""

    def __init__(self, tensors: Mapping[str, Tensor], algorithm: str, path: Path) -> None:
        self.tensors = tensors
        self.algorithm = algorithm
        self.path = path
        self.left = set(tensors)

    def take(self, name: str, shape: tuple[int | None, ...]) -> Tensor:
        """Returns a tensor as float32.

        Args:
            name: Its name.
            shape: Its shape; None where any length is right.

        Raises:
            InputError: It is not there, of another shape, or not finite.
        """
        tensor = self.tensors.get(name)
        if tensor is None:
            raise InputError(f"{self.path} holds no tensor {name!r}, which {self.algorithm} needs.")
        fits = len(shape) == tensor.dim() and all(
            wanted in (None, length) for wanted, length in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if length is None else str(length) for length in shape)
            raise InputError(
                f"{self.path} does not fit itself: its tensor {name!r} has the shape "
                f"{list(tensor.shape)}, but [{wanted}] would be right."
            )
        if not torch.isfinite(tensor).all():
            raise InputError(f"{self.path} is of no use: its tensor {name!r} is not finite.")
        self.left.discard(name)
        return tensor.float()

    def has(self, prefix: str) -> bool:
        """Returns whether any tensor's name begins so."""
        return any(name.startswith(prefix) for name in self.tensors)

    def ignore(self, *prefixes: str) -> None:
        """Leaves aside what acting does not need: targets, critics, exploration."""
        self.left = {name for name in self.left if not name.startswith(prefixes)}

    def check_all_taken(self) -> None:
        """Checks that there is no tensor that nothing was made of.

        Raises:
            InputError: There is one, so that the policy is of another kind.
        """
        if self.left:
            raise InputError(
                f"{self.path} holds the tensor {min(self.left)!r}, which no MlpPolicy or CnnPolicy "
                f"of {self.algorithm} has: only these two can be read."
            )

    def linear(self, name: str, inputs: int, outputs: int | None = None) -> nn.Linear:
        """Returns a fully connected layer."""
        weight = self.take(f"{name}.weight", (outputs, inputs))
        bias = self.take(f"{name}.bias", (len(weight),))
        layer = Linear(inputs, len(weight), device="meta")
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
        return layer

    def hidden(
        self, prefix: str, inputs: int, activation: type[nn.Module], *, but_last: bool = False
    ) -> tuple[nn.Sequential, int]:
        """Returns fully connected layers with a nonlinearity after each, and their outputs.

        Args:
            prefix: What the names begin with.
            inputs: Number of inputs of the first.
            activation: The nonlinearity.
            but_last: Whether the last layer is left out, as it is the head.
        """
        pattern = re.compile(rf"{re.escape(prefix)}\.(\d{{1,4}})\.weight")
        found = sorted(int(match[1]) for name in self.tensors if (match := pattern.fullmatch(name)))
        layers: list[nn.Module] = []
        # Every second place is a nonlinearity's; other spacings are refused as missing tensors.
        for index in range(0, 2 * (len(found) - but_last), 2):
            layer = self.linear(f"{prefix}.{index}", inputs)
            layers += [layer, activation()]
            inputs = layer.out_features
        return nn.Sequential(*layers), inputs

    def extractor(self, prefix: str, shape: tuple[int, ...]) -> tuple[nn.Module, int]:
        """Returns convolutions, or flattening where there are none, and their outputs.

        Args:
            prefix: What the names begin with.
            shape: The shape of an input.
        """
        if not self.has(f"{prefix}.cnn."):
            return nn.Flatten(), math.prod(shape)
        if len(shape) != 3:
            raise InputError(
                f"{self.path} does not fit itself: it has convolutions, but its observations are "
                f"{list(shape)}, where [channels, height, width] would be right."
            )
        channels, height, width = shape
        layers: list[nn.Module] = []
        for index, (outputs, kernel, stride) in enumerate(NATURE_LAYERS):
            layers += [
                self._convolution(f"{prefix}.cnn.{2 * index}", channels, outputs, kernel, stride)
            ]
            layers += [nn.ReLU()]
            channels = outputs
            height, width = ((size - kernel) // stride + 1 for size in (height, width))
        linear = self.linear(f"{prefix}.linear.0", channels * max(height, 0) * max(width, 0))
        return nn.Sequential(*layers, nn.Flatten(), linear, nn.ReLU()), linear.out_features

    def _convolution(
        self, name: str, inputs: int, outputs: int, kernel: int, stride: int
    ) -> nn.Conv2d:
        layer = nn.Conv2d(inputs, outputs, kernel, stride, device="meta")
        weight = self.take(f"{name}.weight", (outputs, inputs, kernel, kernel))
        layer.weight = nn.Parameter(weight)
        layer.bias = nn.Parameter(self.take(f"{name}.bias", (outputs,)))
        return layer


def build_q_network(
    stored: StoredTensors, inputs: Inputs, shape: tuple[int, ...], settings: Settings, actions: int
) -> QNetwork:
    """Returns the policy of DQN.

    Args:
        stored: The tensors.
        inputs: The first stage.
        shape: The shape of what it hands on.
        settings: What the tensors do not say.
        actions: Number of actions.
    """
    # The target network, and the extractor that old policies list a second time.
    stored.ignore("q_net_target.", "features_extractor.")
    extractor, size = stored.extractor("q_net.features_extractor", shape)
    hidden, size = stored.hidden("q_net.q_net", size, settings.activation, but_last=True)
    head = stored.linear(f"q_net.q_net.{len(hidden)}", size, actions)
    return QNetwork(inputs, extractor, hidden, head)


def build_actor_critic(
    stored: StoredTensors,
    inputs: Inputs,
    shape: tuple[int, ...],
    settings: Settings,
    actions: int,
    limits: tuple[Tensor, Tensor] | None,
) -> ActorCritic:
    """Returns the policy of PPO or A2C.

    Args:
        stored: The tensors.
        inputs: The first stage.
        shape: The shape of what it hands on.
        settings: What the tensors do not say.
        actions: Number of discrete actions, or of continuous ones at a time.
        limits: The smallest and the largest continuous action.    (action_dim,) each
    """
    mlp = "mlp_extractor"
    shared: nn.Module = nn.Sequential()
    if stored.has("pi_features_extractor."):
        # Since 2023 a policy lists an extractor for each, the same where they share one.
        stored.ignore("features_extractor.")
        extractor, size = stored.extractor("pi_features_extractor", shape)
        value_extractor, value_size = stored.extractor("vf_features_extractor", shape)
        if _same(extractor, value_extractor):
            value_extractor = extractor
    else:
        extractor, size = stored.extractor("features_extractor", shape)
        shared, size = stored.hidden(f"{mlp}.shared_net", size, settings.activation)
        value_extractor, value_size = extractor, size
    hidden, size = stored.hidden(f"{mlp}.policy_net", size, settings.activation)
    value_hidden, value_size = stored.hidden(f"{mlp}.value_net", value_size, settings.activation)
    heads = (stored.linear("action_net", size, actions), stored.linear("value_net", value_size, 1))

    bounds, log_std = None, None
    if limits is not None:
        bounds = ActionBounds(*limits, squash=settings.squash)
        stored.ignore("sde_features_extractor.")
        if stored.has("log_std") and stored.tensors["log_std"].dim() == 2:
            stored.ignore("log_std")
        else:
            log_std = stored.take("log_std", (actions,))
    return ActorCritic(
        inputs, (extractor, value_extractor), shared, (hidden, value_hidden), heads, bounds, log_std
    )


def _same(one: nn.Module, other: nn.Module) -> bool:
    """Returns whether two extractors have the same weights: it is one that was written twice."""
    pairs = itertools.zip_longest(one.parameters(), other.parameters())
    return all(a is not None and b is not None and torch.equal(a, b) for a, b in pairs)


def build_squashed_actor(
    stored: StoredTensors,
    inputs: Inputs,
    shape: tuple[int, ...],
    settings: Settings,
    actions: int,
    limits: tuple[Tensor, Tensor],
) -> SquashedActor:
    """Returns the policy of SAC, TD3 or DDPG.

    Args:
        stored: The tensors.
        inputs: The first stage.
        shape: The shape of what it hands on.
        settings: What the tensors do not say.
        actions: Number of continuous actions at a time.
        limits: The smallest and the largest action.    (action_dim,) each
    """
    stored.ignore("critic.", "critic_target.", "actor_target.", "features_extractor.")
    extractor, size = stored.extractor("actor.features_extractor", shape)
    head: nn.Module
    if stored.algorithm == "SAC":
        # Exploration only; the last of them is that of old policies with layers of its own.
        stored.ignore("actor.log_std", "actor.sde_features_extractor.")
        hidden, size = stored.hidden("actor.latent_pi", size, settings.activation)
        if stored.has("actor.mu.0."):
            if not settings.clip_mean > 0:
                raise InputError(
                    f"{stored.path} does not fit itself: its clip_mean is {settings.clip_mean}, "
                    "but a bound above 0 would be right."
                )
            clip = nn.Hardtanh(-settings.clip_mean, settings.clip_mean)
            head = nn.Sequential(stored.linear("actor.mu.0", size, actions), clip)
        else:
            head = stored.linear("actor.mu", size, actions)
    else:
        hidden, size = stored.hidden("actor.mu", size, settings.activation, but_last=True)
        head = stored.linear(f"actor.mu.{len(hidden)}", size, actions)
    return SquashedActor(inputs, extractor, hidden, head, ActionBounds(*limits, squash=True))
