"""Optimal returns of a map, as a reference for results.

Values are float64, one for each state of `rules.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .rules import LAST_ACTIONS, NOTHING, NUM_ACTIONS, STATES_PER_CELL, Rules

Array = NDArray[np.float64]


class Planner:
    """Bellman's equations of a map."""

    def __init__(self, rules: Rules) -> None:
        self.num_states = rules.num_states
        states = np.arange(rules.num_states)
        arrived = rules.destination[states // STATES_PER_CELL]
        self._next = (arrived * LAST_ACTIONS + np.arange(NUM_ACTIONS)) * 2
        self._reward = (arrived == rules.goal).astype(float)
        self._begins = (rules.starts * LAST_ACTIONS + NOTHING) * 2
        after = rules.starts[:, None] * LAST_ACTIONS + np.arange(NUM_ACTIONS)
        self._after_goal = after * 2 + 1

    def look_ahead(self, value: Array, discount: float = 1.0) -> Array:
        """Reward + discount * E[value of the next state].    (num_states, NUM_ACTIONS)

        Args:
            value: The value of every state.    (num_states,)
            discount: gamma.
        """
        at_random = value[self._after_goal].mean(0)
        following = np.where(self._reward > 0, at_random, value[self._next])
        action_value: Array = self._reward + discount * following
        return action_value

    def optimal_return(self, steps: int) -> float:
        """Mean return of the optimal policy in an episode of `steps` steps."""
        value = np.zeros(self.num_states)
        for _ in range(steps):
            value = self.look_ahead(value).max(1)
        return float(value[self._begins].mean())
