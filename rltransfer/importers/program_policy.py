"""Policies that are programs: they output one tensor, and are tried before they act.

What a program reads and outputs follows from running it on observations of the task: whether it
takes several rows at once, whether it treats each as it would by itself, and whether it outputs the
same for the same observations.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.importers.imported_policy import ImportedPolicy
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
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""What a program, or a batched one, raises on observations that it does not take."""

SAMPLES = 3
"""Observations that a program is tested with: several, to detect a fixed batch size."""


class ProgramPolicy(ImportedPolicy):
    """A program that maps an observation to the output of a policy.

    Attributes:
        output: What it outputs: "logits", "q_values" or "mean"; "auto" until a task determines it.
        scale: Factor on every observation.
        rows: How it gets several observations.
        may_read_as_shown: Whether it may read images as the environment shows them.
    """

    may_read_as_shown = True

    def __init__(
        self,
        path: Path,
        sha256: str,
        output: OutputName = "auto",
        scale: float = 1.0,
        groups: Sequence[str] = (DEFAULT_GROUP,),
    ) -> None:
        """Creates a policy from a program.

        Args:
            path: The file.
            sha256: Hash of the file.
            output: What the program outputs. "auto" means logits for discrete actions and the mean
                for continuous ones, as soon as the policy is fitted to a task.
            scale: Factor on every observation.
            groups: The observation groups that it reads, in order.
        """
        super().__init__(path, sha256, groups)
        self.output: OutputName = output
        self.scale = scale
        self.rows: RowMode = "together"

    @abc.abstractmethod
    def call(self, inputs: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Runs the program once.

        Args:
            inputs: What it reads, which it may change in place.    (rows, ...)
            state: The recurrent states before; None for a program without any.
                (rows, state_size)

        Returns:
            Its output, and the states after it.    (rows, num_actions) and (rows, state_size)
        """

    @abc.abstractmethod
    def find_state(self, row: Observation) -> None:
        """Sets `state_size`, and finds where the program keeps its state.

        Args:
            row: A single observation, as recurrent programs are written for one environment.

        Raises:
            InputError: It has a state that cannot be kept for each row.
        """

    def can_vmap(self) -> bool:
        """Whether `torch.vmap` may run the program."""
        return True

    def check_needs(self, needs: Needs) -> None:
        """Checks that the program can supply what an objective needs.

        Raises:
            InputError: It cannot.
        """

    def policy_output(self, output: Tensor) -> PolicyOutput:
        """What the program outputs, in the field of its kind.

        Args:
            output: Its output.    (rows, num_actions)
        """
        output = output.float()
        fields = {self.output: output if self.output == "mean" else mask_infinite(output)}
        return PolicyOutput(**fields)

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
        self.check_needs(needs)
        output, after = self._run(inputs, self._state_before(inputs, state, start))
        found = self.policy_output(output)
        found.state = after
        return found

    def _state_before(
        self, inputs: Tensor, state: Tensor | None, start: Tensor | None
    ) -> Tensor | None:
        """The states before a step; None for a program without any.    (rows, state_size)

        Args:
            inputs: What it reads.    (rows, ...)
            state: The states so far; None at the start of all rows' episodes.
                (rows, state_size)
            start: Whether a row is an episode's first.    (rows,)
        """
        if not self.state_size:
            return None
        if state is None:
            return inputs.new_zeros(len(inputs), self.state_size)
        return state if start is None else state.masked_fill(start.unsqueeze(-1), 0.0)

    def _run(self, inputs: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The output for some rows, and the states after it; see `call`.

        Raises:
            InputError: The program fails, e.g. on observations that it was not tried on.
        """

        def one(row: Tensor, before: Tensor | None = None) -> tuple[Tensor, ...]:
            before = None if before is None else before.unsqueeze(0)
            output, after = self.call(row.unsqueeze(0), before)
            return (output.flatten(),) if after is None else (output.flatten(), after.flatten())

        given = (inputs,) if state is None else (inputs, state)
        try:
            if self.rows == "together":
                return self.call(inputs, state)
            if self.rows == "vmap":
                found: tuple[Tensor, ...] = torch.vmap(one)(*given)
            else:
                each = [one(*row) for row in zip(*given, strict=True)]
                found = tuple(torch.stack(parts) for parts in zip(*each, strict=True))
        except InputError:
            raise
        except FAILURES as error:
            raise self._failure(inputs, error) from error
        return found[0], found[1] if len(found) > 1 else None

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
        row = self.example(shown)
        observation = {name: row[name].expand(SAMPLES, *row[name].shape[1:]) for name in row}
        seen = self.observation_space.spaces.values()
        if self.may_read_as_shown and any(isinstance(part, ImageBox) for part in seen):
            self.as_shown = True
            self.as_shown = self.labels(row) is not None
        self.rows = "together"
        self.find_state(row)
        wanted = (SAMPLES, action_size(self.action_space))
        for mode in get_args(RowMode):
            self.rows = mode
            labels = self.labels(observation)
            if labels is not None and labels.shape == wanted and self._keeps_apart(observation):
                break
        else:
            self.rows = "together"
            raise self._misfit(task_id, observation, row)
        again = self.labels(observation)
        # NaN is equal to itself here: the error for it is another.
        if again is None or not torch.allclose(labels, again, 0.0, 0.0, equal_nan=True):
            raise self.unsteady()

    def example(self, shown: Observation | None) -> Observation:
        """A single observation: the one that the task shows, or a random one."""
        assert self.observation_space is not None
        return random_observation(self.observation_space, 1) if shown is None else shown

    def _misfit(self, task_id: str, *observations: Observation) -> InputError:
        """The error for a program that fails, or outputs another number of values."""
        for observation in observations:
            labels = self.labels(observation)
            if labels is not None:
                count = len(self.read(observation))
                return self.refusal(
                    task_id, f"outputs the shape {list(labels.shape)} for {count} observations"
                )
        shape = list(self.read(observations[0]).shape[1:])
        return self.refusal(
            task_id, f"does not map observations of the shape {shape} to one tensor"
        )

    def _keeps_apart(self, observation: Observation) -> bool:
        """Whether the program does to several rows what it does to each by itself.

        It does not if it takes rows for steps of a sequence.

        Args:
            observation: The groups of several rows.    (rows, ...)
        """
        if self.rows != "together":
            return self.rows == "one by one" or self.can_vmap()
        state: Tensor | None = None
        if self.state_size:
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

    def unsteady(self) -> InputError:
        """The error for a program that keeps something that is not a state, or draws numbers."""
        return InputError(
            f"The teacher {self.path} outputs different values for the same observations: a "
            "teacher must not keep a state or draw random numbers."
        )

    def labels(self, observation: Observation) -> Tensor | None:
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
