"""Evaluation: whole episodes, rewards as they are, every episode counted that was begun in turn."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from scipy import special
from torch import Tensor

from rltransfer.errors import InputError
from rltransfer.observation import Observation
from rltransfer.policy import Policy
from rltransfer.policy_output import PolicyOutput
from rltransfer.registry import evaluation_task
from rltransfer.rollout import Actor, RolloutEngine
from rltransfer.task import Suite, Task
from rltransfer.teacher import Teacher

CHUNK = 64
"""Steps between two looks at which episodes have ended."""

LONGEST = 108_000
"""Steps after which an episode counts as it stands: a policy may have found a way not to end."""


@dataclass(frozen=True)
class Evaluation:
    """The returns of whole episodes."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def ci95(self) -> float:
        """Half of the 95 % confidence interval of the mean, by Student's t."""
        count = len(self.returns)
        if count < 2:
            return float("inf")
        error = float(np.std(self.returns, ddof=1)) / math.sqrt(count)
        return float(special.stdtrit(count - 1, 0.975)) * error


class PolicyActor:
    """Lets a policy act greedily, or by sampling."""

    course = None

    def __init__(self, policy: Policy, generator: torch.Generator | None = None) -> None:
        self.policy = policy
        self.generator = generator
        self.state_size = policy.state_size

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """See `rollout.Actor`."""
        return (self.generator,) if self.generator else ()

    def act(
        self, observation: Observation, task: Tensor, state: Tensor, start: Tensor
    ) -> Observation:
        """Returns the policy's action."""
        output: PolicyOutput = self.policy(observation, task, state, start)
        kept = {"action": output.sample(self.generator) if self.generator else output.greedy()}
        if output.state is not None and self.state_size:
            kept["state"] = output.state
        return kept


class TeacherActor:
    """Lets a teacher act greedily, or by sampling."""

    state_size = 0
    course = None

    def __init__(self, teacher: Teacher, generator: torch.Generator | None = None) -> None:
        self.teacher = teacher
        self.generator = generator

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """See `rollout.Actor`."""
        own = (self.generator,) if self.generator else ()
        return (*own, *self.teacher.generators())

    def act(
        self, observation: Observation, task: Tensor, state: Tensor, start: Tensor
    ) -> Observation:
        """Returns the teacher's action."""
        output = self.teacher(observation, task)
        return {"action": output.sample(self.generator) if self.generator else output.greedy()}


class RandomActor:
    """Acts uniformly at random; where bounds are infinite, by a standard normal."""

    state_size = 0
    course = None

    def __init__(self, space: spaces.Space[Any], generator: torch.Generator) -> None:
        self.space = space
        self.generator = generator
        self.generators = (generator,)
        if isinstance(space, spaces.Box):
            device = generator.device
            self.low, self.high = (
                torch.as_tensor(b, device=device) for b in (space.low, space.high)
            )

    def act(
        self, observation: Observation, task: Tensor, state: Tensor, start: Tensor
    ) -> Observation:
        """Returns random actions."""
        rows, device = len(task), task.device
        if isinstance(self.space, spaces.Discrete):
            count = int(self.space.n)
            return {
                "action": torch.randint(count, (rows,), generator=self.generator, device=device)
            }
        assert isinstance(self.space, spaces.Box)
        shape = (rows, *self.space.shape)
        if not self.space.is_bounded():
            return {"action": torch.randn(shape, generator=self.generator, device=device)}
        share = torch.rand(shape, generator=self.generator, device=device)
        return {"action": self.low + (self.high - self.low) * share}


def evaluate(
    make_actor: Callable[[RolloutEngine], Actor],
    task: Task,
    episodes: int,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    num_envs: int = 64,
    spaces_like: tuple[spaces.Dict, spaces.Space[Any]] | None = None,
    index: int = 0,
) -> Evaluation:
    """Plays whole episodes of a task, as it is evaluated, and returns their returns.

    Each environment plays a share of the episodes that is set beforehand, so that short episodes
    are not counted more often than long ones.

    Args:
        make_actor: Returns who acts, given the engine with its spaces.
        task: What is played; clipped rewards and lives that end episodes are turned off.
        episodes: How many episodes.
        seed: Seeds the environments.
        device: Where to play; the CPU if None.
        num_envs: Environments at once, at most.
        spaces_like: Spaces of a policy that was trained on a larger suite.
        index: The task's index in that suite.

    Raises:
        InputError: `episodes` is not positive, or the task cannot be made.
    """
    if episodes < 1:
        raise InputError(f"The number of episodes is {episodes}: it must be at least 1.")
    rows = min(episodes, num_envs)
    suite = Suite.of(evaluation_task(task))
    engine = RolloutEngine(suite, rows, device or torch.device("cpu"), seed, spaces_like)
    engine.task.fill_(index)
    try:
        return _play(engine, make_actor(engine), _shares(episodes, rows))
    finally:
        engine.close()


