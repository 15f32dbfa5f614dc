"""The recurrent states of a teacher: one for each environment that it labels, step by step."""

from __future__ import annotations

import torch
from torch import Tensor


class RowStates:
    """The states of the rows of a step, which are the same environments in each step.

    What is labelled outside of steps, e.g. an example before a run, counts as an episode's first
    observation and leaves the states as they are.

    Args:
        size: Numbers in a state.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._states: Tensor | None = None
        self._start: Tensor | None = None
        self._in_step = False

    def begin_step(self, start: Tensor) -> None:
        """Begins a step of all environments.

        Args:
            start: Whether a row is an episode's first, where the state is reset.    (rows,)
        """
        if not len(start):  # of several tasks, those that are not in this step
            self._in_step = False
            return
        if self._states is None or self._start is None or len(self._states) != len(start):
            self._states = torch.zeros(len(start), self.size, device=start.device)
            self._start = torch.ones_like(start)
        else:
            # In place: captured CUDA graphs read this tensor.
            self._start.copy_(start)
        self._in_step = True

    def before(self, rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The states before the rows' observations, and whether they are to be reset.

        Args:
            rows: Number of rows.
            device: Their device.

        Returns:
            The states and the resets.    (rows, size), (rows,)
        """
        if self._in_step and self._states is not None and self._start is not None:
            return self._states, self._start
        first = torch.ones(rows, dtype=torch.bool, device=device)
        return torch.zeros(rows, self.size, device=device), first

    def after(self, states: Tensor) -> None:
        """Ends a step with the states after its observations.    (rows, size)"""
        if self._in_step and self._states is not None:
            # Without gradients, which a label's Jacobian would follow into earlier steps.
            self._states.copy_(states.detach())
        self._in_step = False

    def set_aside(self) -> tuple[Tensor | None, Tensor | None]:
        """Forgets the states and returns them, for `take_up`.

        The tensors themselves: captured CUDA graphs read and write these.
        """
        aside = self._states, self._start
        self._states, self._start, self._in_step = None, None, False
        return aside

    def take_up(self, aside: tuple[Tensor | None, Tensor | None]) -> None:
        """Continues with what `set_aside` returned."""
        self._states, self._start = aside
        self._in_step = False

    def state_dict(self) -> dict[str, Tensor]:
        """The states, for checkpoints; empty without any."""
        return {} if self._states is None else {"states": self._states.clone()}

    def load_state_dict(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Restores a state of `state_dict`."""
        self._states = self._start = None
        self._in_step = False
        if "states" in state:
            self._states = state["states"].to(device, copy=True)
            self._start = torch.zeros(len(self._states), dtype=torch.bool, device=device)
