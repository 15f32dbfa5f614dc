"""Reward scaling: rewards in units of the returns that they add up to."""

from __future__ import annotations

import torch
from torch import Tensor

from rltransfer.policies.normalizer import RunningNormalizer

EPSILON = 1e-8
"""Added to the variance of the returns."""
LARGEST = 10.0
"""Bound on the absolute value of a scaled reward."""


class RewardScale:
    """Divides each task's rewards by the standard deviation of its discounted returns so far.

    R_t = gamma * R_{t-1} + r_t, from 0 at the start of an episode. Values and their errors then
    have the same size in every task.

    Source: Engstrom 2020 (arXiv 2005.12729), section 3. Differs from the paper: R starts again with
    each episode, as in Stable-Baselines3 and Gymnasium.

    Args:
        num_rows: Environments, over all tasks.
        num_tasks: Number of tasks.
        gamma: The discount.
        device: The device.
    """

    def __init__(self, num_rows: int, num_tasks: int, gamma: float, device: torch.device) -> None:
        self.gamma = gamma
        self._running = torch.zeros(num_rows, device=device)
        self._returns = RunningNormalizer(1, num_tasks).to(device)

    def scaled(self, reward: Tensor, done: Tensor, task: Tensor) -> Tensor:
        """The scaled rewards of a rollout, whose returns are counted first.    (time, rows)

        Args:
            reward: The rewards.                          (time, rows)
            done: Whether the step ended the episode.     (time, rows)
            task: Index of each step's task.              (time, rows)
        """
        returns = torch.empty_like(reward)
        for time, ended in enumerate(done):
            self._running = self.gamma * self._running + reward[time]
            returns[time] = self._running
            self._running = self._running * ~ended
        self._returns.update(returns.unsqueeze(-1), task)
        scale = (self._returns.variance + EPSILON).rsqrt().flatten()
        return (reward * scale[task if len(scale) > 1 else 0]).clamp(-LARGEST, LARGEST)

    def state_dict(self) -> dict[str, Tensor]:
        """The running returns and their statistics."""
        return {"running": self._running.clone(), **self._returns.state_dict()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores a state of `state_dict`."""
        rest = dict(state)
        self._running.copy_(rest.pop("running"))
        self._returns.load_state_dict(rest)
