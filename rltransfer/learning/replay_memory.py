"""Memory: what was seen and how it was labelled, each Atari frame once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from tensordict import MemoryMappedTensor
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.learning.minibatches import Batch
from rltransfer.machine import distributed
from rltransfer.nested import Nested, from_leaves, leaves
from rltransfer.tasks.observation import Observation

FIELD = "field/"
GROUP = "group/"
STACK = "stack/"


class Memory:
    """A ring of the last `capacity` steps, in RAM or memory-mapped on disk.

    A group of observations that is a stack of frames is stored as its newest frame; a sample's
    stack is put together from the frames before it in the same row, black before the episode's
    start.

    Args:
        capacity: Steps in all, over all rows.
        num_rows: Environments that are stored side by side.
        device: Where samples go; the ring itself stays in host memory if `folder` is given.
        frame_stack: Frames in a stack; 0 where observations are no stacks.
        folder: Where memory-mapped files go; None keeps the ring on `device`.

    Raises:
        InputError: The capacity does not hold one step of every row, or one stack; or the folder is
            a file, or lies in one.
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
                f"A memory of {capacity} steps does not hold {max(frame_stack, 1)} of each of "
                f"{num_rows} environments: make it larger."
            )
        for part in (folder, *folder.parents) if folder else ():
            if part.exists() and not part.is_dir():
                raise InputError(f"The memory's folder {folder} cannot be made: {part} is a file.")
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
            observation: The groups.                             (time, rows, ...)
            start: Whether an observation begins an episode.     (time, rows)
            fields: What else belongs to the step, e.g. a label.  (time, rows, ...)
        """
        time = len(start)
        if time > self.length:
            raise ValueError(f"{time} steps at once do not fit a memory of {self.length}.")
        parts = {FIELD + "/".join(path): value for path, value in leaves(fields)}
        for name, group in observation.items():
            stacked = self._stacked(group)
            parts[(STACK if stacked else GROUP) + name] = group[:, :, -1] if stacked else group
        if self.frame_stack:
            parts["age"] = self._ages(start)
        for name, value in parts.items():
            store = self._room(name, value)
            first = min(time, self.length - self.head)
            store[self.head : self.head + first] = value[:first]
            store[: time - first] = value[first:]
        self.head = (self.head + time) % self.length
        self.filled = min(self.filled + time, self.length)

    def _stacked(self, group: Tensor) -> bool:
        """Tells whether a group is a stack of frames, (time, rows, frames, height, width)."""
        return bool(self.frame_stack) and group.dim() == 5 and group.shape[2] == self.frame_stack

    def _ages(self, start: Tensor) -> Tensor:
        """Returns how many earlier frames of a stack belong to the episode.    (time, rows)"""
        oldest = self.frame_stack - 1
        if self.filled:
            age = self._store["age"][self.head - 1].to(start.device, torch.int64)
        else:
            # What came before the first step was never stored.
            age = torch.full_like(start[0], -1, dtype=torch.int64)
        ages = torch.empty(start.shape, dtype=torch.uint8, device=start.device)
        for time, first in enumerate(start):
            age = torch.where(first, 0, (age + 1).clamp(max=oldest))
            ages[time] = age
        return ages

    def _room(self, name: str, value: Tensor) -> Tensor:
        """Returns the ring of a tensor, made at its first use."""
        if name not in self._store:
            shape = (self.length, self.num_rows, *value.shape[2:])
            if self.folder is None:
                self._store[name] = torch.zeros(shape, dtype=value.dtype, device=self.device)
            else:
                path = self._file(self.folder, name)
                self._store[name] = MemoryMappedTensor.empty(
                    shape, dtype=value.dtype, filename=path
                )
        return self._store[name]

    @staticmethod
    def _file(folder: Path, name: str) -> Path:
        """Returns the path of a tensor's file, where nothing is."""
        own = f"-{distributed.rank()}" if distributed.rank() else ""
        path = folder / f"{name.replace('/', '-')}{own}.memmap"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # A file of an earlier run; one that still runs keeps its own under no name.
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
        """Oldest steps that cannot be sampled, as frames before them were overwritten."""
        return max(self.frame_stack - 1, 0) if self.filled == self.length else 0

    def sample(
        self, batch_size: int, generator: torch.Generator, shares: Tensor | None = None
    ) -> Batch:
        """Returns steps drawn with replacement, uniformly or by task.

        Args:
            batch_size: How many.
            generator: The source of randomness, on the CPU.
            shares: How often each task is drawn, up to a factor; rows of a task stand together, as
                many for each task. All rows alike if None.    (num_tasks,)

        Returns:
            "observation", its groups (batch_size, ...), and every field (batch_size, ...).
        """
        if shares is None:
            return self.take(torch.randint(len(self), (batch_size,), generator=generator))
        task = torch.multinomial(shares.cpu(), batch_size, replacement=True, generator=generator)
        rows = self.num_rows // len(shares)
        row = task * rows + torch.randint(rows, (batch_size,), generator=generator)
        time = torch.randint(len(self) // self.num_rows, (batch_size,), generator=generator)
        return self.take(time * self.num_rows + row)

    def take(self, index: Tensor) -> Batch:
        """Returns the steps of these numbers, 0 the oldest step of the first row.

        Args:
            index: int64, below `len(self)`, on the CPU.    (n,)
        """
        oldest = self.head - self.filled + self._unusable()
        time = (oldest + index // self.num_rows) % self.length
        row = index % self.num_rows
        ring = next(iter(self._store.values()))
        time, row = time.to(ring.device), row.to(ring.device)
        taken: dict[tuple[str, ...], Tensor] = {}
        for name, store in self._store.items():
            if name.startswith(FIELD):
                path = tuple(name.removeprefix(FIELD).split("/"))
                taken[path] = self._gather(store, time, row)
            elif name.startswith(GROUP):
                taken["observation", name.removeprefix(GROUP)] = self._gather(store, time, row)
            elif name.startswith(STACK):
                taken["observation", name.removeprefix(STACK)] = self._stack(store, time, row)
        return from_leaves(taken)

    def _gather(self, store: Tensor, time: Tensor, row: Tensor) -> Tensor:
        """Returns chosen steps, on the device."""
        flat = store.view(self.length * self.num_rows, *store.shape[2:])
        return flat.index_select(0, time * self.num_rows + row).to(self.device, non_blocking=True)

    def _stack(self, store: Tensor, time: Tensor, row: Tensor) -> Tensor:
        """Returns the stacks of frames that end at these steps.    (n, frames, height, width)"""
        back = torch.arange(self.frame_stack - 1, -1, -1, device=time.device)
        times = (time.unsqueeze(-1) - back) % self.length
        flat = store.view(self.length * self.num_rows, *store.shape[2:])
        picked = flat.index_select(0, (times * self.num_rows + row.unsqueeze(-1)).flatten())
        frames = picked.view(len(time), self.frame_stack, *store.shape[2:])
        age = self._gather(self._store["age"], time, row).to(frames.device)
        frames.masked_fill_((back > age.unsqueeze(-1))[:, :, None, None], 0)
        return frames.to(self.device, non_blocking=True)

    def nbytes(self) -> int:
        """Returns the bytes that the ring takes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._store.values())

    def state_dict(self) -> dict[str, Any]:
        """Returns what is stored, as views: the next `add` overwrites them."""
        stored = {
            name.replace("/", "|"): tensor[: self.filled] for name, tensor in self._store.items()
        }
        return {"head": self.head, "filled": self.filled, "store": stored}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to what `state_dict` returned."""
        self.head, self.filled = state["head"], state["filled"]
        for key, tensor in state["store"].items():
            # Earlier versions named the tensors of a label "teacher_logits" and so on.
            name = key.replace("|", "/").replace(f"{FIELD}teacher_", f"{FIELD}label/")
            store = self._room(name, tensor)
            store[: self.filled] = tensor.to(store.device)
