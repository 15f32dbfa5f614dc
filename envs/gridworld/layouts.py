"""The maps: two rooms joined by a corridor, and mazes.

#################
#.....#####.....#
#.....#####.....#
#...............#
#.....#####.....#
#.....#####.....#
#################
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rltransfer.errors import InputError, unknown

WALL, FREE = "#", "."

_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Layout:
    """A map with a goal."""

    rows: tuple[str, ...]
    """The rows of the map: "#" is a wall, "." is free; walls surround it."""
    goal: tuple[int, int]
    """Row and column of the goal."""

    @property
    def free(self) -> NDArray[np.bool_]:
        """Which cells are free.    (height, width)"""
        cells: NDArray[np.bool_] = np.array([list(row) for row in self.rows]) == FREE
        return cells

    @property
    def starts(self) -> list[tuple[int, int]]:
        """Rows and columns of the start cells: all free cells but the goal."""
        cells = [(int(row), int(column)) for row, column in np.argwhere(self.free)]
        return [cell for cell in cells if cell != self.goal]


class Draws:
    """A stream of random numbers that does not depend on machine or library versions.

    Source: SplitMix64 (Steele, Lea & Flood 2014).
    """

    def __init__(self, *seeds: int) -> None:
        self._counter = 0
        for seed in seeds:
            self._counter = self._hash(self._counter + seed + 1)

    def below(self, bound: int) -> int:
        """An integer in [0, bound)."""
        self._counter = (self._counter + 0x9E3779B97F4A7C15) & _MASK
        return self._hash(self._counter) * bound >> 64

    def shuffled(self, cells: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The cells in random order."""
        left = list(cells)
        return [left.pop(self.below(len(left))) for _ in cells]

    @staticmethod
    def _hash(value: int) -> int:
        value &= _MASK
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
        return value ^ value >> 31


def make_layout(kind: str, options: Mapping[str, Any]) -> Layout:
    """A map.

    Args:
        kind: One of `KINDS`.
        options: Keyword arguments of its function.

    Raises:
        InputError: The kind or an option is unknown, or an option is out of range.
    """
    if kind not in KINDS:
        raise unknown("map", kind, KINDS)
    known = inspect.signature(KINDS[kind]).parameters
    for option in options:
        if option not in known:
            raise unknown(f"option of the map {kind!r}", option, known)
    return KINDS[kind](**options)


def two_rooms(goal: int = 0, room: int = 5, corridor: int = 5) -> Layout:
    """Two square rooms joined by a corridor one cell wide.

    Goals are distinct random cells: even numbers are in the left room, odd ones in the right.

    Args:
        goal: The goal's number, from 0.
        room: Height and width of each room.
        corridor: Length of the corridor.

    Raises:
        InputError: An argument is out of range.
    """
    _check("room", room, 2)
    _check("corridor", corridor, 1)
    _check("goal", goal, 0)
    if goal >= 2 * room * room:
        raise InputError(f"goal is {goal}: rooms of {room} x {room} have {2 * room * room} goals.")
    side = FREE * room
    rows = [WALL + side + WALL * corridor + side + WALL for _ in range(room)]
    rows[room // 2] = WALL + side + FREE * corridor + side + WALL
    border = WALL * len(rows[0])
    first_column = 1 + (goal % 2) * (room + corridor)
    cells = [(1 + y, first_column + x) for y in range(room) for x in range(room)]
    return Layout((border, *rows, border), Draws(room, goal % 2).shuffled(cells)[goal // 2])


def random_maze(maze: int = 0, size: int = 11, loops: float = 0.1) -> Layout:
    """A maze: a random spanning tree of its cells, with some further walls removed.

    Args:
        maze: The maze's number, from 0, which determines walls and goal.
        size: Height and width, including walls; odd.
        loops: Fraction of the remaining inner walls to remove.

    Raises:
        InputError: An argument is out of range.
    """
    _check("maze", maze, 0)
    _check("size", size, 5)
    if size % 2 == 0:
        raise InputError(f"size is {size}: it must be odd, as there are walls between the cells.")
    if not isinstance(loops, (int, float)) or not 0 <= loops <= 1:
        raise InputError(f"loops is {loops!r}: it must be a number from 0 to 1.")
    draws = Draws(size, maze)
    free = np.zeros((size, size), bool)
    _carve(free, draws)
    inner = [
        (row, column)
        for row in range(1, size - 1)
        for column in range(1, size - 1)
        if (row + column) % 2 and not free[row, column]
    ]
    for cell in draws.shuffled(inner)[: round(loops * len(inner))]:
        free[cell] = True
    cells = [(row, column) for row in range(1, size, 2) for column in range(1, size, 2)]
    goal = cells[draws.below(len(cells))]
    rows = ("".join(FREE if cell else WALL for cell in line) for line in free)
    return Layout(tuple(rows), goal)


def _carve(free: NDArray[np.bool_], draws: Draws) -> None:
    """Frees the cells in odd rows and columns, and passages that connect them to a tree.

    Args:
        free: Which cells are free, none at first.    (size, size)
        draws: The random numbers.
    """
    path = [(1, 1)]
    free[1, 1] = True
    while path:
        row, column = path[-1]
        ways = [
            (row + down, column + right)
            for down, right in ((-2, 0), (0, 2), (2, 0), (0, -2))
            if 0 < row + down < len(free)
            and 0 < column + right < len(free)
            and not free[row + down, column + right]
        ]
        if not ways:
            path.pop()
            continue
        next_row, next_column = ways[draws.below(len(ways))]
        free[(row + next_row) // 2, (column + next_column) // 2] = True
        free[next_row, next_column] = True
        path.append((next_row, next_column))


def _check(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} is {value!r}: it must be a whole number of at least {least}.")


KINDS: dict[str, Callable[..., Layout]] = {"two-rooms": two_rooms, "maze": random_maze}
"""The kinds of map."""
