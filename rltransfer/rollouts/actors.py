"""Who acts in an evaluation: a policy, a teacher, or nobody but chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from rltransfer.nested import Nested
from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.policy import Policy
from rltransfer.tasks.observation import Observation
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.teachers.teacher import Teacher


class PolicyActor:
    """Lets a policy act greedily, or by sampling."""

    graph_key = None

    def __init__(self, policy: Policy, generator: torch.Generator | None = None) -> None:
        self.policy = policy
        self.generator = generator
        self.state_size = policy.state_size

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """See `rollout.Actor`."""
        return (self.generator,) if self.generator else ()

    def act(self, observation: Observation, task: Tensor, state: Tensor, start: Tensor) -> Nested:
        """Returns the policy's action."""
        output: PolicyOutput = self.policy(observation, task, state, start)
        kept = {"action": output.sample(self.generator) if self.generator else output.greedy()}
        if output.state is not None and self.state_size:
            kept["state"] = output.state
        return kept


class TeacherActor:
    """Lets a teacher act greedily, or by sampling."""

    state_size = 0
    graph_key = None

    def __init__(self, teacher: Teacher, generator: torch.Generator | None = None) -> None:
        self.teacher = teacher
        self.generator = generator

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """See `rollout.Actor`."""
        own = (self.generator,) if self.generator else ()
        return (*own, *self.teacher.generators())

    def act(self, observation: Observation, task: Tensor, state: Tensor, start: Tensor) -> Nested:
        """Returns the teacher's action."""
        output = self.teacher(observation, task)
        return {"action": output.sample(self.generator) if self.generator else output.greedy()}


class RandomActor:
    """Acts uniformly at random in each task's own actions; without bounds, by a standard normal.

    Args:
        suite_spaces: The tasks' actions.
        generator: The source of randomness.
    """

    state_size = 0
    graph_key = None

    def __init__(self, suite_spaces: SuiteSpaces, generator: torch.Generator) -> None:
        self.generator = generator
        self.generators = (generator,)
        self.discrete = suite_spaces.is_discrete
        sizes = suite_spaces.action_sizes
        self.same_size = sizes[0] if len(set(sizes)) == 1 else None
        self.sizes = suite_spaces.num_actions(generator.device)
        self.low, self.width, self.deviation = (
            torch.zeros(len(sizes), 0 if self.discrete else max(sizes)) for _ in range(3)
        )
        for index, (_, space) in enumerate(suite_spaces.own):
            if isinstance(space, spaces.Box):
                numbers = slice(sizes[index])
                if space.is_bounded():
                    self.low[index, numbers] = torch.as_tensor(space.low)
                    self.width[index, numbers] = torch.as_tensor(space.high - space.low)
                else:
                    self.deviation[index, numbers] = 1.0
        self.unbounded = bool(self.deviation.any())
        self.low, self.width, self.deviation = (
            table.to(generator.device) for table in (self.low, self.width, self.deviation)
        )

    def act(self, observation: Observation, task: Tensor, state: Tensor, start: Tensor) -> Nested:
        """Returns random actions."""
        where: dict[str, Any] = {"generator": self.generator, "device": task.device}
        if self.discrete and self.same_size is not None:
            return {"action": torch.randint(self.same_size, (len(task),), **where)}
        if self.discrete:
            return {"action": (torch.rand(len(task), **where) * self.sizes[task]).long()}
        shape = (len(task), self.low.shape[1])
        action = self.low[task] + self.width[task] * torch.rand(shape, **where)
        if self.unbounded:
            action += self.deviation[task] * torch.randn(shape, **where)
        return {"action": action}
