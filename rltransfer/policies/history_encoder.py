"""1-D convolutions over the steps of an observation history."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.policies.blocks import block
from rltransfer.policies.network import Network
from rltransfer.tasks.history import GROUP
from rltransfer.tasks.observation import DEFAULT_GROUP

CHANNELS = (32, 32, 32)
"""Output channels of each convolution, before `width`."""

LONG = 40
"""The fewest steps that three convolutions of the paper's kernels fit."""

ADVICE = f"pass --history K, e.g. 16, and --groups {DEFAULT_GROUP} {GROUP}"
"""How a network gets a history, for errors."""


class HistoryConvolutions(nn.Module):
    """Replaces the history in a vector by what convolutions over its steps output.

    Each observation is embedded by the same linear layer; convolutions over time follow. Kernels
    and strides are the paper's for histories of at least `LONG` steps: (8, 4), then (5, 1). Those
    of shorter ones are (3, 1). No kernel is longer than the steps that are left.

    Source: Kumar 2021 (RMA, arXiv 2107.04034), adaptation module: 50 steps, an embedding of 32
    numbers, three convolutions with 32 channels. Theirs embeds by two layers.

    Args:
        network: The configuration; its `channels` default to `CHANNELS`, and the first is also the
            size of an embedding.
        shape: Number of observations, and of numbers in each.
        offset: Place of the history in the vector.
        size: Numbers in the vector.
    """

    def __init__(self, network: Network, shape: tuple[int, int], offset: int, size: int) -> None:
        super().__init__()
        self.shape = shape
        self.offset = offset
        left, inputs = shape
        channels = network.channels or CHANNELS
        first, later = ((8, 4), (5, 1)) if left >= LONG else ((3, 1), (3, 1))
        kernels = [(1, 1), first, *[later] * (len(channels) - 1)]
        modules: list[nn.Module] = []
        for outputs, (longest, stride) in zip((channels[0], *channels), kernels, strict=True):
            kernel, outputs = min(longest, left), network.scaled(outputs)
            modules += block(network, nn.Conv1d(inputs, outputs, kernel, stride))
            inputs, left = outputs, (left - kernel) // stride + 1
        self.layers = nn.Sequential(*modules, nn.Flatten())
        self.num_features = inputs * left + size - math.prod(shape)

    def forward(self, vector: Tensor) -> Tensor:
        """The output of the convolutions, and after it the rest of the vector.

        Args:
            vector: The concatenated observation groups, oldest observation first.    (rows, size)

        Returns:
            (rows, num_features)
        """
        end = self.offset + math.prod(self.shape)
        steps = vector[:, self.offset : end].unflatten(1, self.shape).transpose(1, 2)
        return torch.cat([self.layers(steps), vector[:, : self.offset], vector[:, end:]], 1)


def history_shape(network: Network, space: spaces.Dict) -> tuple[int, int]:
    """Number of observations in the history that a network reads, and of numbers in each.

    Args:
        network: A network with 1-D convolutions.
        space: The observation groups of the task.

    Raises:
        InputError: It does not read a history, or the task does not show one.
    """
    if GROUP not in network.groups:
        raise InputError(
            f"A conv1d network reads the observation group {GROUP!r}, but its groups are "
            f"{', '.join(map(repr, network.groups))}: {ADVICE}."
        )
    if GROUP not in space.spaces:
        raise InputError(
            f"A conv1d network reads the observation group {GROUP!r}, but there are only "
            f"{', '.join(map(repr, space.spaces))}: {ADVICE}."
        )
    shape = space[GROUP].shape or ()
    if len(shape) == 2 and all(shape):
        return shape[0], shape[1]
    own = space.spaces.get(DEFAULT_GROUP)
    size = math.prod(own.shape or ()) if own is not None else 0
    if len(shape) != 1 or not size or shape[0] % size:
        raise InputError(
            f"A conv1d network reads a history of whole observations, but the shape of {GROUP!r} "
            f"is {shape} and {DEFAULT_GROUP!r} has {size} numbers: use an mlp."
        )
    return shape[0] // size, size


def check_same_history(network: Network, own: Sequence[spaces.Dict]) -> None:
    """Refuses 1-D convolutions for tasks whose histories padding would put out of step.

    Args:
        network: A network of any kind.
        own: The observation groups of each task, without padding.

    Raises:
        InputError: The histories differ in their shapes.
    """
    if network.encoder != "conv1d":
        return
    found = [history_shape(network, one) for one in own]
    if len(set(found)) > 1:
        each = ", ".join(f"{steps} x {size}" for steps, size in found)
        raise InputError(
            f"A conv1d network reads histories of one shape, but those of the tasks are {each}: "
            "use an mlp, or tasks with observations of one size and one length of history."
        )
