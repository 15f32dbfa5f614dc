"""Plain state_dicts as frozen policies: `torch.save(model.state_dict(), "policy.pth")`.

Such a file contains named tensors and nothing else. It is read if its layers follow from the names:
a chain of linear layers with increasing numbers, as a Sequential (`actor.0.weight`,
`actor.2.weight`), a ModuleList (`layers.0.weight`, `layers.1.weight`) or numbered attributes
(`fc1.weight`, `fc2.weight`) have. The rest is told by options:

- `activation`: what is applied between the layers. Nothing is applied after the last one;
- `prefix`: which chain is the policy's, if there are several;
- `network=mlp:64,64`: the hidden layers that are expected, as a check;
- `output`: "logits", "q_values" or "mean"; by default logits for discrete actions, the mean for
  continuous ones.

A tensor `log_std` (also `logstd`, `actor_logstd`, ...) is the log standard deviation of continuous
actions. Actions are used as they are: scaling and clipping is left to the environment.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from torch import Tensor, nn

from rltransfer.errors import InputError, unknown
from rltransfer.importers.activations import required_activation
from rltransfer.importers.linear_layers import chain, hidden_layers, take
from rltransfer.importers.network_policy import HeadOutput, NetworkPolicy
from rltransfer.importers.saved_file import EXPORT, SavedFile, Tensors, keys_of, table
from rltransfer.importers.sb3_networks import DiagonalStd, SingleHead
from rltransfer.tasks.observation import DEFAULT_GROUP

NUMBERED = re.compile(r"(?P<chain>(?:.*[^0-9])?)(?P<number>[0-9]{1,4})\.(?:weight|bias)")
"""The name of a tensor of a layer in a chain."""

LOG_STD = re.compile(r"(?:.*[._])?log_?stds?(?:_param(?:eter)?)?")
"""The name of a log standard deviation."""

ACTORS = {"actor", "policy", "pi"}
"""Words in the name of the one chain that is read by default."""

STEPS = ([1], [2])
"""Distances of numbers: layers one after the other, or with a module without tensors between."""

NETWORK = re.compile(r"mlp:(?P<hidden>(?:[0-9]{1,6}(?:,[0-9]{1,6})*)?)")
"""A value of the option `network`."""


class StateDictPolicy(NetworkPolicy):
    """The fully connected network of a plain state_dict."""

    kind = "state_dict"


def is_state_dict(saved: SavedFile) -> bool:
    """Whether a file contains named tensors and nothing else."""
    value = saved.value
    return bool(keys_of(value)) and all(isinstance(part, Tensor) for part in value.values())


def read_state_dict(
    saved: SavedFile,
    activation: str | None = None,
    network: str | None = None,
    prefix: str | None = None,
    output: str = "auto",
    groups: Sequence[str] = (DEFAULT_GROUP,),
) -> StateDictPolicy:
    """The policy of a plain state_dict, frozen.

    Args:
        saved: The open file.
        activation: The activation between the layers.
        network: The hidden layers that are expected, e.g. "mlp:64,64".
        prefix: The beginning of the names of the policy's layers, e.g. "actor".
        output: What the last layer outputs: "logits", "q_values", "mean" or "auto".
        groups: The observation groups that it reads, in order.

    Raises:
        InputError: The layers do not follow from the names, or an option is missing or not valid.
    """
    path = saved.path
    outputs: tuple[HeadOutput, ...] = get_args(HeadOutput)
    if output not in ("auto", *outputs):
        raise unknown("output of a state_dict", output, ("auto", *outputs))
    tensors = table(saved.value, path)
    chosen, numbers = _chosen(tensors, prefix, path)
    layers = chain(tensors, [f"{chosen}{number}" for number in numbers], path)
    units = [layer.out_features for layer in layers[:-1]]
    if network is not None:
        _check_network(network, units, path)
    kind: type[nn.Module] = nn.Identity
    if units or activation is not None:
        kind = required_activation(activation, path, "a plain state_dict")
    num_actions = layers[-1].out_features
    log_std = None
    if output in ("auto", "mean"):
        log_std = _log_std(tensors, chosen, num_actions, path)
    single = SingleHead(
        nn.Flatten(),
        hidden_layers(layers[:-1], kind),
        layers[-1],
        "mean",
        None if log_std is None else DiagonalStd(log_std),
    )
    known: HeadOutput | None = None if log_std is None else "mean"
    known = next((one for one in outputs if one == output), known)
    if known is not None:
        single.output = known
    num_inputs = layers[0].in_features
    policy = StateDictPolicy(single, num_inputs, num_actions, known, saved, groups)
    return policy.eval().requires_grad_(False)


def _chosen(tensors: Tensors, prefix: str | None, path: Path) -> tuple[str, list[int]]:
    """The chain of the policy, and the numbers of its layers."""
    chains: dict[str, set[int]] = {}
    others = []
    for name in tensors:
        if match := NUMBERED.fullmatch(name):
            chains.setdefault(match["chain"], set()).add(int(match["number"]))
        elif not LOG_STD.fullmatch(name):
            others.append(name)
    seems = f"{path} is a plain state_dict"
    if not chains:
        raise InputError(
            f"{seems} without numbered layers, so that it does not tell how they are connected: "
            f"{EXPORT}."
        )
    names = ", ".join(f"prefix={_shown(one)}" for one in sorted(chains))
    if prefix is not None:
        found = [one for one in chains if _shown(one) == prefix]
        found = found or [one for one in chains if prefix and one.startswith(f"{prefix}.")]
        if len(found) != 1:
            raise InputError(
                f"{seems}, in which {prefix!r} is not one chain of layers: use {names}."
            )
    else:
        if others:
            raise InputError(
                f"{seems}, but its tensor {min(others)!r} belongs to no chain of numbered layers: "
                f"set the chain of the policy if that is complete without it ({names}), or else "
                f"{EXPORT}."
            )
        found = [one for one in chains if ACTORS & set(re.split(r"[._]", one))]
        found = list(chains) if len(chains) == 1 else found
        if len(found) != 1:
            raise InputError(
                f"{seems} with several chains of layers: add one of these to the path, as in "
                f"`?prefix=NAME`: {names}."
            )
    numbers = sorted(chains[found[0]])
    steps = {after - before for before, after in itertools.pairwise(numbers)}
    if steps and list(steps) not in STEPS:
        raise InputError(
            f"{seems}, in which the numbers {', '.join(map(str, numbers))} of the layers of "
            f"{_shown(found[0])!r} do not tell how they are connected: {EXPORT}."
        )
    return found[0], numbers


def _shown(name: str) -> str:
    """The name of a chain as a user writes it."""
    return name.removesuffix(".")


def _check_network(network: str, units: Sequence[int], path: Path) -> None:
    match = NETWORK.fullmatch(network)
    if match is None:
        raise InputError(
            f"The network of the teacher {path} is {network!r}: write its hidden layers, as in "
            "mlp:64,64, or leave the option out."
        )
    if [int(one) for one in match["hidden"].split(",") if one] != list(units):
        found = ",".join(map(str, units))
        raise InputError(
            f"{path} contains the network mlp:{found}, and not {network}: leave the option out, or "
            "choose other layers with `prefix`."
        )


def _log_std(tensors: Tensors, chosen: str, num_actions: int, path: Path) -> Tensor | None:
    """The log standard deviation of the actions, if any.    (num_actions,)"""
    names = [name for name in tensors if LOG_STD.fullmatch(name)]
    module = _shown(chosen).partition(".")[0]
    # One in the module of the chain comes before others, e.g. a critic's.
    names = [name for name in names if name.startswith(f"{module}.")] or names
    if len(names) > 1:
        raise InputError(
            f"{path} is a plain state_dict with several log standard deviations, "
            f"{', '.join(map(repr, sorted(names)))}: {EXPORT}."
        )
    return take(tensors, names[0], path, num_actions).flatten() if names else None
