"""Networks: how a policy is shaped, as a configuration, and the encoders that it names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from rltransfer.errors import InputError, unknown
from rltransfer.tasks.observation import DEFAULT_GROUP

EncoderName = Literal["auto", "conv", "grid", "nature", "mlp"]
ActivationName = Literal["relu", "tanh"]
HeadsName = Literal["shared", "per-task"]
StatisticsName = Literal["shared", "per-task"]


@dataclass(frozen=True, kw_only=True)
class Network:
    """The shape of a policy; a student is a teacher with another width."""

    encoder: EncoderName = "auto"
    """grid: one 3x3 convolution, for images of some ten pixels (Young & Tian 2019); nature: three
    convolutions (Mnih 2015); conv: whichever of the two fits the image; mlp: fully connected;
    auto: conv for images, else mlp."""
    width: float = 1.0
    """Factor on every number of channels and hidden units; parameters grow with its square."""
    channels: tuple[int, ...] | None = None
    """Channels of each convolution, before `width`, which the `hidden` layers follow; None for the
    convolutions and the layer of the encoder's source. nature: of its three; grid: of as many 3x3
    convolutions as there are numbers, the first at every place, the rest at every other."""
    hidden: tuple[int, ...] = (64, 64)
    """Hidden units of each fully connected layer of an mlp, or after `channels`; before `width`."""
    activation: ActivationName = "relu"
    """The nonlinearity of every layer."""
    heads: HeadsName = "shared"
    """shared: one head for all tasks, of which each has its legal actions (Parisotto 2015);
    per-task: a head for each task on one trunk (Rusu 2015, section 3.3)."""
    gru: int = 0
    """Units of a GRU between encoder and heads, before `width`; 0 for none."""
    layer_norm: bool = False
    """Whether a LayerNorm stands before each nonlinearity of the encoder."""
    groups: tuple[str, ...] = (DEFAULT_GROUP,)
    """The observation groups that the network reads; several vectors are concatenated."""
    normalize: bool = True
    """Whether vector observations are normalised by their running mean and deviation."""
    statistics: StatisticsName = "shared"
    """shared: one mean and deviation for the vectors of all tasks; per-task: each task's own, for
    tasks whose vectors mean different things."""

    def __post_init__(self) -> None:
        for what in ("channels", "hidden", "groups"):
            value = getattr(self, what)
            if not isinstance(value, tuple | list) and (what != "channels" or value is not None):
                raise InputError(f"{what} is {value!r}: it must be a tuple, such as ({value!r},).")
        for kind, name, names in (
            ("encoder", self.encoder, get_args(EncoderName)),
            ("activation", self.activation, get_args(ActivationName)),
            ("kind of heads", self.heads, get_args(HeadsName)),
            ("kind of statistics", self.statistics, get_args(StatisticsName)),
        ):
            if name not in names:
                raise unknown(kind, name, names)
        if not 0 < self.width < math.inf:
            raise InputError(f"A network's width is {self.width}: it must be finite and above 0.")
        if self.channels is not None and (not self.channels or min(self.channels) < 1):
            raise InputError(
                f"A network's convolutions have {self.channels} channels: there must be at least "
                "one convolution, and each needs at least 1 channel."
            )
        if self.gru < 0 or any(units < 1 for units in self.hidden):
            raise InputError(
                f"A network has {self.hidden} hidden units and a GRU of {self.gru}: "
                "layers need at least 1 unit, the GRU 0 or more."
            )
        if not self.groups:
            raise InputError("A network reads no observation group: it needs at least one.")
        if len(set(self.groups)) < len(self.groups):
            raise InputError(f"A network reads {self.groups}: each group may be there once.")

    def scaled(self, units: int) -> int:
        """Returns a number of units or channels times the width, at least one."""
        return max(1, round(units * self.width))


def conv(
    width: float = 1.0,
    gru: int = 0,
    channels: tuple[int, ...] | None = None,
    hidden: tuple[int, ...] = Network.hidden,
) -> Network:
    """Returns a convolutional network: Nature's for large images, one 3x3 layer for small ones.

    Args:
        width: See `Network`.
        gru: See `Network`.
        channels: Of its own convolutions; None for those of the source.
        hidden: Units of each layer after convolutions of its own.
    """
    return Network(encoder="conv", width=width, gru=gru, channels=channels, hidden=hidden)


def mlp(hidden: tuple[int, ...] = (64, 64), width: float = 1.0, gru: int = 0) -> Network:
    """Returns a fully connected network."""
    return Network(encoder="mlp", hidden=hidden, width=width, gru=gru)
