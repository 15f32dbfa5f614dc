"""TorchScript files (`torch.jit.save`) as policies.

A TorchScript file is a program. It runs in TorchScript's interpreter, which has tensor operations
but no Python: nothing is unpickled as Python objects, and nothing is imported. Some operators do
more than compute, e.g. `save` and `from_file` write files. Only a program of operators that are
known to compute runs, and torch reads a copy of what was checked: see `script_check.py`. It can
still run forever or fill the memory: use files from people you trust.

The program outputs one tensor: logits or Q-values for discrete actions, the greedy action for
continuous ones. Its input is float32, in the units of the environment times `scale`.
"""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError, unknown
from rltransfer.importers.archive import names_of
from rltransfer.importers.damage import DAMAGE, read_file
from rltransfer.importers.imported_policy import ImportedPolicy
from rltransfer.importers.script_check import check_operators, checked_archive
from rltransfer.policies.output import EMPTY, Needs, PolicyOutput
from rltransfer.policies.scores import mask_infinite
from rltransfer.tasks.action import action_size
from rltransfer.tasks.observation import DEFAULT_GROUP, Observation
from rltransfer.tasks.random_observation import random_observation

OutputName = Literal["auto", "logits", "q_values", "mean"]

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

    def forward(self, observation: Observation, needs: Needs = EMPTY) -> PolicyOutput:
        """The output of the program, in the field of its kind.

        Args:
            observation: The groups.    (rows, ...)
            needs: See `Policy`.

        Raises:
            ValueError: The kind of output is "auto", and no task has determined it.
        """
        if self.output == "auto":
            raise ValueError(
                f"The output of {self.path} is known when it is fitted to a task: set `output`, or "
                "fit it."
            )
        inputs = self.read(observation)
        output: Tensor = self.script(inputs if self.scale == 1.0 else inputs * self.scale).float()
        return PolicyOutput(
            **{self.output: output if self.output == "mean" else mask_infinite(output)}
        )

    def preprocessing(self) -> dict[str, Any]:
        """The groups and the scale."""
        return {**super().preprocessing(), "scale": self.scale}

    def check_fit(self, task_id: str) -> None:
        """Runs the program on random observations of the task, on the CPU."""
        assert self.observation_space is not None and self.action_space is not None
        discrete = isinstance(self.action_space, spaces.Discrete)
        if self.output == "auto":
            self.output = "logits" if discrete else "mean"
        if discrete == (self.output == "mean"):
            raise self.refusal(task_id, f"outputs {self.output!r}")
        observation = random_observation(self.observation_space, SAMPLES)
        first, second = (self._labels(observation, task_id) for _ in range(2))
        wanted = (SAMPLES, action_size(self.action_space))
        if first.shape != wanted:
            raise self.refusal(
                task_id, f"outputs the shape {list(first.shape)} for {SAMPLES} observations"
            )
        if not torch.equal(first, second):
            raise InputError(
                f"The teacher {self.path} outputs different values for the same observations: a "
                "teacher must not keep a state or draw random numbers."
            )

    def _labels(self, observation: Observation, task_id: str) -> Tensor:
        """The output of the program for some observations.

        Raises:
            InputError: The program fails.
        """
        try:
            with torch.no_grad():
                labels: Tensor = getattr(self(observation), self.output)
        except (RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
            shape = list(self.read(observation).shape[1:])
            raise self.refusal(
                task_id, f"does not map observations of the shape {shape} to one tensor"
            ) from error
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
    try:
        checked = checked_archive(content, path)
        with warnings.catch_warnings():
            # Deprecated in favour of torch.export, but still what robots run.
            warnings.simplefilter("ignore", DeprecationWarning)
            script = torch.jit.load(io.BytesIO(checked), map_location="cpu")
        check_operators(script, path)
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a TorchScript file, or is damaged.") from error
    policy = ScriptedPolicy(
        script,
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        output=output,
        scale=scale,
        groups=groups,
    )
    return policy.eval().requires_grad_(False)
