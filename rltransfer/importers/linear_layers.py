"""Fully connected layers from named tensors, checked against each other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.saved_file import Tensors
from rltransfer.importers.saved_tensors import is_finite
from rltransfer.policies.linear import Linear


def take(tensors: Tensors, name: str, path: Path, size: int | None = None) -> Tensor:
    """A tensor as float32.

    Args:
        tensors: The tensors of a file.
        name: The name of the tensor.
        path: The file, for errors.
        size: The number of its values; None for any.

    Raises:
        InputError: The tensor is missing, has other values than finite numbers, or another size.
    """
    tensor = tensors.get(name)
    if tensor is None:
        raise InputError(f"{path} cannot be read: it does not contain the tensor {name!r}.")
    if size is not None and tensor.numel() != size:
        raise InputError(
            f"{path} cannot be read: its tensor {name!r} has {tensor.numel()} values, and not "
            f"{size}."
        )
    # A float64 may be finite, and too large for a float32.
    if not is_finite(tensor) or not is_finite(tensor.float()):
        raise InputError(f"{path} cannot be used: its tensor {name!r} is not finite.")
    return tensor.float()


def linear(tensors: Tensors, name: str, path: Path) -> nn.Linear:
    """The layer whose tensors are `NAME.weight` and `NAME.bias`.

    Raises:
        InputError: They are not those of a linear layer.
    """
    weight, bias = (tensors.get(f"{name}.{part}") for part in ("weight", "bias"))
    if (
        weight is None
        or bias is None
        or weight.dim() != 2
        or not weight.numel()
        or bias.shape != weight.shape[:1]
        or not (weight.is_floating_point() and bias.is_floating_point())
    ):
        raise InputError(
            f"{path} cannot be read: its actor does not consist of linear layers with a weight and "
            f"a bias, as {name!r} shows."
        )
    layer = Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight = nn.Parameter(take(tensors, f"{name}.weight", path))
    layer.bias = nn.Parameter(take(tensors, f"{name}.bias", path))
    return layer


def chain(tensors: Tensors, names: Sequence[str], path: Path) -> list[nn.Linear]:
    """Layers of which each reads the output of the one before.

    Raises:
        InputError: There are none, or their sizes do not match.
    """
    layers = [linear(tensors, name, path) for name in names]
    fit = all(a.out_features == b.in_features for a, b in itertools.pairwise(layers))
    if not layers or not fit:
        raise InputError(f"{path} cannot be read: the sizes of its layers do not match.")
    return layers


def hidden_layers(layers: Sequence[nn.Linear], activation: type[nn.Module]) -> nn.Sequential:
    """The layers with an activation after each."""
    return nn.Sequential(*(part for layer in layers for part in (layer, activation())))


def indexed(tensors: Tensors, prefix: str, path: Path) -> list[str]:
    """The names of the layers of a Sequential, of which every second module has tensors.

    Args:
        tensors: The tensors of a file.
        prefix: The beginning of the names, e.g. "actor.".
        path: The file, for errors.

    Raises:
        InputError: Other tensors begin with this prefix.
    """
    found = {name for name in tensors if name.startswith(prefix)}
    count = (len(found) + 1) // 2
    names = [f"{prefix}{2 * place}" for place in range(count)]
    expected = {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    odd = min(found - expected, default=None) or min(expected - found, default=None)
    if odd is not None:
        raise InputError(
            f"{path} cannot be read: its actor does not consist of linear layers with an "
            f"activation after each, as {odd!r} shows."
        )
    return names


class Normalizer(nn.Module):
    """Subtracts a mean, divides by a standard deviation plus epsilon, and clips."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Tensor, std: Tensor, epsilon: float, limit: float | None = None
    ) -> None:
        """Creates it.

        Args:
            mean: The mean of the observations.    (num_inputs,)
            std: Their standard deviation.    (num_inputs,)
            epsilon: Added to it.
            limit: The largest absolute value of a result; None for any.
        """
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.epsilon = epsilon
        self.limit = limit

    def forward(self, seen: Tensor) -> Tensor:
        """The normalised observations.    (rows, num_inputs)"""
        seen = (seen - self.mean) / (self.std + self.epsilon)
        return seen if self.limit is None else seen.clamp(-self.limit, self.limit)


def running_variance(tensors: Tensors, name: str, size: int, path: Path) -> Tensor:
    """A variance, which is not negative.    (size,)"""
    variance = take(tensors, name, path, size).flatten()
    if bool(torch.any(variance < 0)):
        raise InputError(
            f"{path} cannot be used: its tensor {name!r} contains a negative variance."
        )
    return variance
