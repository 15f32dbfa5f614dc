"""The replay memory: observations and labels, each Atari frame stored once."""

from __future__ import annotations

import math
import operator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from tensordict import MemoryMappedTensor
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.learning.minibatches import Batch
from rltransfer.machine import distributed
from rltransfer.nested import Nested, from_leaves, leaves
from rltransfer.tasks.observation import Observation

FIELD, GROUP, STACK, AGE = "field", "group", "stack", "age"
"""Kinds of stored tensors, the first part of their names, e.g. "field/label/logits"."""


class ReplayMemory:
    """A ring buffer of the last `capacity` steps, in RAM or memory-mapped on disk.

    Of a stack of frames, the newest frame alone is stored. `take` rebuilds the stack from the
    earlier frames of the same row; frames before the start of the episode are black.

    Args:
        capacity: Steps, over all rows.
        num_rows: Environments.
        device: Device of the samples, and of the ring buffer unless `folder` is set.
        frame_stack: Frames in a stack; 0 if observations are not stacked.
        folder: Folder of the memory-mapped files; None keeps the ring buffer on `device`.

    Raises:
        InputError: The capacity is less than one step or stack per row, or the folder is a file or
            inside one.
    """

    def __init__(
        self,
        capacity: int,
        num_rows: int,
        device: torch.device,
        frame_stack: int = 0,
        folder: Path | None = None,
    ) -> None:
        self.length = math.ceil(capacity / num_rows) + max(frame_stack - 1, 0)
        if capacity < num_rows * max(frame_stack, 1):
            raise InputError(
                f"A memory of {capacity} steps is too small for {max(frame_stack, 1)} steps of "
                f"each of {num_rows} environments: make it larger."
            )
        for part in (folder, *folder.parents) if folder else ():
            if part.exists() and not part.is_dir():
                raise InputError(
                    f"The memory's folder {folder} cannot be created: {part} is a file."
                )
        self.num_rows = num_rows
        self.device = device
        self.frame_stack = frame_stack
        self.folder = folder
        self.head = 0
        self.filled = 0
        self._store: dict[str, Tensor] = {}

    def add(self, observation: Observation, start: Tensor, fields: Nested) -> None:
        """Appends steps of all rows.

        Args:
            observation: The groups.                                  (time, rows, ...)
            start: Whether the step is the first of its episode.      (time, rows)
            fields: Other tensors of the step, e.g. a label.          (time, rows, ...)
        """
        time = len(start)
        if time > self.length:
            raise ValueError(f"{time} steps at once do not fit a memory of {self.length}.")
        parts = self._parts(observation, fields)
        if self.frame_stack:
            parts[AGE] = self._ages(start)
        for name, value in parts.items():
            store = self._ring(name, value)
            first = min(time, self.length - self.head)
            store[self.head : self.head + first] = value[:first]
            store[: time - first] = value[first:]
        self.head = (self.head + time) % self.length
        self.filled = min(self.filled + time, self.length)

    def _parts(self, observation: Observation, fields: Nested) -> dict[str, Tensor]:
        """What is stored of steps, by the names of the ring buffers, without the ages of stacks.

        Args:
            observation: The groups.                         (time, rows, ...)
            fields: Other tensors of the step.               (time, rows, ...)
        """
        parts = {"/".join((FIELD, *path)): value for path, value in leaves(fields)}
        for name, group in observation.items():
            if self.frame_stack and group.dim() == 5 and group.shape[2] == self.frame_stack:
                parts[f"{STACK}/{name}"] = group[:, :, -1]
            else:
                parts[f"{GROUP}/{name}"] = group
        return parts

    @property
    def capacity(self) -> int:
        """Steps that it holds, over all rows."""
        return self.length * self.num_rows

    def step_bytes(self, observation: Observation, fields: Nested) -> int:
        """Bytes that a step of one row takes.

        Args:
            observation: The groups of a step.               (rows, ...)
            fields: Other tensors of the step.               (rows, ...)
        """
        groups = {name: group.unsqueeze(0) for name, group in observation.items()}
        rest = from_leaves({path: value.unsqueeze(0) for path, value in leaves(fields)})
        parts = self._parts(groups, rest).values()
        age = self.frame_stack > 0
        return age + sum(value[0, 0].numel() * value.element_size() for value in parts)

    def _ages(self, start: Tensor) -> Tensor:
        """How many earlier frames of each stack belong to its episode.    (time, rows)"""
        oldest = self.frame_stack - 1
        if self.filled:
            age = self._store[AGE][self.head - 1].to(start.device, torch.int64)
        else:
            # Nothing from before the first step is stored.
            age = torch.full_like(start[0], -1, dtype=torch.int64)
        ages = torch.empty(start.shape, dtype=torch.uint8, device=start.device)
        for time, first in enumerate(start):
            age = torch.where(first, 0, (age + 1).clamp(max=oldest))
            ages[time] = age
        return ages

    def _ring(self, name: str, value: Tensor) -> Tensor:
        """The ring buffer of a tensor, created at its first use."""
        if name not in self._store:
            shape = (self.length, self.num_rows, *value.shape[2:])
            if self.folder is None:
                self._store[name] = self._zeros(shape, value.dtype)
            else:
                self._store[name] = MemoryMappedTensor.empty(
                    shape, dtype=value.dtype, filename=self._free_path(self.folder, name)
                )
        return self._store[name]

    def _zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        try:
            return torch.zeros(shape, dtype=dtype, device=self.device)
        except RuntimeError as error:
            raise InputError(
                f"A replay buffer of {self.capacity:_} steps cannot be allocated on {self.device}: "
                "use smaller --memory-steps."
            ) from error

    @staticmethod
    def _free_path(folder: Path, name: str) -> Path:
        """The path of a tensor's file, with any earlier file removed."""
        suffix = f"-{distributed.rank()}" if distributed.rank() else ""
        kind, _, rest = name.partition("/")
        # Quoted, as a group may have any name, and "a/b" is not "a-b".
        path = folder / f"{kind}-{quote(rest, safe='')}{suffix}.memmap"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # A process that still maps an earlier run's file keeps its data.
            path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"The memory's folder {folder} cannot be written: {error.strerror}."
            ) from error
        return path

    def __len__(self) -> int:
        """Steps that can be sampled."""
        return (self.filled - self._unusable()) * self.num_rows

    def _unusable(self) -> int:
        """Number of oldest steps whose earlier frames are overwritten."""
        return max(self.frame_stack - 1, 0) if self.filled == self.length else 0

    def sample(
        self, batch_size: int, generator: torch.Generator, task_weights: Tensor | None = None
    ) -> Batch:
        """Draws steps with replacement, uniformly or by task.

        Args:
            batch_size: Number of steps.
            generator: Source of random numbers, on the CPU.
            task_weights: Sampling weight of each task; each has the same number of consecutive
                rows. None samples all rows equally.    (num_tasks,)

        Returns:
            "observation", its groups (batch_size, ...), and every field (batch_size, ...).
        """
        if task_weights is None:
            return self.take(torch.randint(len(self), (batch_size,), generator=generator))
        weights = task_weights.cpu()
        task = torch.multinomial(weights, batch_size, replacement=True, generator=generator)
        rows = self.num_rows // len(weights)
        row = task * rows + torch.randint(rows, (batch_size,), generator=generator)
        time = torch.randint(len(self) // self.num_rows, (batch_size,), generator=generator)
        return self.take(time * self.num_rows + row)

    def take(self, index: Tensor) -> Batch:
        """The steps with these indices; 0 is the oldest step of the first row.

        Args:
            index: int64, below `len(self)`, on the CPU.    (n,)
        """
        oldest = self.head - self.filled + self._unusable()
        time = (oldest + index // self.num_rows) % self.length
        row = index % self.num_rows
        device = next(iter(self._store.values())).device
        time, row = time.to(device), row.to(device)
        taken: dict[tuple[str, ...], Tensor] = {}
        for name, store in self._store.items():
            kind, _, rest = name.partition("/")
            if kind == FIELD:
                taken[tuple(rest.split("/"))] = self._gather(store, time, row)
            elif kind != AGE:
                gather = self._gather_stacks if kind == STACK else self._gather
                taken["observation", rest] = gather(store, time, row)
        return from_leaves(taken)

    def _gather(self, store: Tensor, time: Tensor, row: Tensor) -> Tensor:
        flat = store.view(self.length * self.num_rows, *store.shape[2:])
        return flat.index_select(0, time * self.num_rows + row).to(self.device, non_blocking=True)

    def _gather_stacks(self, store: Tensor, time: Tensor, row: Tensor) -> Tensor:
        """The stacks of frames that end at these steps.    (n, frames, height, width)"""
        back = torch.arange(self.frame_stack - 1, -1, -1, device=time.device)
        times = (time.unsqueeze(-1) - back) % self.length
        flat = store.view(self.length * self.num_rows, *store.shape[2:])
        picked = flat.index_select(0, (times * self.num_rows + row.unsqueeze(-1)).flatten())
        frames = picked.view(len(time), self.frame_stack, *store.shape[2:])
        age = self._gather(self._store[AGE], time, row).to(frames.device)
        frames.masked_fill_((back > age.unsqueeze(-1))[:, :, None, None], 0)
        return frames.to(self.device, non_blocking=True)

    def nbytes(self) -> int:
        """Size of the ring buffer, in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._store.values())

    def state_dict(self) -> dict[str, Any]:
        """The contents, as views: the next `add` overwrites them."""
        stored = {name: ring[: self.filled] for name, ring in self._store.items()}
        return {"head": self.head, "filled": self.filled, "store": stored}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `state_dict`."""
        self.head, self.filled = map(operator.index, (state["head"], state["filled"]))
        if not (0 <= self.head <= self.length and 0 <= self.filled <= self.length):
            raise ValueError("a position outside the memory")
        for key, tensor in state["store"].items():
            name = key
            if "/" not in key:  # as earlier versions wrote it: "field|teacher_logits" and so on
                name = key.replace("|", "/").replace(f"{FIELD}/teacher_", f"{FIELD}/label/")
            store = self._ring(name, tensor)
            store[: self.filled] = tensor.to(store.device)
