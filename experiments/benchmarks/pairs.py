"""The pairs: the measurement on each side, and the ratio that rltransfer should reach."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from rltransfer.envs.minatar.ids import GAMES
from rltransfer.errors import InputError

from .experts import EXPERTS, find_expert

ENVS = "minatar-envs-"
"""Prefix of the pairs that compare MinAtar's environments only."""
TIME_TO_TEACHER = "time-to-teacher-"
"""Prefix of the pairs that compare the seconds until a student is as good as its teacher."""
INSTALLS = {
    # It asks for an older gymnasium, but works with this one.
    "imitation": "pip install --no-deps imitation==1.0.1 datasets pyarrow dill multiprocess xxhash "
    "jsonpickle"
}
"""How packages are installed that are not in the extra."""
ENVS_MEAN_BAR = 10.0
"""The geometric mean that their ratios should reach."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """A command that prints a line of JSON, and the place of the measured number in it."""

    name: str
    """Name of the library."""
    command: tuple[str, ...]
    """Arguments of the Python interpreter."""
    key: tuple[str, ...]
    """Keys that lead to the number in the JSON."""
    packages: tuple[str, ...] = ()
    """Packages that it needs besides rltransfer's requirements."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two sides that do the same work, or one side whose number is a ratio or a size."""

    name: str
    """Name on the command line."""
    what: str
    """Description of the work, for the table."""
    unit: str
    """Unit of the sides' numbers."""
    ours: Side
    """rltransfer."""
    peer: Side | None = None
    """The library to compare with; None if rltransfer's number is compared with the bar."""
    bar: float
    """The least, or the largest, acceptable ratio."""
    at_most: bool = False
    """Whether the bar is a maximum."""
    lower_is_better: bool = False
    """Whether the numbers are times, so that the ratio is the peer's number over rltransfer's."""
    seeded: bool = False
    """Whether each repetition has a different seed; the ratio is then that of the medians."""
    tries_threads: bool = False
    """Whether each side runs with the number of torch threads that suits it better."""
    expert: str = ""
    """Name of the teacher whose zip both sides read, if they do."""

    def ratio(self, ours: float, peer: float | None) -> float:
        """How many times better rltransfer is, or its number if there is no peer."""
        if peer is None:
            return ours
        return peer / ours if self.lower_is_better else ours / peer

    def ratios(self, ours: Sequence[float], peer: Sequence[float]) -> list[float]:
        """The ratio of each repetition, or of all pairs of repetitions if seeds differ.

        Args:
            ours: rltransfer's number in each repetition.
            peer: The peer's numbers; empty without a peer.
        """
        if self.peer is None:
            return list(ours)
        if self.seeded:
            # The sides draw different random numbers from a seed, so runs do not form pairs.
            return [self.ratio(a, b) for a, b in itertools.product(ours, peer)]
        return [self.ratio(a, b) for a, b in zip(ours, peer, strict=True)]

    def median_ratio(self, ours: Sequence[float], peer: Sequence[float]) -> float:
        """The ratio that is compared with the bar."""
        if self.seeded and self.peer is not None:
            return self.ratio(statistics.median(ours), statistics.median(peer))
        return statistics.median(self.ratios(ours, peer))

    def met(self, ratio: float) -> bool:
        """Whether the bar is met."""
        return ratio <= self.bar if self.at_most else ratio >= self.bar

    def check(self) -> None:
        """Checks that the packages of both sides are installed, and that their files are there.

        Raises:
            InputError: One is not.
        """
        if self.expert:
            find_expert(self.expert).path  # noqa: B018 - refused here if it is not there
        for side in (self.ours, self.peer):
            for package in side.packages if side else ():
                try:
                    version(package)
                except PackageNotFoundError as error:
                    how = INSTALLS.get(package, "pip install 'rltransfer[benchmark]'")
                    raise InputError(
                        f"The pair {self.name!r} needs the package {package}: {how}."
                    ) from error


