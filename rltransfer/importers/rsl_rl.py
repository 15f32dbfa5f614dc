"""Checkpoints of rsl_rl (`model_1500.pt`) as frozen policies; no code in a file is executed.

Three forms are read, all fully connected networks, also after an LSTM or GRU, with or without a
diagonal Gaussian:

- rsl_rl 4 and 5: `actor_state_dict` of an `OnPolicyRunner`, or `student_state_dict` of a
  `DistillationRunner`, with `mlp.N`, `rnn.rnn`, `obs_normalizer` and `distribution.std_param` or
  `distribution.log_std_param`;
- rsl_rl 3: `model_state_dict` with `actor.N` or `student.N`, `memory_a.rnn` or `memory_s.rnn`,
  `actor_obs_normalizer` and `std` or `log_std`;
- rsl_rl 1 and 2: the same, with the normaliser in a separate `obs_norm_state_dict`.

From a distillation checkpoint, the trained student is read.

A checkpoint contains neither the activation of its layers nor the names of the observation groups:
rsl_rl keeps both in its configuration. Set them as options unless they are rsl_rl's default `elu`
and the one group of a plain task. Scaling, offsetting and clipping actions is left to the
environment, as in rsl_rl.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rltransfer.errors import InputError, unknown
from rltransfer.importers.activations import ACTIVATIONS
from rltransfer.importers.linear_layers import Normalizer, chain, hidden_layers
from rltransfer.importers.memory import read_memory
from rltransfer.importers.network_policy import NetworkPolicy
from rltransfer.importers.saved_file import (
    EXPORT,
    SavedFile,
    Tensors,
    below,
    keys_of,
    open_saved,
    table,
)
from rltransfer.importers.saved_tensors import is_finite
from rltransfer.importers.sb3_networks import DiagonalStd, SingleHead
from rltransfer.tasks.observation import DEFAULT_GROUP

EPSILON = 0.01
"""What rsl_rl adds to the standard deviation of an observation."""

LEAST_STD = 1e-6
"""The lower bound of rsl_rl on a standard deviation."""

RSL_RL_ACTIVATIONS = {**ACTIVATIONS, "crelu": nn.CELU, "lrelu": nn.LeakyReLU}
"""The activations by their names in rsl_rl."""

MEMORY = "rnn.rnn."
"""The beginning of the names of the LSTM's or GRU's tensors in rsl_rl 4 and 5."""

STATES = ("student_state_dict", "actor_state_dict", "model_state_dict")
"""The entries of a checkpoint with the tensors of an actor."""


class RslRlActor(NetworkPolicy):
    """An actor of rsl_rl: normaliser, memory, layers and standard deviation."""

    kind = "rsl_rl"


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
            has no actor that can be read; or the activation is unknown.
    """
    if activation not in RSL_RL_ACTIVATIONS:
        raise unknown("activation of rsl_rl", activation, RSL_RL_ACTIVATIONS)
    return read_rsl_rl(open_saved(path), activation, groups)


def is_rsl_rl(saved: SavedFile) -> bool:
    """Whether a file is a checkpoint of rsl_rl."""
    return bool(keys_of(saved.value) & set(STATES))


def read_rsl_rl(
    saved: SavedFile, activation: str = "elu", groups: Sequence[str] = (DEFAULT_GROUP,)
) -> RslRlActor:
    """The actor of an open checkpoint; see `load_rsl_rl`."""
    path = saved.path
    if activation not in RSL_RL_ACTIVATIONS:
        raise unknown("activation of rsl_rl", activation, RSL_RL_ACTIVATIONS)
    if not is_rsl_rl(saved):
        raise InputError(
            f"{path} is not an rsl_rl checkpoint, as it contains neither 'actor_state_dict' nor "
            f"'model_state_dict': {EXPORT}."
        )
    stored = _stored(saved.value, path)
    for name, tensor in stored.items():
        if not is_finite(tensor):
            raise InputError(f"{path} cannot be used: its tensor {name!r} is not finite.")
    actor = below(stored, "mlp.")
    layers = chain(actor, [str(place) for place in range(0, len(actor), 2)], path)
    num_inputs, num_actions = layers[0].in_features, layers[-1].out_features
    memory = None
    if below(stored, MEMORY):
        memory = read_memory(stored, MEMORY, path)
        if memory.num_features != num_inputs:
            raise InputError(
                f"{path} is inconsistent: its memory outputs {memory.num_features} values, but its "
                f"layers read {num_inputs}."
            )
        num_inputs = memory.num_inputs
    log_std = _log_std(stored, num_actions, path)
    network = SingleHead(
        nn.Flatten(),
        hidden_layers(layers[:-1], RSL_RL_ACTIVATIONS[activation]),
        layers[-1],
        "mean",
        None if log_std is None else DiagonalStd(log_std),
    )
    normalizer = _normalizer(below(stored, "obs_normalizer."), num_inputs, path)
    policy = RslRlActor(network, num_inputs, num_actions, "mean", saved, groups, normalizer, memory)
    return policy.eval().requires_grad_(False)


def _stored(saved: Mapping[str, Any], path: Path) -> Tensors:
    """The tensors of the actor in a checkpoint, by their names in rsl_rl 4 and 5."""
    for name in STATES[:2]:
        if name in saved:
            tensors = table(saved[name], path)
            _refuse_others(tensors, ("mlp.", MEMORY, "obs_normalizer.", "distribution."), path)
            return tensors
    tensors = table(saved["model_state_dict"], path)
    network = "student" if any(name.startswith("student.") for name in tensors) else "actor"
    renamed = {
        f"{network}.": "mlp.",
        f"memory_{network[0]}.rnn.": MEMORY,
        f"{network}_obs_normalizer.": "obs_normalizer.",
        "std": "distribution.std_param",
        "log_std": "distribution.log_std_param",
    }
    unused = (
        "critic.", "critic_obs_normalizer.", "memory_c.",
        "teacher.", "teacher_obs_normalizer.", "memory_t.",
    )  # fmt: skip
    _refuse_others(tensors, (*renamed, *unused), path)
    separate = saved.get("obs_norm_state_dict")
    if separate:
        tensors |= {
            f"{network}_obs_normalizer.{name}": tensor
            for name, tensor in table(separate, path).items()
        }
    return {
        new + name: tensor
        for old, new in renamed.items()
        for name, tensor in below(tensors, old).items()
    }


def _refuse_others(tensors: Tensors, prefixes: tuple[str, ...], path: Path) -> None:
    """Refuses a network with more than linear layers and a memory: convolutions, an encoder."""
    for name in tensors:
        if not name.startswith(prefixes):
            raise InputError(
                f"{path} cannot be read: it contains {name!r}, but only fully connected actors, "
                "also after an LSTM or GRU, can be read. Use the file that rsl_rl's "
                "`export_policy_to_jit` writes."
            )


def _normalizer(stored: Tensors, num_inputs: int, path: Path) -> Normalizer | None:
    """Mean and standard deviation of the observations."""
    if not stored:
        return None
    mean, std = stored.get("_mean"), stored.get("_std")
    if mean is None or std is None or not mean.numel() == std.numel() == num_inputs:
        raise InputError(
            f"{path} cannot be read: its normaliser does not contain a mean and a standard "
            f"deviation of the {num_inputs} values that its actor reads."
        )
    return Normalizer(mean.float().flatten(), std.float().flatten(), EPSILON)


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
