"""The rules as tables: where an action leads from every cell, and what every state looks like.

A state is where the agent stands, what it did last and whether that was rewarded (Teh 2017,
section 4.1): state = (cell * 5 + last action) * 2 + rewarded, with cell = row * width + column and
"nothing yet" as the last action 4. The numbers are those of all maps of the same size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .layouts import Layout

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""What each action adds to row and column: up, right, down, left."""
NUM_ACTIONS = len(MOVES)
NOTHING = NUM_ACTIONS
"""The last action before the first one."""
LAST_ACTIONS = NUM_ACTIONS + 1
STATES_PER_CELL = 2 * LAST_ACTIONS

ObservationName = Literal["vector", "one-hot", "pixels"]


@dataclass(frozen=True)
class Rules:
    """What a map's dynamics are."""

    layout: Layout
    destination: NDArray[np.int32]
    """The cell that an action leads to; the same one from walls and into walls.
    (cells, NUM_ACTIONS)"""
    starts: NDArray[np.int32]
    """The cells that an episode may begin in.    (num_starts,)"""
    goal: int
    """The goal's cell."""

    @property
    def num_states(self) -> int:
        """How many states there are, walls included."""
        return len(self.destination) * STATES_PER_CELL


def make_rules(layout: Layout) -> Rules:
    """Returns the rules of a map."""
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
    """Returns what every state looks like.    (num_states, *shape)

    Args:
        rules: The map.
        observation: One of
            vector: the cell and the last action as one-hot numbers, then whether it was rewarded,
                float32 (cells + 6,);
            one-hot: the state's number, which makes a table of a linear function, float32
                (num_states,);
            pixels: walls, goal, agent and the cell that the last action led towards, as a picture,
                uint8 (4, height, width).
        view: For pixels: how far the agent sees in each direction, in a picture around it, walls
            beyond the map, uint8 (4, 2 * view + 1, 2 * view + 1); 0 for the map from above.
    """
    states = np.arange(rules.num_states)
    cell, last = states // STATES_PER_CELL, states // 2 % LAST_ACTIONS
    if observation == "one-hot":
        return np.eye(len(states), dtype=np.float32)
    if observation == "vector":
        places, actions = np.eye(len(rules.destination)), np.eye(LAST_ACTIONS)
        seen = np.concatenate([places[cell], actions[last], (states % 2)[:, None]], 1)
        return seen.astype(np.float32)
    return _pictures(rules, cell, last, view)


def _pictures(
    rules: Rules, cell: NDArray[np.int64], last: NDArray[np.int64], view: int
) -> NDArray[np.uint8]:
    """Returns pictures of states.    (num_states, 4, ...)

    Args:
        rules: The map.
        cell: Each state's cell.           (num_states,)
        last: Each state's last action.    (num_states,)
        view: See `appearance`.
    """
    free = rules.layout.free
    height, width = free.shape
    row, column = cell // width, cell % width
    towards = np.array([*MOVES, (0, 0)])[last]
    pictures = np.zeros((len(cell), 4, height, width), np.uint8)
    pictures[:, 0] = ~free
    pictures[:, 1, rules.layout.goal[0], rules.layout.goal[1]] = 1
    every = np.arange(len(cell))
    pictures[every, 2, row, column] = 1
    there = (row + towards[:, 0]) % height, (column + towards[:, 1]) % width
    pictures[every, 3, *there] = last != NOTHING
    if not view:
        return pictures
    around = np.pad(pictures, ((0, 0), (0, 0), (view, view), (view, view)))
    around[:, 0] = np.pad(~free, view, constant_values=True)
    window = np.arange(2 * view + 1)
    rows = (row[:, None] + window)[:, None, :, None]
    columns = (column[:, None] + window)[:, None, None, :]
    channels = np.arange(4)[:, None, None]
    seen: NDArray[np.uint8] = around[every[:, None, None, None], channels, rows, columns]
    return seen
