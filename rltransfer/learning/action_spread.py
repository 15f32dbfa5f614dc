"""The spread of a teacher's continuous actions, the unit of noise and of a student's outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rltransfer.machine import distributed

LEAST = 1e-3
"""Smallest unit of a student's outputs, in half-ranges: a teacher may stand still at first."""

UNIT_STEPS, UNIT_FRACTION = 128, 0.05
"""Steps of each environment from which a student's units follow, and the largest fraction of a run
that they may be."""


class ActionSpread:
    """Mean and standard deviation of a teacher's actions, for each task and action dimension.

    Bounds of actions do not tell how a teacher acts between them: a robot's are often so wide that
    noise of a twentieth of them makes it fall, and that a network in units of them learns only
    coarse actions.

    Args:
        half_range: Half the distance between the bounds, 1 without bounds and 0 for padding.
            (num_tasks, action_dim)

    Attributes:
        noise: The unit of exploration noise: a standard deviation, at most a half-range; 0 until
            the first update.    (num_tasks, action_dim)
        steps: Number of steps of each environment so far.
        has_set_units: Whether a student has its units from here, which then stay.
    """

    def __init__(self, half_range: Tensor) -> None:
        self.half_range = half_range
        self.noise = torch.zeros_like(half_range)
        self.steps = 0
        self.has_set_units = False
        # The number of actions, the sum of actions, and that of their squares.
        self._sums = torch.zeros(
            3, *half_range.shape, dtype=torch.float64, device=half_range.device
        )

    def update(self, action: Tensor) -> None:
        """Counts the teacher's actions in a rollout.

        Args:
            action: Rows in the order of the tasks, equally many of each.  (time, rows, action_dim)
        """
        each = action.double().unflatten(1, (len(self.half_range), -1))
        parts = [torch.ones_like(each), each, each.square()]
        self._sums += distributed.total(torch.stack([part.sum((0, 2)) for part in parts]))
        self.steps += len(action)
        _, spread = _moments(self._sums)
        # In place: captured CUDA graphs read this tensor.
        self.noise.copy_(torch.minimum(spread, self.half_range))

    def suffices(self, rows: int, total_steps: int) -> bool:
        """Whether there are enough steps for a student's units.

        Args:
            rows: Number of environments.
            total_steps: Steps of the run, over all processes.
        """
        most = UNIT_FRACTION * total_steps / (rows * distributed.world_size())
        return self.steps >= min(UNIT_STEPS, most)

    def units(self, rows: int) -> tuple[Tensor, Tensor]:
        """The mean and the standard deviation as the units of a student's outputs.

        Dimensions in which the teacher has hardly moved keep their half-range.

        Args:
            rows: 1 for one unit of all tasks, num_tasks for one of each.

        Returns:
            center and half-range, (rows, action_dim) each.
        """
        sums = self._sums if rows > 1 else self._sums.sum(1, keepdim=True)
        half_range = self.half_range if rows > 1 else self.half_range[:1]
        center, spread = _moments(sums)
        moves = spread > LEAST * half_range
        return center, torch.where(moves, spread, half_range.where(half_range > 0, 1.0))

    def state_dict(self) -> dict[str, Any]:
        """The actions counted so far."""
        return {
            "sums": self._sums.clone(), "noise": self.noise.clone(),
            "steps": self.steps, "has_set_units": self.has_set_units,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Restores a state of `state_dict`; None starts with half-ranges."""
        # Students of earlier versions have had their units since the first rollout.
        self.has_set_units = (state or {}).get("has_set_units", True)
        self.steps = (state or {}).get("steps", 0)
        if state is None:
            self.noise.copy_(self.half_range)
            return
        self._sums.copy_(state["sums"])
        self.noise.copy_(state["noise"])


def _moments(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, float32.    (rows, action_dim) each

    Args:
        sums: Count, sum and sum of squares.    (3, rows, action_dim)
    """
    count, total, squares = sums
    mean = total / count
    return mean.float(), (squares / count - mean.square()).clamp(min=0).sqrt().float()
