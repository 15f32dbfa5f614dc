"""TorchScript files (`torch.jit.save`) as modules.

A TorchScript file is a program. It runs inside TorchScript's own interpreter, which knows tensor
operations and no Python: nothing of it is unpickled as Python objects, and nothing is imported. Few
of its operators do more than compute, `save` and `from_file` among them, which write files; a
program that has one of them is refused before it runs. It may still compute for ever, or fill the
memory: take files from people you trust.

What it says is one tensor: logits or Q-values where actions are discrete, the greedy action where
they are continuous. What it sees is float32, in the environment's own units times `scale`.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError, unknown
from rltransfer.importers.damage import DAMAGE
from rltransfer.importers.imported_policy import FileModule
from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.scores import marked_illegal
from rltransfer.tasks.action import action_size
from rltransfer.tasks.observation import DEFAULT_GROUP, Observation
from rltransfer.tasks.random_observation import random_observation

OutputName = Literal["auto", "logits", "q_values", "mean"]

FORBIDDEN = {
    "aten::from_file": "reads and writes files",
    "aten::save": "writes files",
    "prim::CallFunction": "calls what cannot be seen before it runs",
    "prim::CallMethod": "calls what cannot be seen before it runs",
    "prim::PythonOp": "calls Python",
    "prim::rpc_async": "calls other machines",
    "prim::rpc_remote": "calls other machines",
    "prim::rpc_sync": "calls other machines",
}
"""Operators that do more than compute, and what they do."""

EARLY = re.compile(rb"\b(__setstate__|__forward_hooks__|__forward_pre_hooks__)\b")
"""Methods that run when a file is loaded, or beside the one that is looked through."""

SAMPLES = 3
"""Observations that a program is tried with: more than one, so that a fixed batch size shows."""


class ScriptedPolicy(FileModule):
    """A TorchScript program, as a policy."""

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
        """Makes a policy of a program.

        Args:
            script: The program: one tensor (rows, ...) in, one tensor (rows, num_actions) out.
            path: The file.
            sha256: Its hash.
            output: What it says; "auto": logits of discrete actions, the mean of continuous ones,
                which is known when it is fitted to a task.
            scale: Factor on every observation.
            groups: The observation groups that it reads, in their order.
        """
        super().__init__(path, sha256, groups)
        self.script = script
        self.output: OutputName = output
        self.scale = scale

    def forward(self, observation: Observation) -> PolicyOutput:
        """Returns what the program says, under the name of what it is.

        Args:
            observation: The groups.    (rows, ...)

        Raises:
            ValueError: It was neither said nor found out what its output is.
        """
        if self.output == "auto":
            raise ValueError(f"What {self.path} says is known when it is fitted to a task.")
        seen = self.read(observation)
        said: Tensor = self.script(seen if self.scale == 1.0 else seen * self.scale)
        said = said.float() if self.output == "mean" else marked_illegal(said.float())
        return PolicyOutput(**{self.output: said})

    def preprocessing(self) -> dict[str, Any]:
        """Returns the groups and the scale."""
        return {**super().preprocessing(), "scale": self.scale}

    def check_fit(self, task_id: str) -> None:
        """Lets the program label some random observations of the task, on the CPU."""
        assert self.observation_space is not None and self.action_space is not None
        discrete = isinstance(self.action_space, spaces.Discrete)
        if self.output == "auto":
            self.output = "logits" if discrete else "mean"
        if discrete == (self.output == "mean"):
            raise self.refusal(task_id, f"says {self.output!r}")
        observation = random_observation(self.observation_space, SAMPLES)
        first, second = (self._labels(observation, task_id) for _ in range(2))
        wanted = (SAMPLES, action_size(self.action_space))
        if first.shape != wanted:
            raise self.refusal(
                task_id, f"answers {SAMPLES} observations with {list(first.shape)} numbers"
            )
        if not torch.equal(first, second):
            raise InputError(
                f"The teacher {self.path} says two things of the same observations: it keeps a "
                "state or draws at random, but a teacher must do neither."
            )

    def _labels(self, observation: Observation, task_id: str) -> Tensor:
        """Returns what the program says, or an error of its own in a sentence."""
        try:
            with torch.no_grad():
                said: Tensor = getattr(self(observation), self.output)
        except (RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
            shape = list(self.read(observation).shape[1:])
            raise self.refusal(
                task_id, f"does not make one tensor of observations of the shape {shape}"
            ) from error
        return said


def is_torchscript(path: Path) -> bool:
    """Tells whether a file is a TorchScript archive, which `torch.save` does not write."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return False
    return "constants.pkl" in names and any(name.startswith("code/") for name in names)


def load_torchscript(
    path: Path,
    output: OutputName = "auto",
    scale: float = 1.0,
    groups: Sequence[str] = (DEFAULT_GROUP,),
) -> ScriptedPolicy:
    """Returns the program of a TorchScript file, frozen, on the CPU.

    Args:
        path: The file that `torch.jit.save` wrote.
        output: What it says: "logits", "q_values", "mean", or "auto".
        scale: Factor on every observation, e.g. 1/255 for bytes.
        groups: The observation groups that it reads, in their order.

    Raises:
        InputError: The file is missing, damaged, no TorchScript, or names an operator that touches
            files; or there is no such output.
    """
    if output not in get_args(OutputName):
        raise unknown("output of a TorchScript file", output, get_args(OutputName))
    if not (math.isfinite(scale) and scale != 0):
        raise InputError(
            f"The scale of the observations of {path} is {scale}: it must be finite and not 0."
        )
    try:
        content = path.read_bytes()
        _check_archive(content, path)
        with warnings.catch_warnings():
            # Deprecated in favour of torch.export, but what robots run today.
            warnings.simplefilter("ignore", DeprecationWarning)
            script = torch.jit.load(io.BytesIO(content), map_location="cpu")
        _check_operators(script, path)
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no TorchScript file, or is damaged.") from error
    policy = ScriptedPolicy(
        script,
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        output=output,
        scale=scale,
        groups=groups,
    )
    return policy.eval().requires_grad_(False)


def _check_archive(content: bytes, path: Path) -> None:
    """Refuses a program that runs before it can be looked through.

    Args:
        content: The bytes of the archive.
        path: Where they come from, for the errors.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        # TorchScript's reader takes the first of two, this one the last, and large letters are
        # small ones to it.
        names = [name.lower() for name in archive.namelist()]
        if len(set(names)) < len(names):
            raise InputError(f"{path} was not opened: it holds two files of one name.")
        for name in archive.namelist():
            early = EARLY.search(archive.read(name)) if name.lower().endswith(".py") else None
            if early:
                raise InputError(
                    f"{path} was not opened: its program has {early[1].decode()!r}, which runs "
                    "before the program can be looked through."
                )


def _check_operators(script: torch.jit.ScriptModule, path: Path) -> None:
    """Refuses a program that does more than compute."""
    for operator in _operators(script.inlined_graph):
        if operator in FORBIDDEN:
            raise InputError(
                f"{path} is not run: its program has the operator {operator!r}, which "
                f"{FORBIDDEN[operator]}."
            )


def _operators(graph: Any) -> Iterator[str]:
    """Yields the operators of a graph, of the blocks in it, and of the graphs in those."""
    for node in graph.nodes():
        yield node.kind()
        for block in node.blocks():
            yield from _operators(block)
        for name in node.attributeNames():
            if node.kindOf(name) == "g":
                yield from _operators(node.g(name))
