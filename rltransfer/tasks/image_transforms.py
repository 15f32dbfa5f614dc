"""Observation transforms of images: what each one computes.

Source of flips, noise, black, white and zoom: the Pong Soup of Rusu 2016 (1606.04671, section 5.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rltransfer.errors import InputError

NOISE = 0.1
"""Standard deviation of `noise`, as a fraction of the distance between an image's bounds."""
FLIPPED_BY_NOISE = 0.05
"""Fraction of the pixels that `noise` inverts in images of two values."""
ZOOM = 0.75
"""Size of the picture that `zoom` leaves, from Rusu 2016."""
SHIFT = 0.1
"""Distance that `shift` moves a picture, as a fraction of its height and of its width."""
SAMPLES = 21
"""Rows, and columns, of an image that its background is estimated from."""

Function = Callable[[Tensor], Tensor]
"""Maps images to images of the same shape and type.    (n, frames, channels, height, width)"""


@dataclass(frozen=True)
class ImageSpec:
    """The images that a transform is made for."""

    channels: int
    """Channels of each frame."""
    height: int
    width: int
    dtype: torch.dtype
    low: float
    """The least value of a pixel; maybe infinite."""
    high: float
    """The greatest value of a pixel; maybe infinite."""
    task_id: str
    """For messages."""

    @property
    def has_two_values(self) -> bool:
        """Whether a pixel is either low or high, as in MinAtar."""
        return not self.dtype.is_floating_point and self.high - self.low == 1

    def check_bounded(self, name: str) -> None:
        """Refuses a transform that needs the bounds of an unbounded image.

        Raises:
            InputError: The pixels are unbounded.
        """
        if not torch.isfinite(torch.tensor([self.low, self.high])).all():
            raise InputError(
                f"The images of {self.task_id!r} are unbounded: leave out {name!r}, which needs "
                "the least and the greatest value of a pixel."
            )


def rotate_channels(spec: ImageSpec) -> Function:
    """Each channel takes the place of the next one, the last that of the first.

    Raises:
        InputError: A frame has one channel.
    """
    if spec.channels == 1:
        raise InputError(
            f"The images of {spec.task_id!r} have one channel: leave out 'rotate_channels', which "
            "moves channels."
        )
    return lambda images: images.roll(1, 2)


def flip_horizontal(spec: ImageSpec) -> Function:
    """Left and right are exchanged."""
    return lambda images: images.flip(-1)


def flip_vertical(spec: ImageSpec) -> Function:
    """Top and bottom are exchanged."""
    return lambda images: images.flip(-2)


def shift(spec: ImageSpec) -> Function:
    """The picture moves down and right by a tenth; what leaves at one edge enters at the other."""
    rows, columns = (max(1, round(SHIFT * size)) for size in (spec.height, spec.width))
    return lambda images: images.roll((rows, columns), (-2, -1))


def invert(spec: ImageSpec) -> Function:
    """Dark and bright are exchanged.

    Raises:
        InputError: The pixels are unbounded.
    """
    spec.check_bounded("invert")
    total = spec.low + spec.high
    if not spec.dtype.is_floating_point:
        total = int(total)
    return lambda images: total - images


def noise(spec: ImageSpec) -> Function:
    """Adds a picture of Gaussian noise, the same one to every frame of every episode.

    In images of two values, it inverts pixels instead.

    Raises:
        InputError: The pixels are unbounded.
    """
    spec.check_bounded("noise")
    generator = torch.Generator().manual_seed(0)
    shape = (spec.channels, spec.height, spec.width)
    if spec.has_two_values:
        inverted = torch.rand(shape, generator=generator) < FLIPPED_BY_NOISE
        total = int(spec.low + spec.high)
        return _with_constant(inverted, lambda images, mask: images.where(~mask, total - images))
    picture = NOISE * (spec.high - spec.low) * torch.randn(shape, generator=generator)
    return _with_constant(picture, lambda images, added: _rounded(images + added, spec))


def black(spec: ImageSpec) -> Function:
    """The background becomes black: every pixel of the picture's median brightness.

    Raises:
        InputError: The pixels are unbounded.
    """
    spec.check_bounded("black")
    return lambda images: images.masked_fill(_is_background(images), spec.low)


def white(spec: ImageSpec) -> Function:
    """The background becomes white: every pixel of the picture's median brightness.

    Raises:
        InputError: The pixels are unbounded.
    """
    spec.check_bounded("white")
    return lambda images: images.masked_fill(_is_background(images), spec.high)


def zoom(spec: ImageSpec) -> Function:
    """The picture is scaled to three quarters, in the lower right corner; the rest is black.

    Raises:
        InputError: The pixels are unbounded, or have two values alone.
    """
    spec.check_bounded("zoom")
    if spec.has_two_values:
        raise InputError(
            f"The pixels of {spec.task_id!r} are {spec.low:g} or {spec.high:g}: leave out 'zoom', "
            "which mixes pixels."
        )
    size = (max(1, round(ZOOM * spec.height)), max(1, round(ZOOM * spec.width)))
    margins = (spec.width - size[1], 0, spec.height - size[0], 0)

    def zoomed(images: Tensor) -> Tensor:
        pictures = functional.interpolate(images.flatten(0, 1).float(), size, mode="bilinear")
        padded = functional.pad(_rounded(pictures, spec), margins, value=spec.low)
        return padded.view(images.shape)

    return zoomed


TRANSFORMS: dict[str, Callable[[ImageSpec], Function]] = {
    function.__name__: function
    for function in (
        rotate_channels, flip_horizontal, flip_vertical, shift, invert, noise, black, white, zoom,
    )
}  # fmt: skip
"""Every transform by its name."""

MOVES = ("rotate_channels", "flip_horizontal", "flip_vertical", "shift")
"""Those that move pixels, and with them their bounds; the others change values."""


def keeps_black(name: str) -> bool:
    """Whether a black frame stays black."""
    return name in MOVES or name in ("black", "zoom")


def _with_constant(constant: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """A function of images and of a constant, which is copied to the device once."""
    copies: dict[torch.device, Tensor] = {}

    def applied(images: Tensor) -> Tensor:
        if images.device not in copies:
            copies[images.device] = constant.to(images.device)
        return function(images, copies[images.device])

    return applied


def _rounded(images: Tensor, spec: ImageSpec) -> Tensor:
    """Images of numbers as the space has them."""
    clamped = images.clamp(spec.low, spec.high)
    return (
        clamped.to(spec.dtype) if spec.dtype.is_floating_point else clamped.round().to(spec.dtype)
    )


def _is_background(images: Tensor) -> Tensor:
    """Whether a pixel has the median brightness of its channel."""
    rows, columns = (max(1, size // SAMPLES) for size in images.shape[-2:])
    medians = images[..., ::rows, ::columns].flatten(-2).median(-1).values
    return images == medians[..., None, None]
