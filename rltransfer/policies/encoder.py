"""Encoders: networks from observation groups to a feature vector."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.policies.blocks import block
from rltransfer.policies.history_encoder import HistoryConvolutions, history_shape
from rltransfer.policies.linear import Linear
from rltransfer.policies.network import Network
from rltransfer.policies.normalizer import RunningNormalizer
from rltransfer.tasks.history import GROUP
from rltransfer.tasks.observation import Observation

SMALLEST_NATURE_IMAGE = 36
"""Smallest height and width in pixels that the three strided convolutions can process."""


WEIGHTED = (nn.Linear, nn.Conv2d, HistoryConvolutions)
"""The modules of `Encoder.layers` that are layers with weights; others follow one of these."""


class LastConv2d(nn.Conv2d):
    """The last convolution before a `Flatten`, with a channels-first output.

    With channels last, the gradient of a small convolution is four times as fast. But the gradient
    of `Flatten` has channels first, and a nonlinearity whose output and gradient differ in memory
    layout is ten times as slow.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The feature maps.    (batch, channels, height, width)"""
        return super().forward(input).contiguous()


class Encoder(nn.Module):
    """Network from observation groups to a feature vector.

    Args:
        network: The configuration.
        space: The observation groups.
        num_tasks: Number of tasks with separate statistics of vectors.
        image_bounds: The upper bound of each task's images if they differ.

    Raises:
        InputError: The network does not fit the observations.
    """

    scales: Tensor | None

    def __init__(
        self,
        network: Network,
        space: spaces.Dict,
        num_tasks: int = 1,
        image_bounds: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        history = history_shape(network, space) if network.encoder == "conv1d" else None
        missing = [group for group in network.groups if group not in space.spaces]
        if missing:
            raise InputError(
                f"The network reads the observation group {missing[0]!r}, but there are only "
                f"{', '.join(map(repr, space.spaces))}: pass --groups {' '.join(space.spaces)}, or "
                "some of these."
            )
        self.groups = network.groups
        shapes = [space[group].shape or () for group in self.groups]
        images = [len(shape) == 3 for shape in shapes]
        if any(images) and len(images) > 1:
            raise InputError(
                f"The network reads the groups {', '.join(map(repr, self.groups))}, one of them an "
                "image: an image must be the only group."
            )
        kind = _resolve(network, shapes[0], images[0])
        self.scale = 1.0 / upper_image_bound(space[self.groups[0]]) if images[0] else 1.0
        scales = None if image_bounds is None else 1.0 / torch.tensor(image_bounds)
        self.register_buffer("scales", scales, persistent=False)
        self.flat = kind in ("mlp", "conv1d")
        self.normalizer: RunningNormalizer | None = None
        if self.flat:
            if network.channels is not None and history is None:
                raise InputError(
                    f"The channels {network.channels} have no effect on an mlp, which has no "
                    "convolutions: leave them out."
                )
            size = sum(math.prod(shape) for shape in shapes)
            if network.normalize and not any(images):
                self.normalizer = RunningNormalizer(size, num_tasks=num_tasks)
            first: list[nn.Module] = []
            if history is not None:
                before = shapes[: self.groups.index(GROUP)]
                offset = sum(math.prod(shape) for shape in before)
                convolutions = HistoryConvolutions(network, history, offset, size)
                first, size = [convolutions], convolutions.num_features
            layers, self.num_features = _connected(network, size, network.hidden)
            self.layers = nn.Sequential(*first, *layers)
        else:
            if network.channels is None and network.hidden != Network.hidden:
                raise InputError(
                    f"`hidden` has no effect on a {kind} encoder unless `channels` is set: "
                    "set `channels`, or use `width`."
                )
            stack = _nature if kind == "nature" else _grid
            self.layers, self.num_features = stack(network, shapes[0])
            self.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def vectors(self, observation: Observation) -> Tensor:
        """The groups of vectors, concatenated as float32.    (batch, size)"""
        return torch.cat([observation[group].float().flatten(1) for group in self.groups], 1)

    def inputs(self, observation: Observation, task: Tensor | None = None) -> Tensor:
        """The scaled floats that enter the first layer; see `forward`.    (batch, ...)"""
        if self.flat:
            inputs = self.vectors(observation)
            if self.normalizer is not None:
                inputs = self.normalizer(inputs, task)
        else:
            # Channels last in memory, in operations that torch.func supports.
            inputs = observation[self.groups[0]].movedim(-3, -1).contiguous().movedim(-1, -3)
            if inputs.dtype == torch.uint8 and torch.is_autocast_enabled(inputs.device.type):
                # The conversion is exact, and the first layer would round scaled values anyway.
                inputs = inputs.to(torch.get_autocast_dtype(inputs.device.type))
            elif self.scale == 1.0:
                inputs = inputs.float()
        if self.scales is not None:
            assert task is not None
            scales = self.scales[task].view(-1, *[1] * (inputs.dim() - 1))
            return inputs * (scales.to(inputs.dtype) if inputs.is_floating_point() else scales)
        # Without autocast, bytes become scaled floats in one pass, as images are large.
        return inputs * self.scale if self.scale != 1.0 else inputs

    def forward(self, observation: Observation, task: Tensor | None = None) -> Tensor:
        """The features.    (batch, num_features)

        Args:
            observation: The groups.                                            (batch, ...)
            task: Index of each row's task, if statistics are per task.         (batch,)
        """
        features: Tensor = self.layers(self.inputs(observation, task))
        return features

    def feature_layers(self) -> list[nn.Module]:
        """The last module of each layer with weights, whose output are the layer's features."""
        found: list[nn.Module] = []
        for module in self.layers:
            if isinstance(module, WEIGHTED):
                found.append(module)
            elif not isinstance(module, nn.Flatten):
                found[-1] = module
        return found


