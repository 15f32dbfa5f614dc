"""The actors of an evaluation: a policy, a teacher, or a random policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.nested import Nested
from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.policy import Policy
from rltransfer.tasks.action import bounded_dimensions
from rltransfer.tasks.observation import Observation
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.teachers.teacher import Teacher


class PolicyActor:
    """Acts with a policy: greedily, or by sampling if there is a generator."""

    graph_key = None

    def __init__(self, policy: Policy, generator: torch.Generator | None = None) -> None:
        self.policy = policy
        self.generator = generator
        self.state_size = policy.state_size

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """See `Actor`."""
        return (self.generator,) if self.generator else ()

    def act(self, observation: Observation, task: Tensor, state: Tensor, start: Tensor) -> Nested:
        """The policy's action and recurrent state."""
        output: PolicyOutput = self.policy(observation, task, state, start)
        result = {"action": _action(output, self.generator, "The policy")}
        if output.state is not None and self.state_size:
            result["state"] = output.state
        return result


class TeacherActor:
    """Acts with a teacher: greedily, or by sampling if there is a generator."""

    state_size = 0
    graph_key = None

    def __init__(self, teacher: Teacher, generator: torch.Generator | None = None) -> None:
        self.teacher = teacher
        self.generator = generator

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """See `Actor`."""
        generators = (self.generator,) if self.generator else ()
        return (*generators, *self.teacher.generators())

    def act(self, observation: Observation, task: Tensor, state: Tensor, start: Tensor) -> Nested:
        """The teacher's action."""
        self.teacher.begin_step(start, task)
        output = self.teacher(observation, task)
        return {"action": _action(output, self.generator, f"The teacher {self.teacher.source}")}


def _action(output: PolicyOutput, generator: torch.Generator | None, who: str) -> Tensor:
    """The greedy action, or a sample if there is a generator.

    Raises:
        InputError: There is no distribution to sample from.
    """
    if generator is None:
        return output.greedy()
    if not output.is_stochastic:
        kind = "Q-values" if output.mean is None else "a single action"
        raise InputError(
            f"{who} outputs {kind} for each observation, without a distribution to sample from: "
            "evaluate it without --stochastic."
        )
    return output.sample(generator)


class RandomActor:
    """Acts uniformly at random in each task; standard normal in dimensions without bounds."""

    state_size = 0
    graph_key = None

    def __init__(self, suite_spaces: SuiteSpaces, generator: torch.Generator) -> None:
        self.generator = generator
        self.generators = (generator,)
        self.discrete = suite_spaces.is_discrete
        sizes = suite_spaces.action_sizes
        self.same_size = sizes[0] if len(set(sizes)) == 1 else None
        self.sizes = suite_spaces.num_actions(generator.device)
        shape = (len(sizes), 0 if self.discrete else max(sizes))
        low, width, std = (torch.zeros(shape) for _ in range(3))
        for index, task_spaces in enumerate(suite_spaces.own):
            if isinstance(task_spaces.action, spaces.Box):
                box, here = task_spaces.action, slice(sizes[index])
                bounded = bounded_dimensions(box)
                lowest, highest = (np.where(bounded, each, 0.0) for each in (box.low, box.high))
                low[index, here] = torch.as_tensor(lowest)
                width[index, here] = torch.as_tensor(highest - lowest)
                std[index, here] = torch.as_tensor(~bounded).float()
        self.unbounded = bool(std.any())
        self.low, self.width, self.std = (table.to(generator.device) for table in (low, width, std))

    def act(self, observation: Observation, task: Tensor, state: Tensor, start: Tensor) -> Nested:
        """Random actions."""
        options: dict[str, Any] = {"generator": self.generator, "device": task.device}
        if self.discrete and self.same_size is not None:
            return {"action": torch.randint(self.same_size, (len(task),), **options)}
        if self.discrete:
            return {"action": (torch.rand(len(task), **options) * self.sizes[task]).long()}
        shape = (len(task), self.low.shape[1])
        action = self.low[task] + self.width[task] * torch.rand(shape, **options)
        if self.unbounded:
            action += self.std[task] * torch.randn(shape, **options)
        return {"action": action}
