"""How much a run's policy depends on each layer of each of its columns (Rusu 2016, section 4).

- The average Fisher sensitivity (AFS): see `policies/sensitivity.py`.
- The average perturbation sensitivity (APS): Gaussian noise is added to the features of layer i of
  column k, with the variance sigma^2 times that of each feature. With sigma at which the return
  falls by half,

      Lambda_i^(k) = 1 / sigma^2,    APS(i, k) = Lambda_i^(k) / sum over k of Lambda_i^(k).

The columns of a layer sum to 1.

Differs from the paper: the return falls by half of its distance to a random policy's return, as
half of a negative return would be a better one.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rltransfer.errors import InputError, check_number
from rltransfer.files.checkpoint import newest_generation
from rltransfer.files.checkpoint_names import FINAL
from rltransfer.machine.devices import find_device
from rltransfer.machine.threads import available, number_for, restored, use_threads
from rltransfer.options import flag, whole_number
from rltransfer.policies.policy import Policy
from rltransfer.policies.sensitivity import (
    average_fisher_sensitivity,
    checked_layers,
    feature_statistics,
    noise_added,
)
from rltransfer.policies.work import row_work
from rltransfer.rollouts.actors import PolicyActor
from rltransfer.rollouts.evaluation import (
    LONGEST,
    SILENT,
    Evaluation,
    Watcher,
    evaluate_random,
    policy_spaces,
)
from rltransfer.rollouts.evaluation import evaluate as play
from rltransfer.rollouts.visited_states import visited_states
from rltransfer.runs.evaluate import player_of, run_suite
from rltransfer.runs.folder import load_run_policy
from rltransfer.tasks.families import SuiteLike, as_suite
from rltransfer.tasks.task import Suite, Task

MOST_NOISE, LEAST_NOISE = 2.0**10, 2.0**-10
"""Bounds of sigma, in standard deviations of a feature."""

BISECTIONS = 4
"""Steps of the search between two powers of 2: sigma is known within a factor of 2^(1/32)."""


@dataclass(frozen=True)
class LayerSensitivity:
    """How much a policy depends on one layer of one column."""

    layer: int
    """The layer, counted from 1, the one next to the observation."""
    column: int
    """The column, counted from 1, the oldest."""
    fisher: float
    """Average Fisher sensitivity, 0 to 1."""
    perturbation: float | None = None
    """Average perturbation sensitivity, 0 to 1; None if it was not measured."""
    noise: float | None = None
    """The noise at which the return falls by half, in standard deviations of each feature; None if
    no noise up to `MOST_NOISE` does that, or if it was not measured."""


@dataclass(frozen=True)
class Sensitivity:
    """How much a policy depends on each layer of each of its columns."""

    task: str
    """The played task."""
    states: int
    """Number of states of the Fisher sensitivity."""
    layers: tuple[LayerSensitivity, ...]
    """By layer, then by column."""
    return_mean: float | None = None
    """Mean return without noise; None if no noise was added."""
    random_return_mean: float | None = None
    """Mean return of a random policy; None if no noise was added."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return dataclasses.asdict(self)


