"""Evaluation: whole episodes, rewards as they are, every episode counted that was begun in turn."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from scipy import special

from rltransfer.errors import InputError
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.rollouts.actors import PolicyActor, RandomActor, TeacherActor
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.rollouts.rollout import Actor
from rltransfer.tasks.families import evaluation_task
from rltransfer.tasks.suite_spaces import SuiteSpaces, check_actions, check_observation
from rltransfer.tasks.task import Suite, Task
from rltransfer.teachers.teacher import Teacher

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
    pad: Callable[[SuiteSpaces], SuiteSpaces] | None = None,
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
        pad: Pads the task's spaces to those of a larger suite: see `RolloutEngine`.
        index: The task's index in that suite.
        as_trained: Whether the task is played as it is trained, and nothing is turned off.

    Raises:
        InputError: `episodes` is not positive, or the task cannot be made.
    """
    if episodes < 1:
        raise InputError(f"The number of episodes is {episodes}: it must be at least 1.")
    rows = _rows(episodes, num_envs)
    suite = Suite.of(task if as_trained else evaluation_task(task))
    engine = RolloutEngine(suite, rows, device or torch.device("cpu"), seed, pad)
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
    generator = None if deterministic else torch.Generator(device).manual_seed(seed)
    return {
        name: evaluate(
            lambda _: PolicyActor(policy, generator), task, episodes, seed=seed, device=device,
            num_envs=num_envs, pad=functools.partial(_policy_spaces, policy.spec, index),
            index=index,
        )
        for index, (name, task) in enumerate(zip(suite.names(), suite, strict=True), first)
    }  # fmt: skip


def _policy_spaces(spec: PolicySpec, index: int, own: SuiteSpaces) -> SuiteSpaces:
    """Pads a task's spaces to those of a policy that knows the task by this index.

    Raises:
        InputError: The observations or the actions of the task are not those of the policy.
    """
    (task,), task_id = own.own, own.suite.tasks[0].id
    reads = spaces.Dict([(name, spec.observation_space[name]) for name in spec.network.groups])
    # A policy of several tasks was trained on padded observations.
    padded = spec.num_tasks > 1 or spec.action_mask is not None
    check_observation("The policy", reads, task_id, task.observation, padded)
    mask = None if spec.action_mask is None else spec.action_mask[index]
    check_actions("The policy", spec.action_space, mask, task_id, task.action)
    return own.padded_to(spec.observation_space, spec.action_space)


def evaluate_teacher(
    teacher: Teacher,
    suite: Suite,
    episodes: int,
    *,
    seed: int,
    device: torch.device,
    deterministic: bool = True,
    num_envs: int = 64,
    fitted_to: SuiteSpaces | None = None,
    as_trained: bool = False,
) -> dict[str, Evaluation]:
    """Evaluates a teacher on each task of a suite; see `evaluate`.

    A teacher that draws random numbers draws them by `seed`, and afterwards goes on as before.

    Args:
        teacher: The teacher.
        suite: The tasks.
        episodes: How many episodes of each.
        seed: Seeds the environments.
        device: Where to play.
        deterministic: Whether the greedy action is taken.
        num_envs: Environments at once, at most.
        fitted_to: The spaces that the teacher is fitted to; None fits it here.
        as_trained: See `evaluate`.

    Raises:
        InputError: See `evaluate`; or the teacher does not fit a task.
    """
    if fitted_to is None and len(suite) > 1:
        # Refused before anything is played, whichever task it is.
        fitted_to = probe_spaces(suite, device)
        teacher = teacher.fitted(fitted_to).to(device)
    generator = None if deterministic else torch.Generator(device).manual_seed(seed)

    def actor(engine: RolloutEngine) -> TeacherActor:
        fits = teacher if fitted_to is not None else teacher.fitted(engine.spaces).to(device)
        if fits is not teacher:
            fits.seed(seed)
        return TeacherActor(fits, generator)

    def pad(own: SuiteSpaces) -> SuiteSpaces:
        joint = fitted_to or own
        return own.padded_to(joint.observation_space, joint.action_space)

    with _seeded(teacher, seed):
        return {
            name: evaluate(
                actor, task, episodes, seed=seed, device=device, num_envs=num_envs, pad=pad,
                index=index, as_trained=as_trained,
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


def probe_spaces(suite: Suite, device: torch.device) -> SuiteSpaces:
    """The spaces of a suite, read off one environment of each task.

    Raises:
        InputError: A task cannot be made, or the tasks cannot share a policy.
    """
    engine = RolloutEngine(suite, 1, device, seed=0)
    engine.close()
    return engine.spaces


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
        return RandomActor(engine.spaces, generator)

    return {
        name: evaluate(
            random_actor, task, episodes, seed=seed, device=device, num_envs=num_envs,
            as_trained=as_trained,
        )
        for name, task in zip(suite.names(), suite, strict=True)
    }  # fmt: skip