def _shell(words: str, *key: str) -> Side:
    command = ("-m", "rltransfer.cli", "benchmark", *words.split(), "--device", "cpu", "--json")
    return Side(name="rltransfer", command=command, key=key)


def _script(name: str, words: str, key: str, who: str, *packages: str) -> Side:
    command = ("-m", f"rltransfer.experiments.benchmarks.{name}", *words.split())
    return Side(name=who, command=command, key=(key,), packages=packages)


def _envs(game: str, title: str) -> Pair:
    task = f"rltransfer/MinAtar-{title}-v1"
    return Pair(
        name=ENVS + game,
        what=f"MinAtar {title}, 4,096 environments, random actions",
        unit="steps/s",
        ours=_shell(
            f"rollout --task {task} --num-envs 4096 --repeats 3",
            "tasks", task, "environments_only", "median",
        ),
        peer=_script(
            "pgx_minatar", f"--game {game} --num-envs 4096", "steps_per_second",
            "pgx", "pgx", "jax",
        ),
        bar=3.0,
    )  # fmt: skip


def _minatar_ppo(num_envs: int, batch_size: int, bar: float) -> Pair:
    words = f"--num-envs {num_envs} --rollout-length 128 --epochs 4 --batch-size {batch_size}"
    return Pair(
        name=f"ppo-minatar-{num_envs}",
        what=f"PPO on MinAtar Breakout, {num_envs} environments, 128 x 4 epochs, "
        f"batch {batch_size:,}",
        unit="steps/s",
        ours=_shell(
            "train ppo --task rltransfer/MinAtar-Breakout-v0 --encoder grid --repeats 3 " + words,
            "with_training", "median",
        ),
        peer=_script(
            "stable_baselines3_ppo", words, "steps_per_second", "Stable-Baselines3", "minatar"
        ),
        bar=bar,
        tries_threads=True,
    )  # fmt: skip


def _time_to_teacher(task: str, peer: str, bar: float) -> Pair:
    words = f"--expert {task}"
    one = f"{words} --threads 1"  # as rltransfer chooses for such small networks
    peers = {
        "dagger": _script(
            "imitation_trainers", f"{one} --trainer dagger", "seconds",
            "imitation's DAgger", "imitation",
        ),
        "bc": _script(
            "imitation_trainers", f"{one} --trainer bc", "seconds", "imitation's BC", "imitation"
        ),
        "torch": _script("torch_dagger", one, "seconds", "a plain torch loop"),
    }  # fmt: skip
    return Pair(
        name=f"{TIME_TO_TEACHER}{task}-{peer}",
        what=f"Seconds until the student of a zip keeps 95 % of its return on {task}",
        unit="s",
        ours=_script("time_to_teacher", words, "seconds", "rltransfer"),
        peer=peers[peer],
        bar=bar,
        lower_is_better=True,
        seeded=True,
        expert=task,
    )


def _columns(number: int, word: str, bar: float) -> Pair:
    return Pair(
        name=f"progressive-{word}",
        what=f"Training a progressive network of {word} columns on MinAtar Breakout: steps per "
        "second relative to one column",
        unit="times",
        ours=_script("progressive_columns", f"--columns {number}", "ratio", "rltransfer"),
        bar=bar,
    )


