"""Policies from other libraries' files: what they read, and whether they fit a task."""

from __future__ import annotations

import abc
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.policies.network import Network
from rltransfer.policies.output import EMPTY, Needs, PolicyOutput
from rltransfer.tasks.observation import (
    DEFAULT_GROUP,
    Observation,
    describe_space,
    images_as_shown,
    resized,
    shown_shape,
)


class ImportedPolicy(nn.Module, abc.ABC):
    """A policy from a file that does not fully describe its observations and actions.

    It reads one group as it is, or concatenates several vectors. `fitted` checks it against a task
    and takes from the task what the file does not contain.

    Attributes:
        kind: The `kind` of its `TeacherSpec`.
        group_advice: How a user chooses another group, for errors.
        bounds_advice: How a user scales actions whose bounds are unknown; "" for no way.
        path: The file.
        sha256: Hash of the file, in hexadecimal.
        groups: The observation groups that it reads, in order.
        observation_space: These groups in the task that it is fitted to; None before.
        action_space: The actions of that task; None before.
        as_shown: Whether it reads images as the environment shows them, not with channels first.
        state_size: Numbers in the recurrent state of a row; 0 without any.
    """

    kind: ClassVar[str]
    group_advice: str = "add `?group=NAME` to the path"
    bounds_advice: str = ""

    def __init__(self, path: Path, sha256: str, groups: Sequence[str] = (DEFAULT_GROUP,)) -> None:
        super().__init__()
        self.path = path
        self.sha256 = sha256
        self.groups = tuple(groups)
        self.observation_space: spaces.Dict | None = None
        self.action_space: spaces.Space[Any] | None = None
        self.as_shown = False
        self.state_size = 0

    def num_parameters(self) -> int:
        """The number of parameters that acting needs."""
        return sum(parameter.numel() for parameter in self.parameters())

    def architecture(self) -> Network | None:
        """The layers as a student of the same shape would have them; None if unknown."""
        return None

    def preprocessing(self) -> dict[str, Any]:
        """What is done to observations before the first layer, as JSON."""
        return {"groups": list(self.groups)}

    def notes(self) -> tuple[str, ...]:
        """Sentences that a user should read before the policy acts."""
        return ()

    def known_spaces(self) -> tuple[spaces.Dict | None, spaces.Space[Any] | None]:
        """The observation and action spaces for a `TeacherSpec`; None while unknown."""
        return self.observation_space, self.action_space

    def unpadded(self, observation: Observation) -> list[Tensor]:
        """The groups that it reads, without the padding of a suite.    (rows, ...) each

        Args:
            observation: The groups.    (rows, ...)
        """
        if self.observation_space is not None:
            observation = resized(observation, self.observation_space)
            if self.as_shown:
                observation = images_as_shown(observation, self.observation_space)
        return [observation[name] for name in self.groups]

    def read(self, observation: Observation) -> Tensor:
        """The groups as the input of the network, float32.    (rows, ...)

        Args:
            observation: The groups.    (rows, ...)
        """
        parts = [part.float() for part in self.unpadded(observation)]
        return parts[0] if len(parts) == 1 else torch.cat([part.flatten(1) for part in parts], 1)

    @abc.abstractmethod
    def forward(
        self,
        observation: Observation,
        needs: Needs = EMPTY,
        state: Tensor | None = None,
        start: Tensor | None = None,
    ) -> PolicyOutput:
        """The output of the network.

        Args:
            observation: The groups.    (rows, ...)
            needs: See `Policy`.
            state: The recurrent state before these observations; None at the start of all rows'
                episodes.    (rows, state_size)
            start: Whether a row is an episode's first, where its state is reset.    (rows,)
        """

    def fitted(
        self,
        task_id: str,
        observation_space: spaces.Dict,
        action_space: spaces.Space[Any],
        shown: Observation | None = None,
    ) -> Self:
        """A copy that is ready for a task and shares its weights with this policy.

        Args:
            task_id: The task, for errors.
            observation_space: The groups of the task, without padding.
            action_space: The actions of the task, without padding.
            shown: An observation of the task, for programs that run to be checked.    (1, ...) each

        Raises:
            InputError: The policy does not fit the task, or was fitted to one with other shapes.
        """
        for name in self.groups:
            if name not in observation_space.spaces:
                names = ", ".join(map(repr, observation_space.spaces))
                raise InputError(
                    f"The teacher {self.path} does not fit the task {task_id!r}: it reads the "
                    f"group {name!r}, but the task shows {names}; {self.group_advice}."
                )
        own = spaces.Dict([(name, observation_space[name]) for name in self.groups])
        known = self.observation_space
        if known is not None and shapes_of(own) != shapes_of(known):
            raise InputError(
                f"The teacher {self.path} reads observations of one shape, but the shapes of the "
                f"task {task_id!r} differ from those of the task before it: use a separate teacher "
                "for each."
            )
        fitted = copy.copy(self)
        # A shallow copy shares this table, and with it a submodule that `check_fit` replaces.
        fitted._modules = dict(self._modules)
        fitted.observation_space, fitted.action_space = own, action_space
        fitted.check_fit(task_id, shown)
        return fitted

    @abc.abstractmethod
    def check_fit(self, task_id: str, shown: Observation | None) -> None:
        """Checks the new spaces, and takes from them what the file does not contain.

        Raises:
            InputError: The policy does not fit them.
        """

    def refusal(self, task_id: str, fault: str) -> InputError:
        """The error for a task with other observations or actions.

        Args:
            task_id: The task.
            fault: What the policy does, as a predicate, e.g. "reads 48 values".
        """
        assert self.observation_space is not None and self.action_space is not None
        shown = " and ".join(describe_space(self.observation_space[name]) for name in self.groups)
        return InputError(
            f"The teacher {self.path} does not fit the task {task_id!r}: it {fault}, but the task "
            f"shows {shown} and takes {describe_space(self.action_space)}."
        )


def shapes_of(space: spaces.Dict) -> list[tuple[int, ...]]:
    """The shape of each group; (1,) for a scalar."""
    return [shown_shape(part) or (1,) for part in space.spaces.values()]


def mlp_of(layers: nn.Module) -> Network | None:
    """The fully connected network with these hidden layers; None if they are of another kind.

    Args:
        layers: Linear layers with an activation after each.
    """
    units = tuple(one.out_features for one in layers.modules() if isinstance(one, nn.Linear))
    kinds = {type(one) for one in layers.children() if not isinstance(one, nn.Linear)}
    if not units or len(kinds) != 1 or 2 * len(units) != len(list(layers.children())):
        return None
    # Every other activation of these libraries is closer to ReLU.
    return Network(encoder="mlp", hidden=units, activation="tanh" if nn.Tanh in kinds else "relu")
