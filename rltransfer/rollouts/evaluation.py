"""Evaluation: returns of whole episodes with unmodified rewards."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces

from rltransfer.errors import InputError
from rltransfer.machine.generators import seeded_global_generators
from rltransfer.machine.terminal import print_line
from rltransfer.metrics.intervals import half_width
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.rollouts.actors import PolicyActor, RandomActor, TeacherActor
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.rollouts.rollout import Actor
from rltransfer.tasks.families import evaluation_task
from rltransfer.tasks.suite_spaces import (
    SuiteSpaces,
    check_actions,
    check_bounds,
    check_observation,
)
from rltransfer.tasks.task import Suite, Task
from rltransfer.teachers.teacher import Teacher

CHUNK = 64
"""Steps of a rollout; then ended episodes are counted."""

LONGEST = 108_000
"""Steps after which an unfinished episode is cut and counted: a policy may avoid every end."""


class Watcher:
    """What a caller does before and during evaluations; here, nothing."""

    def begin(self, engine: RolloutEngine) -> None:
        """Called before the first episode of a task."""

    def show(self, who: str, task: str, ended: int, episodes: int, longest: int) -> None:
        """Called every few steps.

        Args:
            who: The acting policy.
            task: The task's id.
            ended: Number of ended episodes.
            episodes: Number of episodes to play.
            longest: Steps of the longest unfinished episode.
        """

    def make_room(self, error: Exception) -> None:
        """Called if environments cannot be made; afterwards they are made once more.

        Raises:
            Exception: The given error, if nothing can be done.
        """
        raise error


SILENT = Watcher()


@dataclass(frozen=True)
class Evaluation:
    """The returns and lengths of whole episodes."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def ci95(self) -> float:
        """Half-width of the 95 % confidence interval of the mean (Student's t)."""
        return half_width(self.returns)


def evaluate(
    make_actor: Callable[[RolloutEngine], Actor],
    task: Task,
    episodes: int,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    num_envs: int = 64,
    max_steps: int = LONGEST,
    watcher: Watcher = SILENT,
    who: str = "policy",
    pad: Callable[[SuiteSpaces], SuiteSpaces] | None = None,
    index: int = 0,
    as_trained: bool = False,
) -> Evaluation:
    """Plays whole episodes of a task.

    Each environment plays a number of episodes that is set beforehand: short episodes would
    otherwise be counted more often than long ones. An episode is cut after `max_steps` steps; the
    rest counts as another one. The seed and the number of environments determine the episodes.

    Args:
        make_actor: Makes the actor, given the engine with its spaces.
        task: The task; reward clipping and episodes that end with a life are turned off.
        episodes: Number of episodes.
        seed: Seeds the environments.
        device: The device; the CPU if None.
        num_envs: Maximum number of environments.
        max_steps: Steps after which an episode is cut.
        watcher: Follows the evaluation.
        who: Name of the acting policy, for the watcher.
        pad: Pads the task's spaces to those of a larger suite: see `RolloutEngine`.
        index: The task's index in that suite.
        as_trained: Leaves reward clipping and lives as in training.

    Raises:
        InputError: `episodes` is not positive, or the task cannot be made.
    """
    if episodes < 1:
        raise InputError(f"The number of episodes is {episodes}: it must be at least 1.")
    rows = _rows(episodes, num_envs)
    suite = Suite.of(task if as_trained else evaluation_task(task))
    made = suite, rows, device or torch.device("cpu"), seed, pad

    def show(ended: int, longest: int) -> None:
        watcher.show(who, task.id, ended, episodes, longest)

    # Environments may draw from the global generators, which training then finds as they were.
    with seeded_global_generators(seed):
        try:
            engine = RolloutEngine(*made)
        except Exception as error:
            watcher.make_room(error)
            engine = RolloutEngine(*made)
        engine.task.fill_(index)
        with contextlib.closing(engine):
            watcher.begin(engine)
            actor = make_actor(engine)
            return _play(engine, actor, _episodes_per_row(episodes, rows), max_steps, show)


def _rows(episodes: int, num_envs: int) -> int:
    """The fewest environments that play the episodes in the fewest rounds.

    With more, most would wait for the few that play a last episode.
    """
    rounds = math.ceil(episodes / num_envs)
    return math.ceil(episodes / rounds)


def _episodes_per_row(episodes: int, rows: int) -> list[int]:
    return [episodes // rows + (row < episodes % rows) for row in range(rows)]


def _play(
    engine: RolloutEngine,
    actor: Actor,
    episodes_per_row: list[int],
    max_steps: int,
    show: Callable[[int, int], None],
) -> Evaluation:
    left = np.array(episodes_per_row)
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
        running_length = engine.running_length.cpu().numpy()
        endless = (running_length > max_steps) & (left > 0)
        for row in endless.nonzero()[0]:
            left[row] -= 1
            returns.append(float(engine.running_return[row]))
            lengths.append(int(engine.running_length[row]))
            engine.running_return[row] = 0
            engine.running_length[row] = 0
        show(len(returns), int(np.where(left > 0, running_length, 0).max()))
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
    max_steps: int = LONGEST,
    watcher: Watcher = SILENT,
    first: int = 0,
) -> dict[str, Evaluation]:
    """Evaluates a policy on every task of a suite; see `evaluate`.

    The suite's first task has the index `first` for the policy, the second `first + 1`, and so on.

    Raises:
        InputError: See `evaluate`; or the policy does not fit a task.
    """
    generator = None if deterministic else torch.Generator(device).manual_seed(seed)
    return {
        name: evaluate(
            lambda _: PolicyActor(policy, generator), task, episodes, seed=seed, device=device,
            num_envs=num_envs, max_steps=max_steps, watcher=watcher,
            pad=functools.partial(policy_spaces, policy.spec, index), index=index,
        )
        for index, (name, task) in enumerate(zip(suite.names(), suite, strict=True), first)
    }  # fmt: skip


