"""The configuration of a policy's network."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Literal

from rltransfer.errors import InputError, check_number
from rltransfer.options import normalize
from rltransfer.tasks.observation import DEFAULT_GROUP

EncoderName = Literal["auto", "conv", "grid", "nature", "conv1d", "mlp"]
ActivationName = Literal["auto", "relu", "tanh"]
HeadsName = Literal["shared", "per-task"]
StatisticsName = Literal["shared", "per-task"]
MOST_WEIGHTS = 10**9
"""Largest number of weights between the layers that are given; larger ones are mistakes."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """The shape of a policy network; e.g. a student may be its teacher with a smaller width."""

    encoder: EncoderName = "auto"
    """grid: one 3x3 convolution, for images of about ten pixels (Young & Tian 2019). nature: three
    convolutions (Mnih 2015). conv: the one of these two that fits the image. mlp: fully connected.
    conv1d: convolutions over the steps of the group `history` (Kumar 2021), then an mlp that reads
    the other groups, too. auto: conv for images, else mlp."""
    width: float = 1.0
    """Factor on all channels and hidden units; parameters grow with its square."""
    channels: tuple[int, ...] | None = None
    """Output channels per convolution, before `width` is applied; `hidden` layers follow. nature
    takes three; grid builds one 3x3 convolution per value (stride 1, then 2); conv1d one over time
    per value. None for the published architecture."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of each fully connected layer of an mlp or conv1d, or after `channels`; before
    `width`."""
    activation: ActivationName = "auto"
    """Nonlinearity of every layer. auto: tanh for vectors of PPO, else ReLU."""
    heads: HeadsName = "shared"
    """shared: one head for all tasks, masked to each task's actions (Parisotto 2015). per-task: one
    head for each task on a shared trunk (Rusu 2015, section 3.3)."""
    gru: int = 0
    """Units of a GRU between encoder and heads, before `width` is applied; 0 for none."""
    layer_norm: bool = False
    """Whether to apply LayerNorm before each nonlinearity of the encoder."""
    groups: tuple[str, ...] = (DEFAULT_GROUP,)
    """Observation groups that the network reads; several vectors are concatenated."""
    normalize: bool = True
    """Whether to normalise vector observations by their running mean and standard deviation."""
    statistics: StatisticsName = "shared"
    """shared: one mean and standard deviation for the vectors of all tasks. per-task: one for each
    task, if the vectors have different meanings."""

    def __post_init__(self) -> None:
        normalize(self)
        check_number("A network's width", self.width, "finite and above 0")
        check_number("A network's width", self.width, "at most 10,000")
        if self.channels is not None and (not self.channels or min(self.channels) < 1):
            raise InputError(
                f"A network's channels are {self.channels}: at least one convolution is needed, "
                "each with at least 1 channel."
            )
        if self.gru < 0 or any(units < 1 for units in self.hidden):
            raise InputError(
                f"A network has {self.hidden} hidden units and a GRU of {self.gru} units: "
                "layers need at least 1 unit, the GRU 0 or more."
            )
        self._check_size()
        if not self.groups:
            raise InputError("A network reads no observation group: it needs at least one.")
        if len(set(self.groups)) < len(self.groups):
            raise InputError(f"A network reads the groups {self.groups}: each may occur once.")

    def _check_size(self) -> None:
        """Checks the number of weights between the layers, before any is made."""
        layers = [self.scaled(n) for n in (*(self.channels or ()), *self.hidden, *[self.gru] * 2)]
        weights = sum(one * two for one, two in itertools.pairwise(layers))
        if max(weights, *layers) > MOST_WEIGHTS:
            raise InputError(
                f"A network has more than {MOST_WEIGHTS:,} weights: use fewer units, or a smaller "
                "width."
            )

    def with_activation(self, activation: ActivationName) -> Network:
        """The network with this activation, unless it has one that is not "auto"."""
        return replace(self, activation=activation) if self.activation == "auto" else self

    def scaled(self, units: int) -> int:
        """Units or channels after `width` is applied, at least one."""
        return max(1, round(units * self.width))


def conv(
    width: float = 1.0,
    gru: int = 0,
    channels: tuple[int, ...] | None = None,
    hidden: tuple[int, ...] = Network.hidden,
) -> Network:
    """A convolutional network; see `Network`."""
    return Network(encoder="conv", width=width, gru=gru, channels=channels, hidden=hidden)


def mlp(hidden: tuple[int, ...] = (64, 64), width: float = 1.0, gru: int = 0) -> Network:
    """A fully connected network; see `Network`."""
    return Network(encoder="mlp", hidden=hidden, width=width, gru=gru)
