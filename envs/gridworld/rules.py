"""The rules as tables: the cell that an action leads to, and the observation of each state.

A state is the agent's cell, its last action, and whether that was rewarded (Teh 2017, section 4.1):
state = (cell * 5 + last action) * 2 + rewarded, with cell = row * width + column, and 4 as the last
action before the first one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .layouts import Layout

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Change of row and column by each action: up, right, down, left."""
NUM_ACTIONS = len(MOVES)
NOTHING = NUM_ACTIONS
"""The "last action" before the first one."""
LAST_ACTIONS = NUM_ACTIONS + 1
STATES_PER_CELL = 2 * LAST_ACTIONS

ObservationName = Literal["vector", "one-hot", "pixels"]


@dataclass(frozen=True)
class Rules:
    """The dynamics of a map."""

    layout: Layout
    destination: NDArray[np.int32]
    """The cell that an action leads to; walls do not change it.    (cells, NUM_ACTIONS)"""
    starts: NDArray[np.int32]
    """The start cells.    (num_starts,)"""
    goal: int
    """The goal's cell."""

    @property
    def num_states(self) -> int:
        """Number of states, including those in walls."""
        return len(self.destination) * STATES_PER_CELL


def make_rules(layout: Layout) -> Rules:
    """The rules of a map."""
    free = layout.free
    height, width = free.shape
    here = np.arange(height * width, dtype=np.int32)
    destination = here.repeat(NUM_ACTIONS).reshape(-1, NUM_ACTIONS)
    for row, column in np.argwhere(free):
        for action, (down, right) in enumerate(MOVES):
            if free[row + down, column + right]:
                destination[row * width + column, action] = (row + down) * width + column + right
    starts = np.array([row * width + column for row, column in layout.starts], np.int32)
    return Rules(layout, destination, starts, layout.goal[0] * width + layout.goal[1])


def appearance(rules: Rules, observation: ObservationName, view: int) -> NDArray[np.generic]:
    """The observation of every state.    (num_states, *shape)

    Args:
        rules: The rules.
        observation: One of
            vector: one-hot cell, one-hot last action, and whether it was rewarded, float32
                (cells + 6,);
            one-hot: one-hot state, so that a linear function is a table, float32 (num_states,);
            pixels: channels for walls, goal, agent, and the cell that the last action led towards,
                uint8 (4, height, width).
        view: For pixels: crops the picture to this many cells around the agent, with walls beyond
            the map, uint8 (4, 2 * view + 1, 2 * view + 1); 0 for the whole map.
    """
    states = np.arange(rules.num_states)
    cell, last = states // STATES_PER_CELL, states // 2 % LAST_ACTIONS
    if observation == "one-hot":
        return np.eye(len(states), dtype=np.float32)
    if observation == "vector":
        places, actions = np.eye(len(rules.destination)), np.eye(LAST_ACTIONS)
        vectors = np.concatenate([places[cell], actions[last], (states % 2)[:, None]], 1)
        return vectors.astype(np.float32)
    return _pictures(rules, cell, last, view)


def _pictures(
    rules: Rules, cell: NDArray[np.int64], last: NDArray[np.int64], view: int
) -> NDArray[np.uint8]:
    """Pictures (num_states, 4, ...) of states, by their cells and last actions (num_states,)."""
    free = rules.layout.free
    height, width = free.shape
    row, column = cell // width, cell % width
    towards = np.array([*MOVES, (0, 0)])[last]
    pictures = np.zeros((len(cell), 4, height, width), np.uint8)
    pictures[:, 0] = ~free
    pictures[:, 1, rules.layout.goal[0], rules.layout.goal[1]] = 1
    every = np.arange(len(cell))
    pictures[every, 2, row, column] = 1
    target = (row + towards[:, 0]) % height, (column + towards[:, 1]) % width
    pictures[every, 3, *target] = last != NOTHING
    if not view:
        return pictures
    around = np.pad(pictures, ((0, 0), (0, 0), (view, view), (view, view)))
    around[:, 0] = np.pad(~free, view, constant_values=True)
    window = np.arange(2 * view + 1)
    rows = (row[:, None] + window)[:, None, :, None]
    columns = (column[:, None] + window)[:, None, None, :]
    channels = np.arange(4)[:, None, None]
    cropped: NDArray[np.uint8] = around[every[:, None, None, None], channels, rows, columns]
    return cropped