def policy_spaces(spec: PolicySpec, index: int, own: SuiteSpaces) -> SuiteSpaces:
    """Pads a task's spaces to those of a policy, which must fit the task of this index."""
    (task,), task_id = own.own, own.suite.tasks[0].id
    reads = spaces.Dict([(name, spec.observation_space[name]) for name in spec.network.groups])
    # Policies for several tasks were trained on padded observations.
    padded = spec.num_tasks > 1 or spec.action_mask is not None
    check_observation("The policy", reads, task_id, task.observation, padded)
    mask = None if spec.action_mask is None else spec.action_mask[index]
    check_actions("The policy", spec.action_space, mask, task_id, task.action)
    check_bounds("The policy", "'RUN'", spec.bounds_of(index), task_id, task.action)
    return own.padded_to(spec.observation_space, spec.action_space)


def _print_new_notes(teacher: Teacher, known: tuple[str, ...]) -> None:
    """Prints the notes that a teacher has since it is fitted."""
    for note in teacher.notes():
        if note not in known:
            print_line(note)


def evaluate_teacher(
    teacher: Teacher,
    suite: Suite,
    episodes: int,
    *,
    seed: int,
    device: torch.device,
    deterministic: bool = True,
    num_envs: int = 64,
    max_steps: int = LONGEST,
    watcher: Watcher = SILENT,
    fitted_to: SuiteSpaces | None = None,
    as_trained: bool = False,
) -> dict[str, Evaluation]:
    """Evaluates a teacher on each task of a suite; see `evaluate`.

    Args:
        teacher: The teacher; its random and recurrent states are the same afterwards.
        suite: The tasks.
        episodes: Number of episodes of each task.
        seed: Seeds the environments and the teacher.
        device: The device.
        deterministic: Takes the greedy action.
        num_envs: Maximum number of environments.
        max_steps: Steps after which an episode is cut.
        watcher: Follows the evaluation.
        fitted_to: The spaces that the teacher is fitted to; None fits it to each task.
        as_trained: See `evaluate`.

    Raises:
        InputError: See `evaluate`; or the teacher does not fit a task.
    """
    if fitted_to is None and len(suite) > 1:
        # A task that the teacher does not fit is refused before any is played.
        fitted_to = probe_spaces(suite, device)
        known, teacher = teacher.notes(), teacher.fitted(fitted_to).to(device)
        _print_new_notes(teacher, known)
    generator = None if deterministic else torch.Generator(device).manual_seed(seed)

    def actor(engine: RolloutEngine) -> TeacherActor:
        if fitted_to is not None:
            return TeacherActor(teacher, generator)
        # Teachers know the task by its own arguments, which evaluation may change.
        fitted = teacher.fitted(dataclasses.replace(engine.spaces, suite=suite)).to(device)
        _print_new_notes(fitted, teacher.notes())
        fitted.seed(seed)
        return TeacherActor(fitted, generator)

    def pad(own: SuiteSpaces) -> SuiteSpaces:
        joint = fitted_to or own
        return own.padded_to(joint.observation_space, joint.action_space)

    with _seeded(teacher, seed):
        return {
            name: evaluate(
                actor, task, episodes, seed=seed, device=device, num_envs=num_envs,
                max_steps=max_steps, watcher=watcher, who="teacher", pad=pad, index=index,
                as_trained=as_trained,
            )
            for index, (name, task) in enumerate(zip(suite.names(), suite, strict=True))
        }  # fmt: skip


@contextlib.contextmanager
def _seeded(teacher: Teacher, seed: int) -> Iterator[None]:
    """Seeds a teacher's generators, and restores them and its recurrent states afterwards."""
    generators = teacher.generators()
    states = [generator.get_state() for generator in generators]
    recurrent = teacher.row_states()
    aside = [one.set_aside() for one in recurrent]
    teacher.seed(seed)
    try:
        yield
    finally:
        for one, kept in zip(recurrent, aside, strict=True):
            one.take_up(kept)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def probe_spaces(suite: Suite, device: torch.device) -> SuiteSpaces:
    """The spaces of a suite, from one environment of each task.

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
    max_steps: int = LONGEST,
    watcher: Watcher = SILENT,
    as_trained: bool = False,
) -> dict[str, Evaluation]:
    """Evaluates a random policy on every task of a suite; see `evaluate`."""

    def random_actor(engine: RolloutEngine) -> Actor:
        generator = torch.Generator(device).manual_seed(seed)
        return RandomActor(engine.spaces, generator)

    return {
        name: evaluate(
            random_actor, task, episodes, seed=seed, device=device, num_envs=num_envs,
            max_steps=max_steps, watcher=watcher, who="random policy", as_trained=as_trained,
        )
        for name, task in zip(suite.names(), suite, strict=True)
    }  # fmt: skip
