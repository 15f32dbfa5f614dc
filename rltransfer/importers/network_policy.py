"""Policies of a single network whose layers were read from named tensors."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.files.hashing import tensors_sha256
from rltransfer.importers.imported_policy import ImportedPolicy, mlp_of, shapes_of
from rltransfer.importers.linear_layers import Normalizer
from rltransfer.importers.memory import Memory
from rltransfer.importers.saved_file import SavedFile
from rltransfer.importers.sb3_networks import SingleHead
from rltransfer.policies.network import Network
from rltransfer.policies.output import EMPTY, Needs, PolicyOutput
from rltransfer.tasks.image_layout import ImageBox
from rltransfer.tasks.observation import DEFAULT_GROUP, Observation

HeadOutput = Literal["logits", "q_values", "mean"]

UNITS = {"logits": "logits", "q_values": "Q-values", "mean": "action dimensions"}


class NetworkPolicy(ImportedPolicy):
    """A fully connected network with what precedes and follows it.

    Attributes:
        memory: An LSTM or GRU before the network; None without any.
        network: Extractor, hidden layers, head and log standard deviation.
        output: What the head outputs; None until a task determines it.
        bounds: What turns the output into actions of the environment; None if it is one.
        bounds_of_task: Whether `bounds` depends on the task.
    """

    bounds_of_task = False

    def __init__(
        self,
        network: SingleHead,
        num_inputs: int,
        num_actions: int,
        output: HeadOutput | None,
        saved: SavedFile,
        groups: Sequence[str] = (DEFAULT_GROUP,),
        normalizer: Normalizer | None = None,
        memory: Memory | None = None,
    ) -> None:
        """Creates a policy from its parts.

        Args:
            network: The layers.
            num_inputs: The number of observed values.
            num_actions: The number of discrete actions or of action dimensions.
            output: What the head outputs; None if the task determines it: logits for discrete
                actions, the mean for continuous ones.
            saved: The file.
            groups: The observation groups that it reads, in order.
            normalizer: Normalises the observations.
            memory: Reads the normalised observations, and outputs what the network reads.
        """
        super().__init__(saved.path, saved.sha256, groups)
        self.memory = memory
        self.state_size = 0 if memory is None else memory.state_size
        self.network = network
        self.num_inputs, self.num_actions = num_inputs, num_actions
        self.output = output
        self.normalizer = normalizer
        self.bounds: nn.Module | None = None

    def num_parameters(self) -> int:
        """The number of parameters that greedy actions need."""
        named = self.named_parameters()
        return sum(one.numel() for name, one in named if "log_std" not in name)

    def architecture(self) -> Network | None:
        """The hidden layers; None after a memory, as students have theirs after these layers."""
        return mlp_of(self.network.hidden) if self.memory is None else None

    def preprocessing(self) -> dict[str, Any]:
        """The groups, and the statistics that normalise them, if any."""
        told: dict[str, Any] | None = None
        if self.normalizer is not None:
            told = {
                "kind": "mean and std",
                "epsilon": self.normalizer.epsilon,
                "sha256": tensors_sha256([self.normalizer.mean, self.normalizer.std]),
            }
            if self.normalizer.limit is not None:
                told["limit"] = self.normalizer.limit
        return {**super().preprocessing(), "normalizer": told}

    def forward(
        self,
        observation: Observation,
        needs: Needs = EMPTY,
        state: Tensor | None = None,
        start: Tensor | None = None,
    ) -> PolicyOutput:
        """The output of the policy, with actions in the units of the environment.

        Args:
            observation: The groups.    (rows, ...)
            needs: See `Policy`.
            state: The recurrent state before these observations; see `ImportedPolicy`.
            start: Whether a row is an episode's first.    (rows,)

        Raises:
            ValueError: The kind of output is unknown, as no task has determined it.
        """
        if self.output is None:
            raise ValueError(
                f"The output of {self.path} is known when it is fitted to a task: set `output`, or "
                "fit it."
            )
        seen = self.read(observation)
        if self.normalizer is not None:
            seen = self.normalizer(seen.flatten(1))
        after: Tensor | None = None
        if self.memory is not None:
            seen, after = self.memory(seen.flatten(1), state, start)
        output: PolicyOutput = self.network(seen, needs)
        output.state = after
        if self.bounds is not None:
            self.bounds(output)
        return output

    def fitted(
        self,
        task_id: str,
        observation_space: spaces.Dict,
        action_space: spaces.Space[Any],
        shown: Observation | None = None,
    ) -> Self:
        """A copy that is ready for a task; see `ImportedPolicy`."""
        fitted = super().fitted(task_id, observation_space, action_space, shown)
        before = self.action_space
        if self.bounds_of_task and before is not None and before != action_space:
            raise InputError(
                f"The teacher {self.path} fits its actions to the bounds of one task, but those of "
                f"the task {task_id!r} and of the task before it differ: give each its own "
                "teacher, with PerTask."
            )
        return fitted

    def check_fit(self, task_id: str, shown: Observation | None) -> None:
        """Checks both spaces, and takes from them what the head outputs."""
        assert self.observation_space is not None
        discrete = isinstance(self.action_space, spaces.Discrete)
        if self.output is None:
            self.output = "logits" if discrete else "mean"
            self.network = copy.copy(self.network)
            self.network.output = self.output
        if isinstance(self.action_space, spaces.Discrete):
            acts = self.output != "mean" and int(self.action_space.n) == self.num_actions
        else:
            shape = None if self.action_space is None else self.action_space.shape
            acts = self.output == "mean" and shape == (self.num_actions,)
        if not acts or not self.reads(self.observation_space):
            raise self.refusal(
                task_id,
                f"reads {self.describe_inputs()} and outputs {self.num_actions} "
                f"{UNITS[self.output]}",
            )

    def reads(self, shown: spaces.Dict) -> bool:
        """Whether the network can read the groups, and how it reads images."""
        # Trained without knowledge of axes, it sees the pixels in the environment's order.
        self.as_shown = any(isinstance(part, ImageBox) for part in shown.spaces.values())
        return sum(map(math.prod, shapes_of(shown))) == self.num_inputs

    def describe_inputs(self) -> str:
        """What the network reads, for errors."""
        return f"{self.num_inputs} values"

    def bounds_in(self, actions: spaces.Box) -> tuple[Tensor, Tensor]:
        """The bounds of actions as tensors on the device of the network.    (num_actions,) each"""
        device = next(self.parameters()).device
        low, high = (bound.astype(np.float32) for bound in (actions.low, actions.high))
        return torch.tensor(low, device=device), torch.tensor(high, device=device)
