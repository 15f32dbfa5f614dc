"""TorchScript files (`torch.jit.save`) as policies.

A TorchScript file is a program. It runs in TorchScript's interpreter, which has tensor operations
but no Python: nothing is unpickled as Python objects, and nothing is imported. Some operators do
more than compute, e.g. `save` and `from_file` write files. Only a program of operators that are
known to compute runs, and torch reads a copy of what was checked: see `script_check.py`. Its first
runs have bounds of time and memory, but later ones may run forever or fill the memory: use files
from people you trust.

The program outputs one tensor: logits or Q-values for discrete actions, the greedy action for
continuous ones. Its input is float32, in the units of the environment times `scale`.
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
    recurrent_layers,
    write_checked,
)
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
            state: Not used, as programs have no recurrent state.
            start: Not used.

        Raises:
            ValueError: The kind of output is "auto", and no task has determined it.
        """
        if self.output == "auto":
            raise ValueError(
                f"The output of {self.path} is known when it is fitted to a task: set `output`, or "
                "fit it."
            )
        inputs = self.read(observation)
        # A copy in any case, as the program may change its input in place.
        output = self._run(inputs.clone() if self.scale == 1.0 else inputs * self.scale).float()
        return PolicyOutput(
            **{self.output: output if self.output == "mean" else mask_infinite(output)}
        )

    def _run(self, inputs: Tensor) -> Tensor:
        """The output of the program.    (rows, num_actions)

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
            reason = [type(error).__name__, *str(error).strip().splitlines()][-1]
            raise InputError(
                f"The program of the teacher {self.path} fails on {len(inputs)} observations of "
                f"the shape {list(inputs.shape[1:])}: {reason}."
            ) from error
        return outputs

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
        self._check_stateless(row)
        wanted = (SAMPLES, action_size(self.action_space))
        for mode in get_args(RowMode):
            self.rows = mode
            labels = self._labels(observation)
            if labels is not None and labels.shape == wanted:
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
        layers = recurrent_layers(self.script)
        if layers:
            return self._recurrent(layers)
        shape = list(self.read(observations[0]).shape[1:])
        return self.refusal(
            task_id, f"does not map observations of the shape {shape} to one tensor"
        )

    def _check_stateless(self, row: Observation) -> None:
        """Checks that the program is the same after it has run.

        Args:
            row: A single observation, as recurrent programs are written for one environment.

        Raises:
            InputError: It is not.
        """
        before = {name: buffer.clone() for name, buffer in self.script.named_buffers()}
        first, second = (self._labels(row) for _ in range(2))
        changed = [
            name
            for name, buffer in self.script.named_buffers()
            if not torch.equal(buffer, before[name])
        ]
        if changed:
            raise self._recurrent(changed)
        if first is not None and (second is None or not torch.equal(first, second)):
            raise self._unsteady()

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
        try:
            with torch.no_grad():
                labels: Tensor = getattr(self(observation), self.output)
        except (*FAILURES, MemoryError) as error:
            if is_memory_error(error):
                raise memory_refusal(self.path) from None
            return None
        return labels


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