@restored()
def sensitivity(
    source: str | Path,
    task: SuiteLike | None = None,
    *,
    episodes: int = 10,
    states: int = 4_096,
    checkpoint: str | int = FINAL,
    seed: int = 0,
    device: str = "auto",
    deterministic: bool = True,
    fisher_only: bool = False,
    max_steps: int = LONGEST,
    watcher: Watcher = SILENT,
) -> Sensitivity:
    """Measures how much a run's policy depends on each layer of each of its columns.

    A policy that is not progressive has one column, whose sensitivities are 1.

    Args:
        source: A run directory.
        task: The task that the policy plays; None for the run's task.
        episodes: Episodes for each noise, and of those that the states are from.
        states: Number of states of the Fisher sensitivity.
        checkpoint: See `evaluate`.
        seed: Seed of the environments, the states and the noise.
        device: See `evaluate`.
        deterministic: Whether to act greedily instead of sampling.
        fisher_only: Whether to leave out the perturbation sensitivity, which takes long.
        max_steps: Steps after which an episode is cut.
        watcher: Follows the episodes.

    Raises:
        InputError: The source is not a run, its policy does not fit the task, is recurrent, has
            several networks or no hidden layer, or plays no better than a random policy.
    """
    episodes = whole_number("episodes", episodes, "at most 1,024")
    max_steps = whole_number("max_steps", max_steps, "at least 1")
    states = whole_number("states", states, "at most 1,000,000")
    check_number("episodes", episodes, "at least 1")
    check_number("states", states, "at least 1")
    seed = whole_number("seed", seed, "at least 0")
    place, run_dir = find_device(str(device)), Path(source).expanduser()
    policy = load_run_policy(newest_generation(run_dir), checkpoint)
    policy, played, index = player_of(policy, run_suite(run_dir), _task(run_dir, task), run_dir)
    layers = checked_layers(policy, str(source))
    policy.to(place)
    if place.type == "cpu":
        use_threads(number_for(row_work(policy) * episodes, available()))
    how: dict[str, Any] = {
        "seed": seed,
        "device": place,
        "deterministic": flag("deterministic", deterministic),
        "max_steps": max_steps,
    }
    seen = visited_states(policy, played, states, episodes=episodes, index=index, **how)
    count = len(next(iter(seen.values())))
    tasks = torch.full((count,), index, device=place)
    generator = torch.Generator(place).manual_seed(seed)
    statistics = feature_statistics(policy, seen, tasks, generator)
    measured = [
        [LayerSensitivity(layer, column, fisher) for column, fisher in enumerate(row, 1)]
        for layer, row in enumerate(average_fisher_sensitivity(statistics).tolist(), 1)
    ]
    name = Suite.of(played).names()[0]
    if flag("fisher_only", fisher_only):
        return Sensitivity(name, count, tuple(one for row in measured for one in row))
    trials = Trials(policy, played, index, episodes, watcher, **how)
    if not trials.clean.mean > trials.random.mean:
        raise InputError(
            f"The policy of {source} has a return of {trials.clean.mean:.3g} on {name}, no more "
            f"than a random policy's {trials.random.mean:.3g}, so that noise cannot halve what it "
            "has learned: train it longer, or pass --fisher-only."
        )
    found = [
        one
        for row, modules, of_layer in zip(
            measured, zip(*layers, strict=True), statistics, strict=True
        )
        for one in _perturbed(row, modules, [each.std for each in of_layer], trials)
    ]
    return Sensitivity(name, count, tuple(found), trials.clean.mean, trials.random.mean)


def _task(run_dir: Path, requested: SuiteLike | None) -> Task:
    """The requested task, or that of the run.

    Raises:
        InputError: There are several.
    """
    suite = run_suite(run_dir) if requested is None else as_suite(requested)
    if len(suite) > 1:
        whose = f"{run_dir} was trained on" if requested is None else f"--task {requested} is"
        raise InputError(f"{whose} {len(suite)} tasks: pass one of them as --task.")
    return suite.tasks[0]


