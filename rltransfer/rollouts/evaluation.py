"""Evaluation: whole episodes, rewards as they are, every episode counted that was begun in turn."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from scipy import special

from rltransfer.errors import InputError
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.rollouts.actors import PolicyActor, RandomActor, TeacherActor
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.rollouts.rollout import Actor
from rltransfer.tasks.action import check_actions
from rltransfer.tasks.families import evaluation_task
from rltransfer.tasks.making import make_vector_env
from rltransfer.tasks.observation import grouped
from rltransfer.tasks.task import Suite, Task
from rltransfer.teachers.loading import Teacher

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
    as_trained: bool = False,
) -> Evaluation:
    """Plays whole episodes of a task, as it is evaluated, and returns their returns.

    Each environment plays a share of the episodes that is set beforehand, so that short episodes
    are not counted more often than long ones. An episode without an end is cut after `LONGEST`
    steps and goes on as another.

    Args:
        make_actor: Returns who acts, given the engine with its spaces.
        task: What is played; clipped rewards and lives that end episodes are turned off.
        episodes: How many episodes.
        seed: Seeds the environments.
        device: Where to play; the CPU if None.
        num_envs: Environments at once, at most.
        spaces_like: Spaces of a policy that was trained on a larger suite.
        index: The task's index in that suite.
        as_trained: Whether the task is played as it is trained, and nothing is turned off.

    Raises:
        InputError: `episodes` is not positive, or the task cannot be made.
    """
    if episodes < 1:
        raise InputError(f"The number of episodes is {episodes}: it must be at least 1.")
    rows = _rows(episodes, num_envs)
    suite = Suite.of(task if as_trained else evaluation_task(task))
    engine = RolloutEngine(suite, rows, device or torch.device("cpu"), seed, spaces_like)
    engine.task.fill_(index)
    try:
        return _play(engine, make_actor(engine), _shares(episodes, rows))
    finally:
        engine.close()


def _rows(episodes: int, num_envs: int) -> int:
    """Returns how many environments play so many episodes in the fewest rounds.

    No more than those rounds need: most would only wait for the few that play a last one.
    """
    rounds = math.ceil(episodes / num_envs)
    return math.ceil(episodes / rounds)


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
            engine.running_return[row] = 0
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

    Raises:
        InputError: See `evaluate`; or a task's observations or actions are not the policy's.
    """
    spec = policy.spec
    for task in suite:
        _check_observation(spec, task, device)
    like = (spec.observation_space, spec.action_space)
    generator = None if deterministic else torch.Generator(device).manual_seed(seed)

    def actor(engine: RolloutEngine) -> Actor:
        legal = spec.action_mask[int(engine.task[0])] if spec.action_mask else None
        check_actions(engine.suite.tasks[0].id, engine.own_actions[0], spec.action_space, legal)
        return PolicyActor(policy, generator)

    return {
        name: evaluate(
            actor, task, episodes, seed=seed, device=device,
            num_envs=num_envs, spaces_like=like, index=index,
        )
        for index, (name, task) in enumerate(zip(suite.names(), suite, strict=True), first)
    }  # fmt: skip


def _check_observation(spec: PolicySpec, task: Task, device: torch.device) -> None:
    """Checks that a task shows every group that a policy reads, before anything is padded.

    A policy of several tasks was trained on padded observations: a task's own may be shorter.
    """
    env = make_vector_env(evaluation_task(task), 1, device)
    env.close()
    given = grouped(env.single_observation_space)
    is_padded = spec.num_tasks > 1 or spec.action_mask is not None
    for name in spec.network.groups:
        wanted, there = spec.observation_space[name], given.spaces.get(name)
        if there is not None and there.dtype == wanted.dtype:
            size, *rest = wanted.shape or (0,)
            own, *own_rest = there.shape or (0,)
            if rest == own_rest and (own == size or (is_padded and own < size)):
                continue
        found = "nothing" if there is None else f"{there.dtype}{list(there.shape or ())}"
        raise InputError(
            f"The policy does not fit the task {task.id!r}: it reads the group {name!r} as "
            f"{wanted.dtype}{list(wanted.shape or ())}, the task gives {found}."
        )


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
    as_trained: bool = False,
) -> dict[str, Evaluation]:
    """Evaluates a teacher, fitted to a suite, on each of its tasks; see `evaluate`.

    A teacher that draws random numbers draws them by `seed`, and afterwards goes on as before.
    Where the suite's tasks differ in their actions, `spaces_like` must be given.
    """
    generator = None if deterministic else torch.Generator(device).manual_seed(seed)
    with _seeded(teacher, seed):
        return {
            name: evaluate(
                lambda _: TeacherActor(teacher, generator), task, episodes, seed=seed,
                device=device, num_envs=num_envs, spaces_like=spaces_like, index=index,
                as_trained=as_trained,
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
    suite: Suite,
    episodes: int,
    *,
    seed: int,
    device: torch.device,
    num_envs: int = 64,
    as_trained: bool = False,
) -> dict[str, Evaluation]:
    """Evaluates uniformly random actions on every task of a suite; see `evaluate`."""

    def random_actor(engine: RolloutEngine) -> Actor:
        generator = torch.Generator(device).manual_seed(seed)
        return RandomActor(engine.own_actions, generator)

    return {
        name: evaluate(
            random_actor, task, episodes, seed=seed, device=device, num_envs=num_envs,
            as_trained=as_trained,
        )
        for name, task in zip(suite.names(), suite, strict=True)
    }  # fmt: skip
