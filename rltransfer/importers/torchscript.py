"""TorchScript files (`torch.jit.save`) as policies.

A TorchScript file is a program. It runs in TorchScript's interpreter, which has tensor operations
but no Python: nothing is unpickled as Python objects, and nothing is imported. Some operators do
more than compute, e.g. `save` and `from_file` write files. Only a program of operators that are
known to compute runs, and torch reads a copy of what was checked: see `script_check.py`. Its first
runs have bounds of time and memory, but later ones may run forever or fill the memory: use files
from people you trust.

The program outputs one tensor: logits or Q-values for discrete actions, the greedy action for
continuous ones. Its input is float32, in the units of the environment times `scale`. A program that
keeps the state of one environment in buffers remembers each row: see `script_state.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError, unknown
from rltransfer.importers.archive import names_of
from rltransfer.importers.damage import DAMAGE, read_file
from rltransfer.importers.imported_policy import ImportedPolicy
from rltransfer.importers.script_check import (
    STATELESS,
    check_operators,
    write_checked,
)
from rltransfer.importers.script_state import BufferStates
from rltransfer.importers.trial import is_memory_error, memory_refusal, within_bounds
from rltransfer.policies.output import EMPTY, Needs, PolicyOutput
from rltransfer.policies.scores import mask_infinite
from rltransfer.tasks.action import action_size
from rltransfer.tasks.image_layout import ImageBox
from rltransfer.tasks.observation import DEFAULT_GROUP, Observation
from rltransfer.tasks.random_observation import random_observation

OutputName = Literal["auto", "logits", "q_values", "mean"]

RowMode = Literal["together", "vmap", "one by one"]
"""How a program gets several observations: one for a single row is batched by `torch.vmap`, or runs
once for each."""

FAILURES = (
    RuntimeError,
    torch.jit.Error,
    NotImplementedError,
    AttributeError,
    TypeError,
    ValueError,
)
"""What a program, or a batched one, raises on observations that it does not take."""

SAMPLES = 3
"""Observations that a program is tested with: several, to detect a fixed batch size."""


class ScriptedPolicy(ImportedPolicy):
    """A TorchScript program as a policy."""

    kind = "torchscript"

    def __init__(
        self,
        script: torch.jit.ScriptModule,
        *,
        path: Path,
        sha256: str,
        output: OutputName = "auto",
        scale: float = 1.0,
        groups: Sequence[str] = (DEFAULT_GROUP,),
    ) -> None:
        """Creates a policy from a program.

        Args:
            script: The program: one tensor (rows, ...) in, one tensor (rows, num_actions) out.
            path: The file.
            sha256: Hash of the file.
            output: What the program outputs. "auto" means logits for discrete actions and the mean
                for continuous ones, as soon as the policy is fitted to a task.
            scale: Factor on every observation.
            groups: The observation groups that it reads, in order.
        """
        super().__init__(path, sha256, groups)
        self.script = script
        self.output: OutputName = output
        self.scale = scale
        self.rows: RowMode = "together"
        self.memory: BufferStates | None = None

    def forward(
        self,
        observation: Observation,
        needs: Needs = EMPTY,
        state: Tensor | None = None,
        start: Tensor | None = None,
    ) -> PolicyOutput:
        """The output of the program, in the field of its kind.

        Args:
            observation: The groups.    (rows, ...)
            needs: See `Policy`.
            state: The recurrent state before these observations; see `ImportedPolicy`.
            start: Whether a row is an episode's first.    (rows,)

        Raises:
            InputError: The program fails, e.g. on observations that it was not tried on.
            ValueError: The kind of output is "auto", and no task has determined it.
        """
        if self.output == "auto":
            raise ValueError(
                f"The output of {self.path} is known when it is fitted to a task: set `output`, or "
                "fit it."
            )
        inputs = self.read(observation)
        # A copy in any case, as the program may change its input in place.
        inputs = inputs.clone() if self.scale == 1.0 else inputs * self.scale
        after: Tensor | None = None
        if self.memory is None:
            output = self._run(inputs)
        else:
            if "jacobian" in needs:
                raise InputError(
                    f"The program of the teacher {self.path} changes its state in place, so that "
                    "it has no gradient: use an objective that needs none."
                )
            output, after = self._step(self.memory, inputs, state, start)
        output = output.float()
        fields = {self.output: output if self.output == "mean" else mask_infinite(output)}
        return PolicyOutput(**fields, state=after)

    def _step(
        self, buffers: BufferStates, inputs: Tensor, state: Tensor | None, start: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The output of a program with a state, and the states after it.

        Args:
            buffers: Where the program keeps its state.
            inputs: What it reads.    (rows, ...)
            state: The states before; None at the start of all rows' episodes.
                (rows, state_size)
            start: Whether a row is an episode's first.    (rows,)
        """
        if state is None:
            state = inputs.new_zeros(len(inputs), buffers.state_size)
        elif start is not None:
            state = state.masked_fill(start.unsqueeze(-1), 0.0)
        try:
            if self.rows == "together":
                return buffers.run(self.script, inputs, state)
            each = [
                buffers.run(self.script, row, before)
                for row, before in zip(inputs.split(1), state.split(1), strict=True)
            ]
        except FAILURES as error:
            raise self._failure(inputs, error) from error
        return torch.stack([one.flatten() for one, _ in each]), torch.cat([two for _, two in each])

    def _run(self, inputs: Tensor) -> Tensor:
        """The output of a program without a state.    (rows, num_actions)

        Args:
            inputs: What it reads.    (rows, ...)

        Raises:
            InputError: The program fails, e.g. on observations that it was not tried on.
        """

        def one(row: Tensor) -> Tensor:
            output: Tensor = self.script(row.unsqueeze(0))
            return output.flatten()

        try:
            if self.rows == "vmap":
                outputs: Tensor = torch.vmap(one)(inputs)
            elif self.rows == "one by one":
                outputs = torch.stack([one(row) for row in inputs])
            else:
                outputs = self.script(inputs)
        except FAILURES as error:
            raise self._failure(inputs, error) from error
        return outputs

    def _failure(self, inputs: Tensor, error: Exception) -> InputError:
        """The error for a program that fails on what it reads.    (rows, ...)"""
        reason = [type(error).__name__, *str(error).strip().splitlines()][-1]
        return InputError(
            f"The program of the teacher {self.path} fails on {len(inputs)} observations of the "
            f"shape {list(inputs.shape[1:])}: {reason}."
        )

    def preprocessing(self) -> dict[str, Any]:
        """The groups and the scale."""
        return {**super().preprocessing(), "scale": self.scale}

    def check_fit(self, task_id: str, shown: Observation | None) -> None:
        """Runs the program on observations of the task, on the CPU, within bounds."""
        within_bounds(lambda: self._try(task_id, shown), self.path)

    def _try(self, task_id: str, shown: Observation | None) -> None:
        assert self.observation_space is not None and self.action_space is not None
        discrete = isinstance(self.action_space, spaces.Discrete)
        if self.output == "auto":
            self.output = "logits" if discrete else "mean"
        if discrete == (self.output == "mean"):
            raise self.refusal(task_id, f"outputs {self.output!r}")
        row = random_observation(self.observation_space, 1) if shown is None else shown
        observation = {name: row[name].expand(SAMPLES, *row[name].shape[1:]) for name in row}
        if any(isinstance(part, ImageBox) for part in self.observation_space.spaces.values()):
            self.as_shown = True
            self.as_shown = self._labels(row) is not None
        self._find_state(row)
        wanted = (SAMPLES, action_size(self.action_space))
        for mode in get_args(RowMode):
            self.rows = mode
            labels = self._labels(observation)
            if labels is not None and labels.shape == wanted and self._keeps_apart(observation):
                break
        else:
            self.rows = "together"
            raise self._misfit(task_id, observation, row)
        again = self._labels(observation)
        if again is None or not torch.equal(labels, again):
            raise self._unsteady()

    def _misfit(self, task_id: str, *observations: Observation) -> InputError:
        """The error for a program that fails, or outputs another number of values."""
        for observation in observations:
            labels = self._labels(observation)
            if labels is not None:
                count = len(self.read(observation))
                return self.refusal(
                    task_id, f"outputs the shape {list(labels.shape)} for {count} observations"
                )
        method: Any = self.script.forward
        needed = method.schema.arguments[2:]
        names = [one.name for one in needed if not one.has_default_value()]
        if names:
            return InputError(
                f"The teacher {self.path} takes {', '.join(map(repr, names))} in addition to an "
                f"observation, e.g. a recurrent state, which cannot be passed: {STATELESS}."
            )
        shape = list(self.read(observations[0]).shape[1:])
        return self.refusal(
            task_id, f"does not map observations of the shape {shape} to one tensor"
        )

    def _find_state(self, row: Observation) -> None:
        """Finds the buffers in which the program keeps a state.

        Args:
            row: A single observation, as recurrent programs are written for one environment.

        Raises:
            InputError: They are not the state of an episode's start, or the program changes in
                another way.
        """
        self.memory, self.state_size, self.rows = None, 0, "together"
        before = {name: buffer.clone() for name, buffer in self.script.named_buffers()}
        first, second = (self._labels(row) for _ in range(2))
        changed = {}
        for name, buffer in self.script.named_buffers():
            if not torch.equal(buffer, before[name]):
                changed[name] = before[name]
                if buffer.shape == before[name].shape:
                    buffer.copy_(before[name])
        if changed:
            if not BufferStates.fits(list(changed.values())):
                raise self._recurrent(list(changed))
            if any(bool(one.any()) for one in changed.values()):
                raise InputError(
                    f"The teacher {self.path} was saved in the middle of an episode, as its state "
                    f"({', '.join(changed)}) is not 0: reset it, and save it again."
                )
            self.memory = BufferStates(changed)
            self.state_size = self.memory.state_size
            return
        if first is not None and (second is None or not torch.equal(first, second)):
            raise self._unsteady()

    def _keeps_apart(self, observation: Observation) -> bool:
        """Whether the program does to several rows what it does to each by itself.

        It does not if it takes rows for steps of a sequence.

        Args:
            observation: The groups of several rows.    (rows, ...)
        """
        if self.rows != "together":
            return self.rows == "one by one" or self.memory is None  # `vmap` changes no buffers
        state: Tensor | None = None
        if self.memory is not None:
            generator = torch.Generator().manual_seed(0)
            state = torch.randn(SAMPLES, self.state_size, generator=generator).tanh()
        together = self._tried(observation, state)
        for place in range(SAMPLES):
            row = {name: group[place : place + 1] for name, group in observation.items()}
            alone = self._tried(row, None if state is None else state[place : place + 1])
            if together is None or (alone is None and state is not None):
                return False
            for one, other in zip(alone or [], together, strict=False):
                own = other[place].flatten()
                if one.numel() != own.numel() or not torch.allclose(
                    one.flatten(), own, 1e-4, 1e-5, equal_nan=True
                ):
                    return False
        return True

    def _unsteady(self) -> InputError:
        return InputError(
            f"The teacher {self.path} outputs different values for the same observations: a "
            "teacher must not keep a state or draw random numbers."
        )

    def _recurrent(self, names: Sequence[str]) -> InputError:
        """The error for a program with these layers or tensors of a state."""
        return InputError(
            f"The teacher {self.path} keeps a state between observations ({', '.join(names)}), for "
            f"one environment: {STATELESS}."
        )

    def _labels(self, observation: Observation) -> Tensor | None:
        """The output of the program for some observations; None if it fails."""
        tried = self._tried(observation)
        return None if tried is None else tried[0]

    def _tried(self, observation: Observation, state: Tensor | None = None) -> list[Tensor] | None:
        """The output of the program, and the states after it if any; None if it fails.

        Args:
            observation: The groups.    (rows, ...)
            state: The states before; None at the start of all rows' episodes.
        """
        try:
            with torch.no_grad():
                output = self(observation, state=state)
        except (*FAILURES, MemoryError) as error:
            if is_memory_error(error):
                raise memory_refusal(self.path) from None
            return None
        return [getattr(output, self.output), *([] if output.state is None else [output.state])]


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive and not one of `torch.save`."""
    names = [name.partition("/")[2] for name in names_of(path)]
    return "constants.pkl" in names and any(name.startswith("code/") for name in names)


def load_torchscript(
    path: Path,
    output: OutputName = "auto",
    scale: float = 1.0,
    groups: Sequence[str] = (DEFAULT_GROUP,),
) -> ScriptedPolicy:
    """The program of a TorchScript file, frozen, on the CPU.

    Args:
        path: The file that `torch.jit.save` wrote.
        output: What it outputs: "logits", "q_values", "mean" or "auto".
        scale: Factor on every observation, e.g. 1/255 for bytes.
        groups: The observation groups that it reads, in order.

    Raises:
        InputError: The file is missing, damaged or not TorchScript, or has an operator that is
            not allowed; or
            an option has no such value.
    """
    if output not in get_args(OutputName):
        raise unknown("output of a TorchScript file", output, get_args(OutputName))
    if not (math.isfinite(scale) and scale != 0):
        raise InputError(
            f"The scale of the observations of {path} is {scale}: it must be finite and not 0."
        )
    content = read_file(path, "a TorchScript file")
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        with _memory_file() as (file, source):
            write_checked(content, path, file)
            del content  # each copy of a large file counts
            file.seek(0)
            with warnings.catch_warnings():
                # Deprecated in favour of torch.export, but still what robots run.
                warnings.simplefilter("ignore", DeprecationWarning)
                script = torch.jit.load(source, map_location="cpu")
        check_operators(script, path)
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a TorchScript file, or is damaged.") from error
    policy = ScriptedPolicy(
        script,
        path=path,
        sha256=sha256,
        output=output,
        scale=scale,
        groups=groups,
    )
    return policy.eval().requires_grad_(False)


@contextlib.contextmanager
def _memory_file() -> Iterator[tuple[BinaryIO, Any]]:
    """Yields a file in memory to write to, and what torch reads it from.

    torch copies a file object three times, and a file with a name not at all.
    """
    if not hasattr(os, "memfd_create"):  # other systems than Linux
        file = io.BytesIO()
        yield file, file
        return
    with os.fdopen(os.memfd_create("program"), "w+b") as memory:
        yield memory, f"/proc/self/fd/{memory.fileno()}"
