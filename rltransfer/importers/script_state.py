"""The recurrent state that a TorchScript program keeps in its buffers.

A program that is exported for a robot keeps the state of one environment, as rsl_rl, legged_gym and
unitree_rl_gym write it: `hidden_state` and perhaps `cell_state`, of the shape (layers, 1, size).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

LARGEST = 2**20
"""Numbers in a state, of which each environment has one."""


class BufferStates:
    """Buffers that hold the state of each row while the program runs, and are as before afterwards.

    Attributes:
        state_size: Numbers in the state of a row.
    """

    def __init__(self, buffers: Mapping[str, Tensor]) -> None:
        """Creates it.

        Args:
            buffers: The buffers by name; see `fits`.    (layers, 1, size) each
        """
        self.shapes = {name: (one.shape[0], one.shape[2]) for name, one in buffers.items()}
        self.sizes = [layers * size for layers, size in self.shapes.values()]
        self.state_size = sum(self.sizes)

    @staticmethod
    def fits(buffers: Sequence[Tensor]) -> bool:
        """Whether these can be the state of one environment, at an episode's start."""
        return sum(one.numel() for one in buffers) <= LARGEST and all(
            one.dim() == 3 and one.shape[1] == 1 and one.dtype == torch.float32 for one in buffers
        )

    def run(
        self, script: torch.jit.ScriptModule, inputs: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The output of the program for some rows, and their states.

        Args:
            script: The program.
            inputs: What it reads.    (rows, ...)
            state: The states before.    (rows, state_size)

        Raises:
            RuntimeError: The program fails, or changes the shape of its state.
        """
        rows = len(inputs)
        places = [_place(script, name) for name in self.shapes]
        before = [getattr(*place) for place in places]
        try:
            parts = state.split(self.sizes, 1)
            for place, part, shape in zip(places, parts, self.shapes.values(), strict=True):
                # A copy in any case, as the program changes it in place.
                part = part.reshape(rows, *shape).transpose(0, 1)
                setattr(*place, part.clone(memory_format=torch.contiguous_format))
            outputs: Tensor = script(inputs)
            after = [getattr(*place) for place in places]
        finally:
            for place, value in zip(places, before, strict=True):
                setattr(*place, value)
        for value, (layers, size) in zip(after, self.shapes.values(), strict=True):
            if value.shape != (layers, rows, size):
                raise RuntimeError("its state changes its shape")
        return outputs, torch.cat([one.transpose(0, 1).reshape(rows, -1) for one in after], 1)


def _place(script: torch.jit.ScriptModule, name: str) -> tuple[Any, str]:
    """The module that has a buffer, and the name of the buffer in it."""
    *modules, last = name.split(".")
    return functools.reduce(getattr, modules, script), last