class Trials:
    """Episodes of a policy with noise on some of its features.

    Args:
        policy: The policy.
        task: The task.
        index: The task's index for the policy.
        episodes: Episodes for each noise, the same ones each time.
        watcher: Follows the episodes.
        seed: Seeds the environments, the actions and the noise.
        device: The device.
        deterministic: Whether to act greedily instead of sampling.
        max_steps: Steps after which an episode is cut.

    Attributes:
        clean: The episodes without noise.
        random: The episodes of a random policy.
    """

    def __init__(
        self,
        policy: Policy,
        task: Task,
        index: int,
        episodes: int,
        watcher: Watcher,
        *,
        seed: int,
        device: torch.device,
        deterministic: bool,
        max_steps: int,
    ) -> None:
        self.policy = policy
        self.task = task
        self.index = index
        self.episodes = episodes
        self.deterministic = deterministic
        self._how: dict[str, Any] = {
            "seed": seed,
            "device": device,
            "max_steps": max_steps,
            "watcher": watcher,
        }
        self.clean = self._play("the policy", ())
        (self.random,) = evaluate_random(Suite.of(task), episodes, **self._how).values()

    def with_noise(self, what: str, module: nn.Module, std: Tensor) -> Evaluation:
        """The episodes with noise on a module's output; see `noise_added`.

        Args:
            what: What has the noise, for the watcher.
            module: The module.
            std: Standard deviation of each feature's noise.    (features,)
        """
        generator = torch.Generator(std.device).manual_seed(self._how["seed"])
        with noise_added(module, std, generator):
            return self._play(f"the policy with {what}", (generator,))

    def _play(self, who: str, noise: tuple[torch.Generator, ...]) -> Evaluation:
        device, seed = self._how["device"], self._how["seed"]
        sampling = None if self.deterministic else torch.Generator(device).manual_seed(seed)
        return play(
            lambda _: _NoisyActor(self.policy, sampling, noise), self.task, self.episodes, who=who,
            pad=functools.partial(policy_spaces, self.policy.spec, self.index), index=self.index,
            **self._how,
        )  # fmt: skip

    def is_halved(self, returns: Evaluation) -> bool:
        """Whether half of what the policy is better than a random one, or more, is lost."""
        return returns.mean <= (self.clean.mean + self.random.mean) / 2


class _NoisyActor(PolicyActor):
    """A policy whose features have noise."""

    def __init__(
        self,
        policy: Policy,
        generator: torch.Generator | None,
        noise: tuple[torch.Generator, ...],
    ) -> None:
        super().__init__(policy, generator)
        self._noise = noise

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """See `Actor`."""
        return (*super().generators, *self._noise)


def _perturbed(
    row: Sequence[LayerSensitivity],
    modules: Sequence[nn.Module],
    stds: Sequence[Tensor],
    trials: Trials,
) -> list[LayerSensitivity]:
    """A layer with its perturbation sensitivities.

    Args:
        row: The layer in each column.
        modules: The modules that output its features, by column.
        stds: The features' standard deviations, by column.    [(features,)]
        trials: Plays the episodes.
    """
    noises = [_noise(*column, trials) for column in zip(row, modules, stds, strict=True)]
    precisions = [0.0 if noise is None else noise**-2 for noise in noises]
    total = sum(precisions)
    return [
        dataclasses.replace(one, perturbation=precision / total if total else 0.0, noise=noise)
        for one, noise, precision in zip(row, noises, precisions, strict=True)
    ]


def _noise(one: LayerSensitivity, module: nn.Module, std: Tensor, trials: Trials) -> float | None:
    """The noise on a layer of a column at which the return falls by half; None if there is none."""

    def returns(sigma: float) -> Evaluation:
        what = f"noise {sigma:.3g} on layer {one.layer} of column {one.column}"
        return trials.with_noise(what, module, sigma * std)

    if returns(MOST_NOISE) == trials.clean:
        return None  # nothing depends on the features: less noise has no effect either
    return halving_noise(lambda sigma: trials.is_halved(returns(sigma)))


def halving_noise(halves: Callable[[float], bool]) -> float | None:
    """The noise from which on a return is halved, in `LEAST_NOISE` to `MOST_NOISE`.

    Searches upwards from 1 by doubling, or downwards by halving, then by bisection on a log scale.

    Args:
        halves: Whether the return is halved at a sigma.

    Returns:
        The noise, `LEAST_NOISE` if less is enough; None if `MOST_NOISE` is not enough.
    """
    low = high = 1.0
    while high <= MOST_NOISE and not halves(high):
        low, high = high, 2 * high
    if high > MOST_NOISE:
        return None
    while low == high:  # 1 is too much
        low = high / 2
        if low < LEAST_NOISE:
            return LEAST_NOISE
        if halves(low):
            high = low
    for _ in range(BISECTIONS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if halves(middle) else (middle, high)
    return math.sqrt(low * high)