PAIRS: dict[str, Pair] = {
    pair.name: pair
    for pair in (
        *(_envs(game, title) for game, title in GAMES.items()),
        _minatar_ppo(8, 256, 2.0),
        _minatar_ppo(64, 1024, 1.5),
        Pair(
            name="ppo-minatar-return-10",
            what="PPO on MinAtar Breakout until the mean return of the last 100 training episodes "
            "is 10, each with its best settings",
            unit="s",
            ours=_script("ppo_return", "--until-return 10", "seconds", "rltransfer"),
            peer=_script(
                "stable_baselines3_ppo",
                "--until-return 10 --num-envs 64 --rollout-length 128 --epochs 2 --batch-size 512 "
                "--learning-rate 3e-3",
                "seconds",
                "Stable-Baselines3",
                "minatar",
            ),
            bar=5.0,
            tries_threads=True,
            lower_is_better=True,
            seeded=True,
        ),
        Pair(
            name="atari-envs",
            what="Atari Breakout, 64 environments, random actions; rltransfer stores the "
            "observations",
            unit="steps/s",
            ours=_script("atari_rollout", "--num-envs 64", "steps_per_second", "rltransfer"),
            peer=_script("ale_bare", "--num-envs 64", "steps_per_second", "ale-py"),
            bar=0.95,
        ),
        Pair(
            name="ppo-atari",
            what="PPO on Atari Breakout, Nature CNN, 8 environments, 128 x 4 epochs, batch 256",
            unit="steps/s",
            ours=_shell(
                "train ppo --task ALE/Breakout-v5 --encoder nature --num-envs 8 "
                "--rollout-length 128 --epochs 4 --batch-size 256 --repeats 1 --seconds 4",
                "with_training",
                "median",
            ),
            peer=_script(
                "stable_baselines3_ppo",
                "--game atari --num-envs 8 --rollout-length 128 --epochs 4 --batch-size 256 "
                "--repeats 1 --seconds 4",
                "steps_per_second",
                "Stable-Baselines3",
                "opencv-python-headless",
            ),
            bar=1.6,
            tries_threads=True,
        ),
        Pair(
            name="learner-nature",
            what="Distilling a Nature CNN from the replay buffer, batch 256; the bare loop has its "
            "batches in RAM",
            unit="samples/s",
            ours=_shell(
                "learner --encoder nature --batch-size 256 --repeats 3 --seconds 2",
                "samples_per_second",
                "median",
            ),
            peer=_script(
                "bare_torch", "--batch-size 256", "samples_per_second", "a bare torch loop"
            ),
            bar=0.9,
            tries_threads=True,
        ),
        Pair(
            name="distillation-mlp",
            what="Online distillation, MLP 512-256-128 into 128-128, 4,096 environments, 30 steps",
            unit="steps/s",
            ours=_script("mlp_distillation", "", "steps_per_second", "rltransfer"),
            peer=_script("rsl_rl_distillation", "", "steps_per_second", "rsl_rl", "rsl-rl-lib"),
            bar=1.2,
            tries_threads=True,
        ),
        Pair(
            name="teachers-five",
            what="Labelling with five teachers, one per game: time relative to one teacher",
            unit="times",
            ours=_shell("teachers --suite minatar --repeats 3", "ratio"),
            bar=1.15,
            at_most=True,
        ),
        *(
            _time_to_teacher(task, peer, bar)
            for task in EXPERTS
            for peer, bar in (("dagger", 10.0), ("bc", 10.0), ("torch", 3.0))
        ),
        _columns(2, "two", 0.4),
        _columns(3, "three", 0.3),
        Pair(
            name="learner-progressive",
            what="PPO's updates of a progressive network of two columns, batch 256; the plain loop "
            "has no metrics",
            unit="samples/s",
            ours=_script("progressive_learner", "", "samples_per_second", "rltransfer"),
            peer=_script("bare_progressive", "", "samples_per_second", "a plain torch loop"),
            bar=0.9,
            tries_threads=True,
        ),
        Pair(
            name="memory-atari",
            what="Replay buffer of 540,000 Atari steps, size from its tensors' shapes",
            unit="GB",
            ours=_script("memory_atari", "--steps 540_000", "gigabytes", "rltransfer"),
            bar=4.5,
            at_most=True,
        ),
    )
}
"""Every pair by its name."""


def find_pairs(names: Sequence[str]) -> list[Pair]:
    """The pairs of these names, or all pairs, after a check of their packages.

    Raises:
        InputError: There is no such pair, or a package is missing.
    """
    for name in names:
        if name not in PAIRS:
            raise InputError(f"There is no pair {name!r}: there are {', '.join(PAIRS)}.")
    found = [PAIRS[name] for name in names or PAIRS]
    for pair in found:
        pair.check()
    return found
