"""How the axes of an image are arranged: environments differ, everything else has channels first.

Gymnasium's own images have their channels last, as screens have: (height, width, channels). torch
convolves (channels, height, width). Images are turned once, on the way in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from rltransfer.errors import InputError

LAYOUTS = ("channels_first", "channels_last", "none")
"""Values of the task's keyword argument `image_layout`; none makes a vector of the image."""

SMALLEST_GREY_IMAGE = 8
"""Height and width from which two axes of bytes are an image without channels."""


@dataclass(frozen=True)
class ImageLayout:
    """How an environment shows an image, and how it is turned."""

    shown: tuple[int, ...]
    """The shape in the environment."""
    axes: tuple[int, ...]
    """Its axes, with those of frames and channels first."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape after turning: channels, height and width."""
        *channels, height, width = (self.shown[axis] for axis in self.axes)
        return int(np.prod(channels)), height, width

    def turned(self, images: NDArray[Any]) -> NDArray[Any]:
        """Images with their channels first.    (n, channels, height, width)

        Args:
            images: As the environment shows them.    (n, *shown)
        """
        moved = images.transpose(0, *(axis + 1 for axis in self.axes))
        return moved.reshape(len(images), *self.shape)

    def as_shown(self, images: Tensor) -> Tensor:
        """Inverse of `turned`.    (n, *shown)

        Args:
            images: (n, channels, height, width)
        """
        moved = images.reshape(len(images), *(self.shown[axis] for axis in self.axes))
        return moved.permute(0, *(self.axes.index(axis) + 1 for axis in range(len(self.axes))))


class ImageBox(spaces.Box):
    """A space of images that were turned, with their channels first.

    Args:
        low: Lower bounds as the environment has them.    (*layout.shown)
        high: Upper bounds.                               (*layout.shown)
        dtype: Type of the numbers.
        layout: How the images are turned.
    """

    def __init__(
        self, low: NDArray[Any], high: NDArray[Any], dtype: type, layout: ImageLayout
    ) -> None:
        first, last = (layout.turned(bound[None])[0] for bound in (low, high))
        super().__init__(first, last, layout.shape, dtype)
        self.layout = layout


def image_layout_of(space: spaces.Box, requested: str | None, name: str) -> ImageLayout | None:
    """The layout of images that must be turned; None for images that need not, and for vectors.

    Three axes are an image, whose channels are the smallest axis, as in Stable-Baselines3. Two or
    four axes are one if they hold bytes from 0 to 255: a grey image, or a stack of images.

    Args:
        space: What the environment shows.
        requested: One of `LAYOUTS`; None to recognise it.
        name: The environment, for errors.

    Raises:
        InputError: There is no such layout, or more than one is possible.
    """
    if requested is not None and requested not in LAYOUTS:
        raise InputError(
            f"The image_layout of {name!r} is {requested!r}: it must be {', '.join(LAYOUTS)}."
        )
    shape = space.shape
    if requested == "none" or len(shape) not in (2, 3, 4):
        return None
    if len(shape) != 3 and not _holds_bytes(space):
        return None
    if len(shape) == 2:
        return ImageLayout(shape, (0, 1)) if min(shape) >= SMALLEST_GREY_IMAGE else None
    last = _has_channels_last(shape[-3:], requested, name)
    axes = (2, 0, 1) if last else (0, 1, 2)
    if len(shape) == 3:
        return ImageLayout(shape, axes) if last else None
    return ImageLayout(shape, (0, *(axis + 1 for axis in axes)))


def _holds_bytes(space: spaces.Box) -> bool:
    low, high = space.low, space.high
    return space.dtype == np.uint8 and bool((low == 0).all() and (high == 255).all())


def _has_channels_last(shape: tuple[int, ...], requested: str | None, name: str) -> bool:
    if requested is not None:
        return requested == "channels_last"
    first, middle, last = shape
    if last < min(first, middle):
        return True
    # With square images, the channels may also be more than the pixels of a side.
    if first < min(middle, last) or middle == last:
        return False
    if first == middle:
        return True
    raise InputError(
        f"The environment {name!r} shows images of the shape {list(shape)}, whose channels may be "
        "the first axis or the last: add --task-option image_layout=channels_first, channels_last "
        "or, if it is not an image, none."
    )
