"""Checkpoints of skrl (`best_agent.pt`, `agent_10000.pt`) as frozen policies.

An agent of skrl saves a dictionary of state_dicts by the names of its modules. Read are `policy`
and the statistics that normalise its observations. Checked against the sources of skrl 2.1.1:

- the model instantiators name the layers `net_container.N` (`NAME_container.N` for a network that
  a configuration calls NAME). The last layer is the container's, or `policy_layer` in a model that
  policy and value share; models after skrl's examples have `net.N` and `mean_layer`;
- `log_std_parameter` is the log standard deviation, which a Gaussian model clips to [-20, 2];
- a `RunningStandardScaler` outputs (x - mean) / (sqrt(variance) + 1e-8), clipped to [-5, 5]. It is
  the `observation_preprocessor`, called `state_preprocessor` before skrl 2.

A checkpoint contains no activation: the option `activation` is needed. It does not show other
settings either. Those read here have their defaults: the limits of scaler and log standard
deviation, and the output of the last layer as it is (`output: ACTIONS`, without a tanh, and actions
that the environment clips).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from rltransfer.errors import InputError
from rltransfer.importers.activations import required_activation
from rltransfer.importers.linear_layers import (
    Normalizer,
    chain,
    hidden_layers,
    running_variance,
    take,
)
from rltransfer.importers.network_policy import HeadOutput, NetworkPolicy
from rltransfer.importers.saved_file import EXPORT, SavedFile, Tensors, table
from rltransfer.importers.sb3_networks import DiagonalStd, SingleHead
from rltransfer.tasks.observation import DEFAULT_GROUP

EPSILON, LIMIT = 1e-8, 5.0
"""What a RunningStandardScaler adds to the standard deviation, and its largest output."""

LOG_STD = (-20.0, 2.0)
"""Bounds of a Gaussian model on the log standard deviation."""

CONTAINED = re.compile(r"(?P<container>net|[A-Za-z0-9_]+_container)\.(?P<number>[0-9]{1,4})\.\w+")
"""The name of a tensor of a hidden layer."""

HEADS = ("policy_layer", "mean_layer", "output_layer")
"""The names of the last layer, where it is outside of the container."""

STATISTICS = ("observation_preprocessor", "state_preprocessor")
"""The names of the scaler of observations, that of skrl 2 first."""


class SkrlPolicy(NetworkPolicy):
    """The policy of an agent of skrl."""

    kind = "skrl"


def is_skrl(saved: SavedFile) -> bool:
    """Whether a file seems to be a checkpoint of skrl."""
    value = saved.value
    return isinstance(value, Mapping) and isinstance(value.get("policy"), Mapping)


def read_skrl(
    saved: SavedFile, activation: str | None = None, groups: Sequence[str] = (DEFAULT_GROUP,)
) -> SkrlPolicy:
    """The policy of a checkpoint, frozen.

    Args:
        saved: The open file.
        activation: The activation after each hidden layer.
        groups: The observation groups that it reads, in order.

    Raises:
        InputError: The network is not fully connected, or the activation is missing or unknown.
    """
    path = saved.path
    tensors = table(saved.value["policy"], path)
    layers = chain(tensors, _names(tensors, path), path)
    num_inputs, num_actions = layers[0].in_features, layers[-1].out_features
    kind = required_activation(activation, path, "a checkpoint of skrl")
    log_std = None
    if "log_std_parameter" in tensors:
        std = take(tensors, "log_std_parameter", path, num_actions)
        log_std = DiagonalStd(std.flatten().clamp(*LOG_STD))
    # Of discrete actions, the output is logits. Without a standard deviation, the task decides.
    output: HeadOutput | None = None if log_std is None else "mean"
    network = SingleHead(
        nn.Flatten(), hidden_layers(layers[:-1], kind), layers[-1], "mean", log_std
    )
    normalizer = _normalizer(saved, num_inputs)
    policy = SkrlPolicy(network, num_inputs, num_actions, output, saved, groups, normalizer)
    return policy.eval().requires_grad_(False)


def _names(tensors: Tensors, path: Path) -> list[str]:
    """The names of the layers, in order."""
    found: dict[str, set[int]] = {}
    heads = [name for name in HEADS if f"{name}.weight" in tensors]
    for name in tensors:
        match = CONTAINED.fullmatch(name)
        if match is not None:
            found.setdefault(match["container"], set()).add(int(match["number"]))
        elif name != "log_std_parameter" and name.rpartition(".")[0] not in (*HEADS, "value_layer"):
            raise InputError(
                f"{path} seems to be a checkpoint of skrl, but its tensor {name!r} is not one of a "
                f"fully connected network of skrl's model instantiators: {EXPORT}."
            )
    if len(found) != 1 or len(heads) > 1:
        raise InputError(
            f"{path} seems to be a checkpoint of skrl, but its policy does not consist of a single "
            f"container of layers and one head: {EXPORT}."
        )
    ((container, numbers),) = found.items()
    first = min(numbers)  # 1 after a Flatten
    if first > 1 or numbers != set(range(first, first + 2 * len(numbers), 2)):
        raise InputError(
            f"{path} seems to be a checkpoint of skrl, but the layers of its {container!r} are not "
            f"linear ones with an activation after each: {EXPORT}."
        )
    return [*(f"{container}.{number}" for number in sorted(numbers)), *heads]


def _normalizer(saved: SavedFile, num_inputs: int) -> Normalizer | None:
    """The scaler of the observations, if any."""
    name = next((name for name in STATISTICS if name in saved.value), None)
    if name is None:
        return None
    tensors = table(saved.value[name], saved.path)
    for part in ("running_mean", "running_variance"):
        if part not in tensors or tensors[part].numel() != num_inputs:
            raise InputError(
                f"{saved.path} cannot be read: its {name!r} does not contain a {part!r} of the "
                f"{num_inputs} values that its policy reads."
            )
    mean = take(tensors, "running_mean", saved.path).flatten()
    variance = running_variance(tensors, "running_variance", num_inputs, saved.path)
    return Normalizer(mean, variance.sqrt(), EPSILON, LIMIT)