def through(layers: Iterable[nn.Module], inputs: Tensor) -> tuple[Tensor, Tensor | None]:
    """Applies layers one after the other, and keeps the last feature maps.

    Args:
        layers: The layers, with a `Flatten` after convolutions.
        inputs: Inputs of the first layer.    (batch, ...)

    Returns:
        The output of the last layer, and the input of `Flatten`, (batch, channels, height, width),
        or None if there are no convolutions.
    """
    maps = None
    for layer in layers:
        if isinstance(layer, nn.Flatten) and inputs.dim() == 4:
            maps = inputs
        inputs = layer(inputs)
    return inputs, maps


def _resolve(network: Network, shape: tuple[int, ...], image: bool) -> str:
    """The encoder for this observation: "grid", "nature", "conv1d" or "mlp"."""
    kind: str = network.encoder
    if kind == "auto":
        kind = "conv" if image else "mlp"
    if kind in ("mlp", "conv1d"):
        return kind
    if not image:
        raise InputError(
            f"A {kind} network needs an image of shape (channels, height, width), "
            f"but the observation has the shape {shape}: use an mlp."
        )
    large = min(shape[1:]) >= SMALLEST_NATURE_IMAGE
    if kind == "nature" and not large:
        raise InputError(
            f"A nature network needs images of at least {SMALLEST_NATURE_IMAGE} pixels a side, "
            f"but the observation has the shape {shape}: use a grid network."
        )
    if kind == "conv":
        kind = "nature" if large else "grid"
    return kind


def upper_image_bound(space: spaces.Space[Any] | None) -> float:
    """The number by which images are divided, to be from 0 to 1; 1 if there is no such bound."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 3:
        return 1.0
    high = float(space.high.max())
    return high if math.isfinite(high) and high > 1 else 1.0


def _stack(
    network: Network,
    shape: tuple[int, ...],
    convolutions: list[tuple[int, int, int]],
    hidden: tuple[int, ...],
) -> tuple[nn.Sequential, int]:
    modules: list[nn.Module] = []
    channels, height, width = shape
    for index, (out_channels, kernel, stride) in enumerate(convolutions):
        if min(height, width) < kernel:
            raise InputError(
                f"The network's {len(convolutions)} convolutions do not fit an image of "
                f"{shape[1]} x {shape[2]} pixels, as {height} x {width} are left after {index}: "
                f"{'pass fewer channels' if index else 'use an mlp'}."
            )
        scaled = network.scaled(out_channels)
        kind = nn.Conv2d if index < len(convolutions) - 1 else LastConv2d
        modules += block(network, kind(channels, scaled, kernel, stride))
        channels = scaled
        height, width = ((side - kernel) // stride + 1 for side in (height, width))
    modules.append(nn.Flatten())
    layers, num_features = _connected(network, channels * height * width, hidden)
    return nn.Sequential(*modules, *layers), num_features


def _nature(network: Network, shape: tuple[int, ...]) -> tuple[nn.Sequential, int]:
    """Source: Mnih 2015, Methods; with other channels, the students of Rusu 2015."""
    channels, hidden = network.channels, network.hidden
    if channels is None:
        channels, hidden = (32, 64, 64), (512,)
    if len(channels) != 3:
        raise InputError(
            f"A nature network has 3 convolutions, but the channels are {channels}: pass 3 numbers."
        )
    first, second, third = channels
    return _stack(network, shape, [(first, 8, 4), (second, 4, 2), (third, 3, 1)], hidden)


def _grid(network: Network, shape: tuple[int, ...]) -> tuple[nn.Sequential, int]:
    """Source: Young & Tian 2019, section 3; theirs has one convolution."""
    if network.channels is None:
        return _stack(network, shape, [(16, 3, 1)], (128,))
    first, *rest = network.channels
    return _stack(network, shape, [(first, 3, 1), *((n, 3, 2) for n in rest)], network.hidden)


def _connected(network: Network, size: int, hidden: tuple[int, ...]) -> tuple[list[nn.Module], int]:
    modules: list[nn.Module] = []
    for units in hidden:
        scaled = network.scaled(units)
        modules += block(network, Linear(size, scaled))
        size = scaled
    return modules, size


def head(num_features: int, outputs: int, gain: float) -> nn.Linear:
    """A linear head with orthogonal weights of this gain and zero biases."""
    layer = Linear(num_features, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
