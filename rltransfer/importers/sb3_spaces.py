"""The spaces of a Stable-Baselines3 zip, out of their readable forms."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rltransfer.errors import InputError
from rltransfer.tasks.observation import describe_shape, describe_space


@dataclass(frozen=True)
class StoredObservationSpace:
    """An observation space."""

    num: int | None
    """Number of discrete observations; None where they are a Box."""
    shape: tuple[int, ...]
    """The shape of an observation, images with the channels first; () where it is a number."""
    dtype: np.dtype[Any]
    """The type of an observation's numbers."""
    is_image: bool
    """Whether observations are images: three dimensions of bytes, from 0 to 255."""


@dataclass(frozen=True, eq=False)
class StoredActionSpace:
    """An action space."""

    num: int
    """Number of discrete actions, or of continuous ones at a time."""
    low: NDArray[np.float32] | None = None
    """The smallest continuous action; None where actions are discrete.    (num,)"""
    high: NDArray[np.float32] | None = None
    """The largest continuous action; None where actions are discrete.     (num,)"""

    @property
    def discrete(self) -> bool:
        """Whether actions are discrete."""
        return self.low is None


def read_observation_space(entry: dict[str, Any], path: Path) -> StoredObservationSpace:
    """Returns the observation space that its readable form describes.

    Args:
        entry: The readable form.
        path: The zip, for the errors.

    Raises:
        InputError: It is neither Box nor Discrete, or not described in full.
    """
    kind = _kind(entry)
    if kind == "Discrete":
        return StoredObservationSpace(_size(entry, path), (), np.dtype(np.int64), is_image=False)
    if kind != "Box":
        raise InputError(f"{path} observes a {kind} space: only Box and Discrete can be read.")
    shape, dtype = _shape(entry, path), _dtype(entry, path)
    # An ellipsis hides most of an image's bounds; they are taken to be like those that are shown.
    low, high = (set(_numbers(entry.get(bound))[0]) for bound in ("low", "high"))
    is_image = len(shape) == 3 and dtype == np.uint8 and low == {0.0} and high == {255.0}
    return StoredObservationSpace(None, shape, dtype, is_image)


def read_action_space(
    entry: dict[str, Any], given: spaces.Space[Any] | None, path: Path
) -> StoredActionSpace:
    """Returns the action space that its readable form describes.

    Args:
        entry: The readable form.
        given: The environment's space, whose bounds go before those of the readable form.
        path: The zip, for the errors.

    Raises:
        InputError: It is neither a vector nor Discrete, not described in full, or not as `given`.
    """
    kind = _kind(entry)
    if kind == "Discrete":
        num = _size(entry, path)
        if given is not None and not (isinstance(given, spaces.Discrete) and given.n == num):
            raise _other_action_space(describe_shape(num, np.dtype(np.int64), ()), given, path)
        return StoredActionSpace(num)
    if kind != "Box":
        raise InputError(f"{path} acts in a {kind} space: only Box and Discrete can be read.")
    shape = _shape(entry, path)
    if len(shape) != 1:
        raise InputError(
            f"{path} acts in arrays of the shape {list(shape)}: only vectors can be read."
        )
    if given is None:
        low, high = (_bound(entry.get(name), shape[0], path) for name in ("low", "high"))
        return StoredActionSpace(shape[0], low, high)
    if not isinstance(given, spaces.Box) or given.shape != shape:
        raise _other_action_space(describe_shape(None, _dtype(entry, path), shape), given, path)
    low, high = given.low.astype(np.float32), given.high.astype(np.float32)
    return StoredActionSpace(shape[0], low, high)


def _other_action_space(own: str, given: spaces.Space[Any], path: Path) -> InputError:
    return InputError(
        f"{path} acts in {own}, but the task takes {describe_space(given)}: both must be the same."
    )


def _kind(entry: dict[str, Any]) -> str:
    """Returns the class of a space, e.g. "Box"."""
    text = str(entry.get(":type:"))
    match = re.fullmatch(r"<class 'gym(?:nasium)?\.spaces\.\w+\.(\w+)'>", text)
    return match[1] if match else text


def _size(entry: dict[str, Any], path: Path) -> int:
    """Returns the size of a Discrete space, a number or the text of one."""
    size, start = str(entry.get("n")), str(entry.get("start", 0))
    if not re.fullmatch(r"[1-9]\d{0,8}", size) or start != "0":
        raise InputError(
            f"{path} cannot be read: a Discrete space of it has the size {size} and starts at "
            f"{start}, where a number above 0 and 0 would be right."
        )
    return int(size)


def _shape(entry: dict[str, Any], path: Path) -> tuple[int, ...]:
    """Returns the shape of a Box, which old versions write without the underscore."""
    shape = entry.get("_shape", entry.get("shape"))
    if not isinstance(shape, list) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise InputError(
            f"{path} cannot be read: a Box space of it has the shape {shape!r}, where a list of "
            "numbers above 0 would be right."
        )
    return tuple(shape)


def _dtype(entry: dict[str, Any], path: Path) -> np.dtype[Any]:
    """Returns the type of a Box's numbers."""
    name = entry.get("dtype")
    if not isinstance(name, str) or not re.fullmatch(r"u?int(8|16|32|64)|float(16|32|64)", name):
        raise InputError(
            f"{path} cannot be read: a Box space of it holds {name!r}, where a type of numbers "
            "like 'float32' would be right."
        )
    return np.dtype(name)


def _numbers(text: object) -> tuple[list[float], bool]:
    """Returns the numbers in the text of an array, and whether they are all of them."""
    if not isinstance(text, str):
        return [], False
    words = re.sub(r"[\[\]\s]+", " ", text).split()
    try:
        return [float(word) for word in words if word != "..."], "..." not in words
    except ValueError:
        return [], False


def _bound(text: object, num: int, path: Path) -> NDArray[np.float32]:
    """Returns a bound of the actions.    (num,)"""
    numbers, whole = _numbers(text)
    if not whole or len(numbers) != num:
        raise InputError(
            f"{path} does not tell the bounds of its {num} actions in full: give the action space "
            "of the environment with it."
        )
    return np.array(numbers, dtype=np.float32)