def _shares(episodes: int, rows: int) -> list[int]:
    """Returns how many episodes each environment plays."""
    return [episodes // rows + (row < episodes % rows) for row in range(rows)]


def _play(engine: RolloutEngine, actor: Actor, shares: list[int]) -> Evaluation:
    """Plays until every environment has ended its share of episodes."""
    left = np.array(shares)
    returns: list[float] = []
    lengths: list[int] = []
    while left.any():
        rollout = engine.collect(actor, CHUNK)
        assert rollout.episode_return is not None and rollout.episode_length is not None
        ended = rollout.done.cpu().numpy()
        episode_return = rollout.episode_return.cpu().numpy()
        episode_length = rollout.episode_length.cpu().numpy()
        for time, row in zip(*ended.nonzero(), strict=True):
            if left[row]:
                left[row] -= 1
                returns.append(float(episode_return[time, row]))
                lengths.append(int(episode_length[time, row]))
        endless = (engine.running_length.cpu().numpy() > LONGEST) & (left > 0)
        for row in endless.nonzero()[0]:
            left[row] -= 1
            returns.append(float(engine.running_return[row]))
            lengths.append(int(engine.running_length[row]))
            engine.running_length[row] = 0
    return Evaluation(tuple(returns), tuple(lengths))


def evaluate_policy(
    policy: Policy,
    suite: Suite,
    episodes: int,
    *,
    seed: int,
    device: torch.device,
    deterministic: bool = True,
    num_envs: int = 64,
    first: int = 0,
) -> dict[str, Evaluation]:
    """Evaluates a policy on every task of a suite; see `evaluate`.

    The policy knows the suite's first task by the index `first`, and those after it by the next.
    """
    like = (policy.spec.observation_space, policy.spec.action_space)
    generator = None if deterministic else torch.Generator(device).manual_seed(seed)
    return {
        name: evaluate(
            lambda _: PolicyActor(policy, generator), task, episodes, seed=seed, device=device,
            num_envs=num_envs, spaces_like=like, index=index,
        )
        for index, (name, task) in enumerate(zip(suite.names(), suite, strict=True), first)
    }  # fmt: skip


def evaluate_teacher(
    teacher: Teacher,
    suite: Suite,
    episodes: int,
    *,
    seed: int,
    device: torch.device,
    deterministic: bool = True,
    num_envs: int = 64,
    spaces_like: tuple[spaces.Dict, spaces.Space[Any]] | None = None,
) -> dict[str, Evaluation]:
    """Evaluates a teacher, fitted to a suite, on each of its tasks; see `evaluate`.

    A teacher that draws random numbers draws them by `seed`, and afterwards goes on as before.
    """
    generator = None if deterministic else torch.Generator(device).manual_seed(seed)
    with _seeded(teacher, seed):
        return {
            name: evaluate(
                lambda _: TeacherActor(teacher, generator), task, episodes, seed=seed,
                device=device, num_envs=num_envs, spaces_like=spaces_like, index=index,
            )
            for index, (name, task) in enumerate(zip(suite.names(), suite, strict=True))
        }  # fmt: skip


@contextlib.contextmanager
def _seeded(teacher: Teacher, seed: int) -> Iterator[None]:
    """Seeds a teacher's generators, and brings them back to where they were."""
    generators = teacher.generators()
    states = [generator.get_state() for generator in generators]
    teacher.seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def fitted_teacher(teacher: Teacher, suite: Suite, device: torch.device) -> Teacher:
    """Returns a teacher that is ready to label a suite's tasks.

    Raises:
        InputError: It does not fit a task.
    """
    engine = RolloutEngine(suite, 1, device, seed=0)
    engine.close()
    return teacher.fitted(suite, engine.own_spaces).to(device)


def evaluate_random(
    suite: Suite, episodes: int, *, seed: int, device: torch.device, num_envs: int = 64
) -> dict[str, Evaluation]:
    """Evaluates uniformly random actions on every task of a suite; see `evaluate`."""

    def random_actor(engine: RolloutEngine) -> Actor:
        generator = torch.Generator(device).manual_seed(seed)
        return RandomActor(engine.action_space, generator)

    return {
        name: evaluate(random_actor, task, episodes, seed=seed, device=device, num_envs=num_envs)
        for name, task in zip(suite.names(), suite, strict=True)
    }
