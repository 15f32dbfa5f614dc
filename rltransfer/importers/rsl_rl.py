"""Checkpoints of rsl_rl (`model_1500.pt`) as frozen policies; no code in a file is executed.

Three forms are read, all fully connected networks with or without a diagonal Gaussian:

- rsl_rl 4 and 5: `actor_state_dict` of an `OnPolicyRunner`, or `student_state_dict` of a
  `DistillationRunner`, with `mlp.N`, `obs_normalizer` and `distribution.std_param` or
  `distribution.log_std_param`;
- rsl_rl 3: `model_state_dict` with `actor.N` or `student.N`, `actor_obs_normalizer` and `std` or
  `log_std`;
- rsl_rl 1 and 2: the same, with the normaliser in a separate `obs_norm_state_dict`.

From a distillation checkpoint, the trained student is read.

A checkpoint contains neither the activation of its layers nor the names of the observation groups:
rsl_rl keeps both in its configuration. Set them as options unless they are rsl_rl's default `elu`
and the one group of a plain task. Scaling, offsetting and clipping actions is left to the
environment, as in rsl_rl.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError, unknown
from rltransfer.files.hashing import tensors_sha256
from rltransfer.importers.damage import DAMAGE, read_file
from rltransfer.importers.imported_policy import ImportedPolicy, mlp_of, shapes_of
from rltransfer.importers.saved_tensors import is_finite, load_tensors
from rltransfer.policies.linear import Linear
from rltransfer.policies.network import Network
from rltransfer.policies.output import EMPTY, Needs, PolicyOutput
from rltransfer.tasks.observation import DEFAULT_GROUP, Observation

EPSILON = 0.01
"""What rsl_rl adds to the standard deviation of an observation."""

LEAST_STD = 1e-6
"""The lower bound of rsl_rl on a standard deviation."""

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "crelu": nn.CELU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "identity": nn.Identity,
    "lrelu": nn.LeakyReLU,
    "mish": nn.Mish,
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}
"""The activations by their names in rsl_rl."""

EXPORT = (
    "load it where it was trained, and save its policy with torch.jit.save, or pass a function "
    "that calls it, as a CallableTeacher"
)
"""What works for other files of tensors."""

Tensors = dict[str, Tensor]


class RslRlActor(ImportedPolicy):
    """An actor of rsl_rl: normaliser, layers and standard deviation."""

    kind = "rsl_rl"

    mean: Tensor | None
    std: Tensor | None
    log_std: Tensor | None

    def __init__(
        self,
        layers: Sequence[nn.Linear],
        activation: type[nn.Module],
        normalizer: tuple[Tensor, Tensor] | None,
        log_std: Tensor | None,
        *,
        path: Path,
        sha256: str,
        groups: Sequence[str] = (DEFAULT_GROUP,),
    ) -> None:
        """Creates an actor from its parts.

        Args:
            layers: The linear layers.
            activation: The activation between them.
            normalizer: Mean and standard deviation of the observations.    (num_inputs,) each
            log_std: Log standard deviation of the actions, if any.           (num_actions,)
            path: The file.
            sha256: Hash of the file.
            groups: The observation groups that it reads, in order.
        """
        super().__init__(path, sha256, groups)
        self.num_inputs, self.num_actions = layers[0].in_features, layers[-1].out_features
        self.hidden = nn.Sequential(
            *(module for layer in layers[:-1] for module in (layer, activation()))
        )
        self.head = layers[-1]
        mean, std = normalizer or (None, None)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.register_buffer("log_std", log_std)

    def forward(self, observation: Observation, needs: Needs = EMPTY) -> PolicyOutput:
        """The mean, the log standard deviation, if any, and the last hidden layer.

        Args:
            observation: The groups.    (rows, ...)
            needs: See `Policy`.
        """
        seen = self.read(observation).flatten(1)
        if self.mean is not None and self.std is not None:
            seen = (seen - self.mean) / (self.std + EPSILON)
        features = self.hidden(seen)
        mean = self.head(features)
        log_std = None if self.log_std is None else self.log_std.expand_as(mean)
        return PolicyOutput(mean=mean, log_std=log_std, features=features)

    def architecture(self) -> Network | None:
        """The hidden layers of the actor."""
        return mlp_of(self.hidden)

    def preprocessing(self) -> dict[str, Any]:
        """The groups, and the statistics that normalise them, if any."""
        normalizer = None
        if self.mean is not None and self.std is not None:
            normalizer = {
                "kind": "mean and std",
                "epsilon": EPSILON,
                "sha256": tensors_sha256([self.mean, self.std]),
            }
        return {**super().preprocessing(), "normalizer": normalizer}

    def check_fit(self, task_id: str, shown: Observation | None) -> None:
        """Checks the size of observations and of actions."""
        assert self.observation_space is not None
        fits = (
            sum(map(math.prod, shapes_of(self.observation_space))) == self.num_inputs
            and isinstance(self.action_space, spaces.Box)
            and self.action_space.shape == (self.num_actions,)
        )
        if not fits:
            raise self.refusal(
                task_id,
                f"reads {self.num_inputs} values and outputs {self.num_actions} action dimensions",
            )


def load_rsl_rl(
    path: Path, activation: str = "elu", groups: Sequence[str] = (DEFAULT_GROUP,)
) -> RslRlActor:
    """The actor of a checkpoint, frozen.

    Args:
        path: The file that a runner of rsl_rl saved.
        activation: The activation between the layers, as rsl_rl calls it.
        groups: The observation groups that it reads, in the order of rsl_rl's configuration.

    Raises:
        InputError: The file is missing or damaged, contains more than tensors and plain values, or
            has no fully connected actor; or the activation is unknown.
    """
    if activation not in ACTIVATIONS:
        raise unknown("activation of rsl_rl", activation, ACTIVATIONS)
    content = read_file(path, "an rsl_rl checkpoint")
    stored = _stored(_opened(content, path), path)
    for name, tensor in stored.items():
        if not is_finite(tensor):
            raise InputError(f"{path} cannot be used: its tensor {name!r} is not finite.")
    layers = _layers(_below(stored, "mlp."), path)
    actor = RslRlActor(
        layers,
        ACTIVATIONS[activation],
        _normalizer(_below(stored, "obs_normalizer."), layers[0].in_features, path),
        _log_std(stored, layers[-1].out_features, path),
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        groups=groups,
    )
    return actor.eval().requires_grad_(False)


def _opened(content: bytes, path: Path) -> dict[str, Any]:
    try:
        saved = load_tensors(content, path)
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(
            f"{path} is not an rsl_rl checkpoint: it is damaged, or contains more than tensors and "
            f"plain values; {EXPORT}."
        ) from error
    if not isinstance(saved, dict):
        raise InputError(f"{path} is not an rsl_rl checkpoint: it does not contain a dictionary.")
    return saved


def _stored(saved: Mapping[str, Any], path: Path) -> Tensors:
    """The tensors of the actor in a checkpoint, by their names in rsl_rl 4 and 5."""
    for name in ("student_state_dict", "actor_state_dict"):
        if name in saved:
            tensors = _table(saved[name], path)
            _refuse_others(tensors, ("mlp.", "obs_normalizer.", "distribution."), path)
            return tensors
    if "model_state_dict" not in saved:
        raise InputError(f"{path} {_seems(saved)}: {EXPORT}.")
    tensors = _table(saved["model_state_dict"], path)
    network = "student" if any(name.startswith("student.") for name in tensors) else "actor"
    renamed = {
        f"{network}.": "mlp.",
        f"{network}_obs_normalizer.": "obs_normalizer.",
        "std": "distribution.std_param",
        "log_std": "distribution.log_std_param",
    }
    unused = ("critic.", "critic_obs_normalizer.", "teacher.", "teacher_obs_normalizer.")
    _refuse_others(tensors, (*renamed, *unused), path)
    separate = saved.get("obs_norm_state_dict")
    if separate:
        tensors |= {
            f"{network}_obs_normalizer.{name}": tensor
            for name, tensor in _table(separate, path).items()
        }
    return {
        new + name: tensor
        for old, new in renamed.items()
        for name, tensor in _below(tensors, old).items()
    }


def _seems(saved: Mapping[str, Any]) -> str:
    """What a file that is not of rsl_rl seems to be, as a predicate."""
    if saved and all(isinstance(value, Tensor) for value in saved.values()):
        return "is a plain state_dict, which does not tell how its layers are connected"
    tables = {str(name) for name, value in saved.items() if isinstance(value, Mapping)}
    if "policy" in tables and tables & {"value", "state_preprocessor", "critic_1", "target_policy"}:
        return "seems to be a checkpoint of skrl, which does not tell how its layers are connected"
    return (
        "is not an rsl_rl checkpoint, as it contains neither 'actor_state_dict' nor "
        "'model_state_dict'"
    )


def _table(value: object, path: Path) -> Tensors:
    """The tensors of a dictionary. The normaliser of rsl_rl 1 and 2 also contains a number."""
    if not isinstance(value, dict):
        raise InputError(f"{path} cannot be read: an entry is not a dictionary of tensors.")
    return {
        str(name): part
        for name, part in value.items()
        if isinstance(part, Tensor) and part.layout == torch.strided
    }


def _below(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors whose names begin with a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _refuse_others(tensors: Tensors, prefixes: tuple[str, ...], path: Path) -> None:
    """Refuses a network with more than linear layers: recurrence, convolutions, an encoder."""
    for name in tensors:
        if not name.startswith(prefixes):
            raise InputError(
                f"{path} cannot be read: it contains {name!r}, but only fully connected actors "
                "without recurrence can be read. Use the file that rsl_rl's `export_policy_to_jit` "
                "writes."
            )


def _layers(stored: Tensors, path: Path) -> list[nn.Linear]:
    """The linear layers, which have every second index."""
    layers: list[nn.Linear] = []
    for place in range(0, len(stored), 2):
        weight, bias = stored.get(f"{place}.weight"), stored.get(f"{place}.bias")
        if weight is None or bias is None or weight.dim() != 2 or bias.shape != weight.shape[:1]:
            raise InputError(f"{path} cannot be read: its actor does not consist of linear layers.")
        linear = Linear(weight.shape[1], weight.shape[0], device="meta")
        linear.weight, linear.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())
        layers.append(linear)
    fit = all(a.out_features == b.in_features for a, b in itertools.pairwise(layers))
    if not layers or not fit:
        raise InputError(f"{path} cannot be read: the sizes of its layers do not match.")
    return layers


def _normalizer(stored: Tensors, num_inputs: int, path: Path) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of the observations.    (num_inputs,) each"""
    if not stored:
        return None
    mean, std = stored.get("_mean"), stored.get("_std")
    if mean is None or std is None or not mean.numel() == std.numel() == num_inputs:
        raise InputError(
            f"{path} cannot be read: its normaliser does not contain a mean and a standard "
            f"deviation of the {num_inputs} values that its actor reads."
        )
    return mean.float().flatten(), std.float().flatten()


def _log_std(stored: Tensors, num_actions: int, path: Path) -> Tensor | None:
    """The log standard deviation of the actions, if any.    (num_actions,)"""
    log_std, std = (stored.get(f"distribution.{name}_param") for name in ("log_std", "std"))
    if std is not None:
        log_std = std.clamp(min=LEAST_STD).log()
    if log_std is not None and log_std.shape != (num_actions,):
        raise InputError(
            f"{path} cannot be read: it contains {log_std.numel()} standard deviations for "
            f"{num_actions} action dimensions."
        )
    return log_std
