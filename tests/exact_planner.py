"""Exact values of policies on a map, for tests of what learning finds."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from rltransfer.envs.gridworld.planning import Array, Planner


class ExactPlanner(Planner):
    """A planner that also evaluates policies, and solves soft Q-learning's equations."""

    def policy_return(self, probability: Array, steps: int) -> float:
        """Mean return of a policy in an episode of `steps` steps.

        Args:
            probability: Probability of each action in each state.    (num_states, NUM_ACTIONS)
            steps: Length of the episode.
        """
        value = np.zeros(self.num_states)
        for _ in range(steps):
            value = (probability * self.look_ahead(value)).sum(1)
        return float(value[self._begins].mean())

    def soft_values(
        self, log_prior: Array, alpha: float, beta: float, discount: float, tolerance: float = 1e-10
    ) -> Array:
        """Fixed point of soft value iteration, Q.    (num_states, NUM_ACTIONS)

        Source: Teh 2017 (1707.04175), the equations of V and Q below eq. 2.

        Args:
            log_prior: log pi_0.    (num_states, NUM_ACTIONS)
            alpha: Fraction of the regulariser that is divergence from pi_0.
            beta: The inverse temperature; infinite for plain value iteration.
            discount: gamma, below 1.
            tolerance: Largest change of a value at which the iteration ends.
        """
        value = np.zeros(self.num_states)
        while True:
            action_value = self.look_ahead(value, discount)
            if np.isinf(beta):
                updated = action_value.max(1)
            else:
                updated = logsumexp(alpha * log_prior + beta * action_value, axis=1) / beta
            if np.abs(updated - value).max() < tolerance:
                return action_value
            value = updated
