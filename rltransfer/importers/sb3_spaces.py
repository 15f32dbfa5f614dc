"""The spaces of a Stable-Baselines3 zip, read from its JSON."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rltransfer.errors import InputError
from rltransfer.tasks.observation import DEFAULT_GROUP, LARGEST_SPACE

Space = spaces.Box | spaces.Discrete
"""The spaces that can be read."""

ITEM = re.compile(
    r"'(?P<key>[^'\\]+)'(?:: |, )"
    r"(?:Box\([^()]*, \((?P<shape>[\d, ]{0,99})\), (?P<dtype>\w+)\)|Discrete\((?P<n>\d+)\))"
)
"""A key of a Dict space and its space, in the text that every version of gym and Gymnasium prints
for the table of a Dict: `{'goal': Box(-inf, inf, (3,), float32)}`, `[('room', Discrete(4))]`."""

NO_KEYS = re.compile(r"[\s{}(),\[\]]*|OrderedDict\([\s(),\[\]]*\)")
"""What is left of the text of a table without its items."""


def read_observation_spaces(entry: dict[str, Any], path: Path) -> dict[str, tuple[Space, bool]]:
    """The observation groups of a zip in their order, and whether each consists of images.

    The keys of a Dict space are the groups; any other space is the group "policy".

    Args:
        entry: The JSON of the space.
        path: The zip, for errors.

    Raises:
        InputError: A space is neither Box nor Discrete, its JSON is incomplete, or one of several
            groups consists of images.
    """
    if _kind(entry) != "Dict":
        return {DEFAULT_GROUP: _read_observation_space(entry, path)}
    text = entry.get("spaces")
    items = list(ITEM.finditer(text)) if isinstance(text, str) else []
    rest = ITEM.sub("", text) if isinstance(text, str) else ""
    if not items or not NO_KEYS.fullmatch(rest):
        other = re.search(r"'([^'\\]+)'(?:: |, )([A-Za-z]\w*)", rest)
        found = "other keys or spaces" if other is None else f"{other[1]!r} as {other[2]}"
        raise InputError(
            f"{path} cannot be read: its dictionary of observations contains {found}, but only "
            "keys with a Box, or with a Discrete that starts at 0, can be read."
        )
    groups: dict[str, tuple[Space, bool]] = {}
    size = 0
    for item in items:
        if item["n"] is not None:
            groups[item["key"]] = _from_zero({"n": item["n"]}, path), False
            continue
        shape = [int(size) for size in re.findall(r"\d+", item["shape"])]
        size += math.prod(shape)
        if size > LARGEST_SPACE:
            raise InputError(
                f"{path} cannot be read: its dictionary of observations contains more than "
                f"{LARGEST_SPACE} values."
            )
        space = _box({"shape": shape, "dtype": item["dtype"]}, path)
        if len(shape) == 3 and space.dtype == np.uint8:
            raise InputError(
                f"{path} cannot be read: it observes images, {item['key']!r}, as a key of a "
                "dictionary, whose networks are not read: only vectors are."
            )
        groups[item["key"]] = space, False
    return groups


def _read_observation_space(entry: dict[str, Any], path: Path) -> tuple[Space, bool]:
    """The observation space of a zip without groups, and whether observations are images.

    Images are three dimensions of bytes from 0 to 255. The bounds of a vector are not read.

    Args:
        entry: The JSON of the space.
        path: The zip, for errors.

    Raises:
        InputError: The space is neither Box nor Discrete, or its JSON is incomplete.
    """
    kind = _kind(entry)
    if kind == "Discrete":
        return _from_zero(entry, path), False
    if kind != "Box":
        raise InputError(
            f"{path} observes a {kind} space: only Box, Discrete and Dict of these can be read."
        )
    space = _box(entry, path)
    # An ellipsis hides most bounds of an image. They are assumed to equal those that are shown.
    shown = [set(_numbers(entry.get(bound))[0]) for bound in ("low", "high")]
    is_bytes = space.dtype == np.uint8 and shown == [{0.0}, {255.0}]
    return space, is_bytes and len(space.shape) == 3


def _box(entry: dict[str, Any], path: Path) -> spaces.Box:
    """A Box of observations, as wide as its type."""
    shape, dtype = _shape(entry, path), _dtype(entry, path)
    low, high = -np.inf, np.inf
    if np.issubdtype(dtype, np.integer):
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return spaces.Box(low, high, shape, dtype.type)


def read_action_space(entry: dict[str, Any], path: Path) -> tuple[Space, bool]:
    """The action space of a zip, and whether the zip contains its bounds in full.

    Args:
        entry: The JSON of the space.
        path: The zip, for errors.

    Raises:
        InputError: The space is neither a vector nor Discrete, its JSON is incomplete, or a lower
            bound is above its upper bound.
    """
    kind = _kind(entry)
    if kind == "Discrete":
        return _discrete(entry, path), True
    if kind != "Box":
        raise InputError(f"{path} acts in a {kind} space: only Box and Discrete can be read.")
    shape = _shape(entry, path)
    if len(shape) != 1:
        raise InputError(
            f"{path} acts in arrays of the shape {list(shape)}: only vectors can be read."
        )
    low, high = (_bound(entry.get(name), shape[0]) for name in ("low", "high"))
    if low is None or high is None:
        return spaces.Box(-np.inf, np.inf, shape, np.float32), False
    if not (low <= high).all():
        raise InputError(
            f"{path} cannot act between the bounds {low.tolist()} and {high.tolist()}: each lower "
            "bound must be at most the upper bound."
        )
    return spaces.Box(low, high, dtype=np.float32), True


def _kind(entry: dict[str, Any]) -> str:
    text = str(entry.get(":type:"))
    match = re.fullmatch(r"<class 'gym(?:nasium)?\.spaces\.\w+\.(\w+)'>", text)
    return match[1] if match else text


def _discrete(entry: dict[str, Any], path: Path) -> spaces.Discrete:
    size, start = str(entry.get("n")), str(entry.get("start", 0))
    if not re.fullmatch(r"[1-9]\d{0,8}", size) or not re.fullmatch(r"-?\d{1,9}", start):
        raise InputError(
            f"{path} cannot be read: one of its Discrete spaces has the size {size} and starts at "
            f"{start}, but the size must be positive and the start a whole number."
        )
    return spaces.Discrete(int(size), start=int(start))


def _from_zero(entry: dict[str, Any], path: Path) -> spaces.Discrete:
    """A Discrete space of observations, of which Stable-Baselines3 makes one-hot vectors."""
    space = _discrete(entry, path)
    if space.start:
        raise InputError(
            f"{path} cannot be read: its discrete observations start at {space.start}, but those "
            "of Stable-Baselines3 start at 0."
        )
    return space


def _shape(entry: dict[str, Any], path: Path) -> tuple[int, ...]:
    """The shape of a Box. Old versions write it without the underscore."""
    shape = entry.get("_shape", entry.get("shape"))
    sizes = shape if isinstance(shape, list) else []
    whole = sizes == shape and all(isinstance(n, int) and n > 0 for n in sizes)
    if not whole or math.prod(sizes) > LARGEST_SPACE:
        raise InputError(
            f"{path} cannot be read: one of its Box spaces has the shape {shape!r}, which is not a "
            f"list of positive integers for at most {LARGEST_SPACE} values."
        )
    return tuple(sizes)


def _dtype(entry: dict[str, Any], path: Path) -> np.dtype[Any]:
    name = entry.get("dtype")
    if not isinstance(name, str) or not re.fullmatch(r"u?int(8|16|32|64)|float(16|32|64)", name):
        raise InputError(
            f"{path} cannot be read: one of its Box spaces has the dtype {name!r}, which is not "
            "numeric like 'float32'."
        )
    return np.dtype(name)


def _numbers(text: object) -> tuple[list[float], bool]:
    """The numbers in the text of an array, and whether the text contains all of them."""
    if not isinstance(text, str):
        return [], False
    words = re.sub(r"[\[\]\s]+", " ", text).split()
    try:
        return [float(word) for word in words if word != "..."], "..." not in words
    except ValueError:
        return [], False


def _bound(text: object, num: int) -> NDArray[np.float32] | None:
    """A bound of the actions; None where an ellipsis hides a part of it.    (num,)"""
    numbers, complete = _numbers(text)
    return np.array(numbers, dtype=np.float32) if complete and len(numbers) == num else None
