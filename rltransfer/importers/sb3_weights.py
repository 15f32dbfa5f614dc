"""Stable-Baselines3's networks, built from the tensors of a zip.

The names and shapes of the tensors determine the networks. Tensors that no network uses are
refused.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.memory import Memory, read_memory
from rltransfer.importers.saved_tensors import is_finite
from rltransfer.importers.sb3_networks import (
    ActorCritic,
    BatchRenorm,
    BestAction,
    DiagonalStd,
    LayerStd,
    SingleHead,
    StateDependentStd,
)
from rltransfer.importers.sb3_recurrent import RecurrentActorCritic
from rltransfer.importers.sb3_settings import (
    ON_POLICY,
    POLICIES,
    USUAL_POLICIES,
    Settings,
)
from rltransfer.policies.linear import Linear

NATURE_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Channels, kernel size and stride of the three convolutions.

Source: Mnih et al. 2015, Methods, "Model architecture".
"""

Q_NETWORKS = {"DQN": "q_net", "QR-DQN": "quantile_net"}
"""The name of the network of those algorithms that output Q-values."""


class StoredTensors:
    """The tensors of a zip, taken one by one and checked against the previous layer."""

    def __init__(self, tensors: Mapping[str, Tensor], settings: Settings, path: Path) -> None:
        self.tensors = tensors
        self.settings = settings
        self.algorithm = settings.algorithm
        self.path = path
        self.left = set(tensors)

    def take(self, name: str, shape: tuple[int | None, ...]) -> Tensor:
        """A tensor as float32.

        Args:
            name: The name of the tensor.
            shape: The shape of the tensor; None for any length.

        Raises:
            InputError: The tensor is missing, has another shape or is not finite.
        """
        tensor = self.tensors.get(name)
        if tensor is None:
            raise InputError(
                f"{self.path} does not contain the tensor {name!r}, which {self.algorithm} needs."
            )
        fits = len(shape) == tensor.dim() and all(
            wanted in (None, length) for wanted, length in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if length is None else str(length) for length in shape)
            raise InputError(
                f"{self.path} is inconsistent: its tensor {name!r} has the shape "
                f"{list(tensor.shape)}, but must have [{wanted}]."
            )
        if not is_finite(tensor):
            raise InputError(f"{self.path} cannot be used: its tensor {name!r} is not finite.")
        self.left.discard(name)
        return tensor.float()

    def has(self, prefix: str) -> bool:
        """Whether the name of any tensor begins with a prefix."""
        return any(name.startswith(prefix) for name in self.tensors)

    def ignore(self, *prefixes: str) -> None:
        """Skips tensors that acting does not need: targets, critics, exploration."""
        self.left = {name for name in self.left if not name.startswith(prefixes)}

    def check_all_taken(self) -> None:
        """Checks that every tensor was used.

        Raises:
            InputError: One was not, so the policy is of another kind.
        """
        if self.left:
            *others, last = POLICIES.get(self.algorithm, USUAL_POLICIES)
            policies = f"{', '.join(others)} or {last}" if others else last
            raise InputError(
                f"{self.path} contains the tensor {min(self.left)!r}, which no {policies} of "
                f"{self.algorithm} has: other policies cannot be read."
            )

    def memory(self, prefix: str, inputs: int) -> Memory:
        """The layers of an LSTM."""
        memory = read_memory(dict(self.tensors), prefix, self.path, inputs, ("LSTM",))
        self.ignore(prefix)
        return memory

    def linear(
        self, name: str, inputs: int, outputs: int | None = None, bias: bool = True
    ) -> nn.Linear:
        """A fully connected layer."""
        weight = self.take(f"{name}.weight", (outputs, inputs))
        layer = Linear(inputs, len(weight), bias=bias, device="meta")
        layer.weight = nn.Parameter(weight)
        if bias:
            layer.bias = nn.Parameter(self.take(f"{name}.bias", (len(weight),)))
        return layer

    def mean_of_quantiles(self, name: str, inputs: int, actions: int) -> nn.Linear:
        """A layer whose outputs are the Q-values of QR-DQN: the mean over each action's quantiles.

        The mean of linear functions is the linear function of the mean weights, so it is taken
        here, once.

        Source: Dabney 2017 (arXiv 1710.10044), algorithm 1.

        Args:
            name: The layer that outputs the quantiles, quantile by quantile.
            inputs: Number of inputs.
            actions: Number of actions.
        """
        count = self.settings.n_quantiles
        quantiles = self.linear(name, inputs, count * actions)
        layer = Linear(inputs, actions, device="meta")
        layer.weight = nn.Parameter(quantiles.weight.detach().view(count, actions, -1).mean(0))
        layer.bias = nn.Parameter(quantiles.bias.detach().view(count, actions).mean(0))
        return layer

    def hidden(
        self, prefix: str, inputs: int, but_last: bool = False, bias: bool = True
    ) -> tuple[nn.Sequential, int]:
        """Fully connected layers with an activation after each, and their number of outputs.

        Args:
            prefix: The beginning of the names.
            inputs: Number of inputs of the first layer.
            but_last: Whether to leave out the last layer, which is the head.
            bias: Whether the layers have biases.
        """
        pattern = re.compile(rf"{re.escape(prefix)}\.(\d{{1,4}})\.weight")
        found = sorted(int(match[1]) for name in self.tensors if (match := pattern.fullmatch(name)))
        layers: list[nn.Module] = []
        # Every second index is an activation. Any other spacing is refused as a missing tensor.
        for index in range(0, 2 * (len(found) - but_last), 2):
            layer = self.linear(f"{prefix}.{index}", inputs, bias=bias)
            layers += [layer, self.settings.activation()]
            inputs = layer.out_features
        return nn.Sequential(*layers), inputs

    def renormalized(self, prefix: str, inputs: int) -> tuple[nn.Sequential, int]:
        """The hidden layers of CrossQ, each between two batch renormalisations; see `hidden`."""
        layers: list[nn.Module] = []
        index = 0
        while self.has(f"{prefix}.{index + 1}."):
            layer = self.linear(f"{prefix}.{index + 1}", inputs)
            layers += [self._renorm(f"{prefix}.{index}", inputs), layer, self.settings.activation()]
            inputs = layer.out_features
            index += 3
        return nn.Sequential(*layers, self._renorm(f"{prefix}.{index}", inputs)), inputs

    def _renorm(self, name: str, size: int) -> BatchRenorm:
        mean, variance, scale, bias = (
            self.take(f"{name}.{part}", (size,)) for part in ("ra_mean", "ra_var", "scale", "bias")
        )
        self.left.discard(f"{name}.steps")
        if bool((variance < 0).any()):
            raise InputError(
                f"{self.path} cannot be used: its tensor '{name}.ra_var' contains a negative "
                "variance."
            )
        return BatchRenorm(mean, variance, scale, bias, self.settings.renorm_epsilon)

    def extractor(self, prefix: str, shape: tuple[int, ...]) -> tuple[nn.Module, int]:
        """Convolutions, or flattening where there are none, and their number of outputs.

        Args:
            prefix: The beginning of the names.
            shape: The shape of an input.
        """
        if not self.has(f"{prefix}.cnn."):
            return nn.Flatten(), math.prod(shape)
        if len(shape) != 3:
            raise InputError(
                f"{self.path} is inconsistent: it has convolutions, but its observations have the "
                f"shape {list(shape)} and not [channels, height, width]."
            )
        channels, height, width = shape
        layers: list[nn.Module] = []
        for index, (outputs, kernel, stride) in enumerate(NATURE_LAYERS):
            name = f"{prefix}.cnn.{2 * index}"
            layer = nn.Conv2d(channels, outputs, kernel, stride, device="meta")
            weight = self.take(f"{name}.weight", (outputs, channels, kernel, kernel))
            layer.weight = nn.Parameter(weight)
            layer.bias = nn.Parameter(self.take(f"{name}.bias", (outputs,)))
            layers += [layer, nn.ReLU()]
            channels = outputs
            height, width = ((size - kernel) // stride + 1 for size in (height, width))
        linear = self.linear(f"{prefix}.linear.0", channels * max(height, 0) * max(width, 0))
        return nn.Sequential(*layers, nn.Flatten(), linear, nn.ReLU()), linear.out_features


def build_network(
    stored: StoredTensors, shape: tuple[int, ...], actions: int, discrete: bool
) -> ActorCritic | RecurrentActorCritic | SingleHead:
    """The network of a policy, before the action bounds.

    Args:
        stored: The tensors.
        shape: The shape of the inputs.
        actions: Number of discrete actions or of action dimensions.
        discrete: Whether actions are discrete.
    """
    network: ActorCritic | RecurrentActorCritic | SingleHead
    if stored.algorithm == "RecurrentPPO":
        network = _recurrent(stored, shape, actions, discrete)
    elif stored.algorithm in ON_POLICY:
        network = _actor_critic(stored, shape, actions, discrete)
    elif stored.algorithm == "ARS":
        network = _search(stored, shape, actions, discrete)
    else:
        network = _single_head(stored, shape, actions)
    stored.check_all_taken()
    return network


def _actor_critic(
    stored: StoredTensors, shape: tuple[int, ...], actions: int, discrete: bool
) -> ActorCritic:
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
        shared, size = stored.hidden(f"{mlp}.shared_net", size)
        value_extractor, value_size = extractor, size
    hidden, size = stored.hidden(f"{mlp}.policy_net", size)
    value_hidden, value_size = stored.hidden(f"{mlp}.value_net", value_size)
    heads = (stored.linear("action_net", size, actions), stored.linear("value_net", value_size, 1))
    log_std = None if discrete else _log_std(stored, "", size, actions)
    extractors = (extractor, value_extractor)
    return ActorCritic(extractors, shared, (hidden, value_hidden), heads, log_std, discrete)


def _recurrent(
    stored: StoredTensors, shape: tuple[int, ...], actions: int, discrete: bool
) -> RecurrentActorCritic:
    """The policy of RecurrentPPO.

    The tensors tell what the critic reads: an LSTM of its own (`lstm_critic`), a layer (`critic`),
    or the LSTM of the actor.
    """
    mlp, prefix = "mlp_extractor", "features_extractor"
    if stored.has("pi_features_extractor."):
        stored.ignore("features_extractor.")
        prefix = "pi_features_extractor"
    extractor, size = stored.extractor(prefix, shape)
    memory = stored.memory("lstm_actor.", size)
    shared, size = stored.hidden(f"{mlp}.shared_net", memory.num_features)
    hidden, features = stored.hidden(f"{mlp}.policy_net", size)
    network = RecurrentActorCritic(
        extractor, memory, nn.Sequential(*shared, *hidden),
        stored.linear("action_net", features, actions),
        None if discrete else _log_std(stored, "", features, actions), discrete,
    )  # fmt: skip
    if stored.has("lstm_critic."):
        stored.ignore("lstm_critic.", f"{mlp}.value_net.", "value_net.", "vf_features_extractor.")
        return network
    value_inputs = memory.num_inputs
    if stored.has("vf_features_extractor."):
        network.value_extractor, value_inputs = stored.extractor("vf_features_extractor", shape)
        if _same(network.value_extractor, extractor):
            network.value_extractor = extractor
    if stored.has("critic."):
        network.value_layer = stored.linear("critic", value_inputs, memory.num_features)
    value_hidden, size = stored.hidden(f"{mlp}.value_net", size)
    network.value_hidden = nn.Sequential(*shared, *value_hidden)
    network.value_head = stored.linear("value_net", size, 1)
    return network


def _log_std(stored: StoredTensors, prefix: str, size: int, actions: int) -> nn.Module | None:
    """From the last hidden layer to the log standard deviation; None where it is not known.

    Old policies with gSDE may have separate layers for it, which are not read.

    Args:
        stored: The tensors.
        prefix: The beginning of the names.
        size: Number of features.
        actions: Number of action dimensions.
    """
    name, layers = f"{prefix}log_std", f"{prefix}sde_features_extractor."
    if stored.has(layers) or stored.settings.separate_sde:
        stored.ignore(layers, name)
        return None
    if stored.has(f"{name}."):
        return LayerStd(stored.linear(name, size, actions))
    if name not in stored.tensors or stored.tensors[name].dim() != 2:
        return DiagonalStd(stored.take(name, (actions,)))
    columns = 1 if stored.tensors[name].shape[1] == 1 else actions
    return StateDependentStd(stored.take(name, (size, columns)), stored.settings.expln)


def _same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two extractors have the same weights, so that they are one that was saved twice."""
    pairs = itertools.zip_longest(one.parameters(), other.parameters())
    return all(a is not None and b is not None and torch.equal(a, b) for a, b in pairs)


def _single_head(stored: StoredTensors, shape: tuple[int, ...], actions: int) -> SingleHead:
    """The policy of DQN or QR-DQN, or the actor of CrossQ, SAC, TQC, TD3 or DDPG."""
    is_q = stored.algorithm in Q_NETWORKS
    network = Q_NETWORKS.get(stored.algorithm, "actor")
    layers = f"{network}.{network}" if is_q else "actor.mu"
    # Target networks and critics, and the extractor that old policies list a second time.
    unused = (f"{network}_target.",) if is_q else ("critic.", "critic_target.", "actor_target.")
    stored.ignore("features_extractor.", *unused)
    extractor, size = stored.extractor(f"{network}.features_extractor", shape)
    if stored.algorithm in ("CrossQ", "SAC", "TQC"):
        # CrossQ with `batch_norm=False` has an activation here, and without hidden layers nothing.
        renorm = stored.algorithm == "CrossQ" and stored.has("actor.latent_pi.1.")
        layers_of = stored.renormalized if renorm else stored.hidden
        hidden, size = layers_of("actor.latent_pi", size)
        log_std = _log_std(stored, "actor.", size, actions)
        if not stored.has("actor.mu.0."):
            mean = stored.linear(layers, size, actions)
            return SingleHead(extractor, hidden, mean, "mean", log_std)
        clip = stored.settings.clip_mean
        if not clip > 0:
            raise InputError(
                f"{stored.path} is inconsistent: its clip_mean is {clip}, but must be above 0."
            )
        head = nn.Sequential(stored.linear(f"{layers}.0", size, actions), nn.Hardtanh(-clip, clip))
        return SingleHead(extractor, hidden, head, "mean", log_std)
    hidden, size = stored.hidden(layers, size, but_last=True)
    layer = stored.mean_of_quantiles if stored.algorithm == "QR-DQN" else stored.linear
    last = layer(f"{layers}.{len(hidden)}", size, actions)
    return SingleHead(extractor, hidden, last, "q_values" if is_q else "mean")


def _search(
    stored: StoredTensors, shape: tuple[int, ...], actions: int, discrete: bool
) -> SingleHead:
    """The policy of ARS: all layers have biases, or none has."""
    name, size = "action_net", math.prod(shape)
    bias = any(key.endswith(".bias") for key in stored.tensors)
    hidden = nn.Sequential()
    if f"{name}.weight" not in stored.tensors:
        hidden, size = stored.hidden(name, size, but_last=True, bias=bias)
        name = f"{name}.{len(hidden)}"
    # Else a linear policy of an old version: a layer without a number.
    head = stored.linear(name, size, actions, bias)
    if discrete:
        return SingleHead(nn.Flatten(), hidden, BestAction(head), "logits")
    return SingleHead(nn.Flatten(), hidden, head, "mean")
