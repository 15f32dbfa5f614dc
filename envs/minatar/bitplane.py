"""Bit planes: the 10 x 10 cells of one channel as the bits of two 64-bit words.

Cell `(x, y)`, column `x` and row `y` from the top left, is bit `(y % 5) * 10 + x` of word `y // 5`.
Planes are moved, combined and counted in a few instructions.
"""

# mypy: ignore-errors
# The functions are written in Warp's language, which type checkers for Python do not support.
from __future__ import annotations

import warp as wp

SIZE = 10
"""The number of rows, and of columns."""

Plane = wp.types.vector(length=2, dtype=wp.uint64)
"""The type of a plane."""
ChannelBytes = wp.types.vector(length=SIZE * SIZE // 4, dtype=wp.int32)
"""One channel of an observation, 100 bytes, copied as one value."""

_LEFT_COLUMN = sum(1 << (SIZE * row) for row in range(5))

_ZERO = wp.constant(wp.uint64(0))
_ONE = wp.constant(wp.uint64(1))
_TEN = wp.constant(wp.uint64(10))
_FORTY = wp.constant(wp.uint64(40))
_ROW = wp.constant(wp.uint64(0x3FF))
_WORD = wp.constant(wp.uint64((1 << 50) - 1))
_NOT_LEFT = wp.constant(wp.uint64(((1 << 50) - 1) ^ _LEFT_COLUMN))
_NOT_RIGHT = wp.constant(wp.uint64(((1 << 50) - 1) ^ (_LEFT_COLUMN << 9)))


@wp.func
def cell(x: int, y: int) -> Plane:
    """The plane with only cell `(x, y)` set."""
    if y < 5:
        return Plane(_ONE << wp.uint64(y * 10 + x), _ZERO)
    return Plane(_ZERO, _ONE << wp.uint64(y * 10 + x - 50))


@wp.func
def row(bits: int, y: int) -> Plane:
    """The plane with row `y` set to `bits`, where bit `x` is column `x`."""
    if y < 5:
        return Plane(wp.uint64(bits) << wp.uint64(y * 10), _ZERO)
    return Plane(_ZERO, wp.uint64(bits) << wp.uint64(y * 10 - 50))


@wp.func
def row_bits(plane: Plane, y: int) -> int:
    """The bits of row `y`."""
    if y < 5:
        return int((plane[0] >> wp.uint64(y * 10)) & _ROW)
    return int((plane[1] >> wp.uint64(y * 10 - 50)) & _ROW)


@wp.func
def column_bits(plane: Plane) -> int:
    """The bits of the columns with a set cell."""
    rows = plane[0] | plane[1]
    rows = rows | (rows >> _TEN)
    rows = rows | (rows >> wp.uint64(20))
    return int((rows | (rows >> wp.uint64(20))) & _ROW)


@wp.func
def both(a: Plane, b: Plane) -> Plane:
    """The cells set in `a` and in `b`."""
    return Plane(a[0] & b[0], a[1] & b[1])


@wp.func
def either(a: Plane, b: Plane) -> Plane:
    """The cells set in `a` or in `b`."""
    return Plane(a[0] | b[0], a[1] | b[1])


@wp.func
def without(a: Plane, b: Plane) -> Plane:
    """The cells set in `a` and not in `b`."""
    return Plane(a[0] & ~b[0], a[1] & ~b[1])


@wp.func
def any_set(plane: Plane) -> bool:
    """Whether any cell is set."""
    return (plane[0] | plane[1]) != _ZERO


@wp.func
def meet(a: Plane, b: Plane) -> bool:
    """Whether any cell is set in both planes."""
    return any_set(both(a, b))


@wp.func
def count(plane: Plane) -> int:
    """The number of set cells."""
    return int(wp.bit_count(plane[0])) + int(wp.bit_count(plane[1]))


@wp.func
def moved_left(plane: Plane) -> Plane:
    """The plane moved left by a column, without the leftmost column."""
    return Plane((plane[0] & _NOT_LEFT) >> _ONE, (plane[1] & _NOT_LEFT) >> _ONE)


@wp.func
def moved_right(plane: Plane) -> Plane:
    """The plane moved right by a column, without the rightmost column."""
    return Plane((plane[0] & _NOT_RIGHT) << _ONE, (plane[1] & _NOT_RIGHT) << _ONE)


@wp.func
def moved_up(plane: Plane) -> Plane:
    """The plane moved up by a row, without the top row."""
    return Plane((plane[0] >> _TEN) | ((plane[1] & _ROW) << _FORTY), plane[1] >> _TEN)


@wp.func
def moved_down(plane: Plane) -> Plane:
    """The plane moved down by a row, without the bottom row."""
    return Plane((plane[0] << _TEN) & _WORD, ((plane[1] << _TEN) & _WORD) | (plane[0] >> _FORTY))


@wp.func
def _flip(
    observation: wp.array3d[wp.uint8],
    env: int,
    channel: int,
    first: int,
    changed: wp.uint64,
    word: wp.uint64,
) -> None:
    """Writes the cells of one word of a plane that changed."""
    # Without bits that are not cells, as a loaded state may have any: they are other memory.
    left = changed & _WORD
    while left != _ZERO:
        # The index of the lowest set bit is the number of bits below it.
        bit = int(wp.bit_count((left & (_ZERO - left)) - _ONE))
        observation[env, channel, first + bit] = wp.uint8((word >> wp.uint64(bit)) & _ONE)
        left = left & (left - _ONE)


@wp.func
def show(
    frame: wp.array2d[Plane],
    observation: wp.array3d[wp.uint8],
    env: int,
    channel: int,
    plane: Plane,
) -> None:
    """Draws a plane into one channel of an observation, by writing the cells that changed.

    Args:
        frame: The plane currently in each channel.    (num_envs, channels)
        observation: The observation's bytes.          (num_envs, channels, 100)
        env: The environment.
        channel: The channel.
        plane: The new plane.
    """
    shown = frame[env, channel]
    frame[env, channel] = plane
    _flip(observation, env, channel, 0, shown[0] ^ plane[0], plane[0])
    _flip(observation, env, channel, 50, shown[1] ^ plane[1], plane[1])
