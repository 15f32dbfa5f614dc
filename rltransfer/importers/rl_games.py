"""Checkpoints of rl_games (`nn/Ant.pth`) as frozen policies: the actors of its PPO.

Checked against the sources of rl_games 1.6.5 (`network_builder.A2CBuilder`, `models`,
`running_mean_std`, `players`). The entry `model` contains

- `a2c_network.actor_mlp.N`, with an activation after each layer, and the head `a2c_network.mu` or,
  for discrete actions, `a2c_network.logits`;
- `a2c_network.sigma`, the log standard deviation: a tensor, or a layer (`fixed_sigma: False`). It
  is one in the model `continuous_a2c_logstd`, which all configurations of rl_games use but one;
- `running_mean_std`: (x - mean) / sqrt(variance + 1e-5), clipped to [-5, 5]. Early versions save it
  next to `model`.

A checkpoint does not contain two settings. The option `activation` is always needed. rl_games
clips actions to [-1, 1] and scales them to the bounds of the task, unless its configuration has
`clip_actions: False`: the option `clip_actions=true` or `false` is needed where the bounds of a
task are others than [-1, 1]. A task without bounds gets the actions as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError, unknown
from rltransfer.importers.activations import required_activation
from rltransfer.importers.linear_layers import (
    Normalizer,
    chain,
    hidden_layers,
    indexed,
    linear,
    running_variance,
    take,
)
from rltransfer.importers.network_policy import HeadOutput, NetworkPolicy
from rltransfer.importers.saved_file import EXPORT, SavedFile, Tensors, below, keys_of, table
from rltransfer.importers.sb3_networks import DiagonalStd, SingleHead
from rltransfer.policies.output import PolicyOutput
from rltransfer.tasks.action import bounded_dimensions
from rltransfer.tasks.observation import DEFAULT_GROUP, Observation
from rltransfer.tasks.suite_spaces import describe_bounds

EPSILON, LIMIT = 1e-5, 5.0
"""What a running mean and standard deviation adds to the variance, and its largest output."""

ACTOR = "a2c_network."

UNUSED = ("value.", "value_act.", "critic_mlp.")
"""The beginnings of the names of tensors that acting does not need."""

CLIP = {"true": True, "false": False}
"""The values of the option `clip_actions`."""


class Scale(nn.Module):
    """Scales a Gaussian from [-1, 1] to bounds, to which its actions are clipped."""

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        """Creates it.

        Args:
            low: The smallest action.    (action_dim,)
            high: The largest action.    (action_dim,)
        """
        super().__init__()
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, output: PolicyOutput) -> None:
        """Turns the output of the layers into actions in the units of the environment.

        Args:
            output: With a mean and a log standard deviation.
        """
        half, center = (self.high - self.low) / 2, (self.high + self.low) / 2
        assert output.mean is not None and output.log_std is not None
        output.mean = output.mean * half + center
        output.log_std = output.log_std + half.clamp(min=torch.finfo(half.dtype).tiny).log()
        output.low, output.high = self.low.expand_as(output.mean), self.high.expand_as(output.mean)


class LayerLogStd(nn.Module):
    """A log standard deviation from a layer, without bounds."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        """The log standard deviation.    (rows, action_dim)

        Args:
            features: The last hidden layer.    (rows, num_features)
        """
        log_std: Tensor = self.layer(features)
        return log_std


class RlGamesActor(NetworkPolicy):
    """An actor of rl_games."""

    kind = "rl_games"
    bounds_of_task = True
    clip_actions: bool | None = None
    """Whether actions are clipped and scaled; None if nothing tells."""

    def check_fit(self, task_id: str, shown: Observation | None) -> None:
        """Checks both spaces, and takes the bounds to which actions are scaled."""
        super().check_fit(task_id, shown)
        actions = self.action_space
        if not isinstance(actions, spaces.Box) or self.clip_actions is False:
            return
        if not bounded_dimensions(actions).all():
            if self.clip_actions:
                raise InputError(
                    f"The teacher {self.path} cannot scale its actions to those of the task "
                    f"{task_id!r}, which have no bounds: set clip_actions=false."
                )
            return
        if self.clip_actions is None and not (
            np.all(actions.low == -1) and np.all(actions.high == 1)
        ):
            raise InputError(
                f"The teacher {self.path} does not contain its setting `clip_actions`, which is "
                f"needed as the task {task_id!r} has actions in {describe_bounds(actions)}: add "
                "`clip_actions=true` to its options to scale actions from [-1, 1] to these "
                "bounds, as rl_games does by default, or clip_actions=false."
            )
        self.bounds = Scale(*self.bounds_in(actions))

    def preprocessing(self) -> dict[str, Any]:
        """The groups, the statistics, and the setting of actions."""
        return {**super().preprocessing(), "clip_actions": self.clip_actions}


def is_rl_games(saved: SavedFile) -> bool:
    """Whether a file is a checkpoint of rl_games."""
    value = saved.value
    model = value.get("model") if isinstance(value, Mapping) else None
    return any(ACTOR in name for name in keys_of(model))


def read_rl_games(
    saved: SavedFile,
    activation: str | None = None,
    clip_actions: str | None = None,
    groups: Sequence[str] = (DEFAULT_GROUP,),
) -> RlGamesActor:
    """The actor of a checkpoint, frozen.

    Args:
        saved: The open file.
        activation: The activation after each hidden layer.
        clip_actions: "true" or "false", as in rl_games' configuration.
        groups: The observation groups that it reads, in order.

    Raises:
        InputError: The network is not fully connected, or an option is missing or not valid.
    """
    path = saved.path
    if clip_actions is not None and clip_actions not in CLIP:
        raise unknown("value of clip_actions", clip_actions, CLIP)
    model = table(saved.value["model"], path)
    tensors = below(model, ACTOR)
    hidden, head = indexed(tensors, "actor_mlp.", path), _head(tensors, path)
    layers = chain(tensors, [*hidden, head], path)
    num_inputs, num_actions = layers[0].in_features, layers[-1].out_features
    kind = required_activation(
        activation,
        path,
        "a checkpoint of rl_games",
        "; most of rl_games' configurations of continuous actions have elu",
    )
    output: HeadOutput = "mean" if head == "mu" else "logits"
    log_std: DiagonalStd | LayerLogStd | None = None
    if "sigma.weight" in tensors:
        chain(tensors, [*hidden[-1:], "sigma"], path)
        log_std = LayerLogStd(linear(tensors, "sigma", path))
        if log_std.layer.out_features != num_actions:
            raise InputError(f"{path} cannot be read: the sizes of its layers do not match.")
    elif output == "mean":
        log_std = DiagonalStd(take(tensors, "sigma", path, num_actions).flatten())
    hidden_part = hidden_layers(layers[:-1], kind)
    network = SingleHead(nn.Flatten(), hidden_part, layers[-1], output, log_std)
    normalizer = _normalizer(saved, model, num_inputs)
    policy = RlGamesActor(network, num_inputs, num_actions, output, saved, groups, normalizer)
    policy.clip_actions = None if clip_actions is None else CLIP[clip_actions]
    return policy.eval().requires_grad_(False)


def _head(tensors: Tensors, path: Path) -> str:
    """The name of the last layer: of continuous or of discrete actions."""
    known = ("actor_mlp.", "mu.", "logits.weight", "logits.bias", "sigma", *UNUSED)
    for name in tensors:
        if not name.startswith(known):
            raise InputError(
                f"{path} seems to be a checkpoint of rl_games, but it contains {ACTOR + name!r}, "
                "and only fully connected actors without recurrence and with one discrete or "
                f"continuous action can be read: {EXPORT}."
            )
    return "mu" if "mu.weight" in tensors else "logits"


def _normalizer(saved: SavedFile, model: Tensors, num_inputs: int) -> Normalizer | None:
    """The statistics of the observations, if any."""
    tensors = below(model, "running_mean_std.")
    separate = saved.value.get("running_mean_std")
    if separate:
        tensors = table(separate, saved.path)
    if not tensors:
        return None
    for name in ("running_mean", "running_var"):
        if name not in tensors or tensors[name].numel() != num_inputs:
            raise InputError(
                f"{saved.path} cannot be read: its 'running_mean_std' does not contain a {name!r} "
                f"of the {num_inputs} values that its actor reads."
            )
    mean = take(tensors, "running_mean", saved.path).flatten()
    variance = running_variance(tensors, "running_var", num_inputs, saved.path)
    return Normalizer(mean, (variance + EPSILON).sqrt(), 0.0, LIMIT)
