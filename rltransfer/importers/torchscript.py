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
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, get_args

import torch
from torch import Tensor

from rltransfer.errors import InputError, unknown
from rltransfer.importers.archive import names_of
from rltransfer.importers.damage import DAMAGE, read_file
from rltransfer.importers.file_options import checked_scale
from rltransfer.importers.program_policy import OutputName, ProgramPolicy
from rltransfer.importers.script_argument import ArgumentStates, Shape, find_states
from rltransfer.importers.script_check import (
    STATELESS,
    check_operators,
    write_checked,
)
from rltransfer.importers.script_state import BufferStates
from rltransfer.policies.output import Needs
from rltransfer.tasks.observation import DEFAULT_GROUP, Observation


class ScriptedPolicy(ProgramPolicy):
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
        shapes: Sequence[Shape] = (),
    ) -> None:
        """Creates a policy from a program.

        Args:
            script: The program: one tensor (rows, ...) in, one tensor (rows, num_actions) out.
            path: The file.
            sha256: Hash of the file.
            output: What the program outputs; see `ProgramPolicy`.
            scale: Factor on every observation.
            groups: The observation groups that it reads, in order.
            shapes: The shape of each tensor of a state that it takes as an argument, or one for
                all; empty to find it by trials.
        """
        super().__init__(path, sha256, output, scale, groups)
        self.script = script
        self.shapes = tuple(shapes)
        self.memory: BufferStates | ArgumentStates | None = None

    def call(self, inputs: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Runs the program once; see `ProgramPolicy`."""
        if self.memory is None or state is None:
            output: Tensor = self.script(inputs)
            return output, None
        return self.memory.run(self.script, inputs, state)

    def can_vmap(self) -> bool:
        """Whether `torch.vmap` may run the program: it changes no buffers."""
        return not isinstance(self.memory, BufferStates)

    def check_needs(self, needs: Needs) -> None:
        """Refuses to differentiate a program with a state in buffers."""
        if isinstance(self.memory, BufferStates) and "jacobian" in needs:
            raise InputError(
                f"The program of the teacher {self.path} changes its state in place, so that "
                "it has no gradient: use an objective that needs none."
            )

    def find_state(self, row: Observation) -> None:
        """Finds the state that the program takes as an argument, or keeps in buffers.

        Args:
            row: A single observation, as recurrent programs are written for one environment.

        Raises:
            InputError: The shape of the argument is unknown, the buffers are not the state of an
                episode's start, or the program changes in another way.
        """
        self.memory, self.state_size = None, 0
        before = {name: buffer.clone() for name, buffer in self.script.named_buffers()}

        def runs(states: ArgumentStates) -> bool:
            self.memory, self.state_size = states, states.state_size
            return self.labels(row) is not None

        self.memory = find_states(self.script, self.path, self.shapes, runs)
        self.state_size = 0 if self.memory is None else self.memory.state_size
        first, second = (self.labels(row) for _ in range(2))
        changed = {}
        for name, buffer in self.script.named_buffers():
            if not torch.equal(buffer, before[name]):
                changed[name] = before[name]
                if buffer.shape == before[name].shape:
                    buffer.copy_(before[name])
        if changed:
            if self.memory is not None or not BufferStates.fits(list(changed.values())):
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
            raise self.unsteady()

    def _recurrent(self, names: Sequence[str]) -> InputError:
        """The error for a program with these layers or tensors of a state."""
        return InputError(
            f"The teacher {self.path} keeps a state between observations ({', '.join(names)}), for "
            f"one environment: {STATELESS}."
        )


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive and not one of `torch.save`."""
    names = [name.partition("/")[2] for name in names_of(path)]
    return "constants.pkl" in names and any(name.startswith("code/") for name in names)


def load_torchscript(
    path: Path,
    output: OutputName = "auto",
    scale: float = 1.0,
    groups: Sequence[str] = (DEFAULT_GROUP,),
    state: Sequence[Shape] = (),
) -> ScriptedPolicy:
    """The program of a TorchScript file, frozen, on the CPU.

    Args:
        path: The file that `torch.jit.save` wrote.
        output: What it outputs: "logits", "q_values", "mean" or "auto".
        scale: Factor on every observation, e.g. 1/255 for bytes.
        groups: The observation groups that it reads, in order.
        state: The shape of each tensor of a state that it takes as an argument, or one for all;
            empty to find it by trials. See `script_argument.Shape`.

    Raises:
        InputError: The file is missing, damaged or not TorchScript, or has an operator that is
            not allowed; or an option has no such value.
    """
    if output not in get_args(OutputName):
        raise unknown("output of a TorchScript file", output, get_args(OutputName))
    checked_scale(scale, path)
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
        shapes=state,
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
