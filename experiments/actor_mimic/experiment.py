"""Actor-Mimic: whether a mimic of four games is a better start for the fifth than random weights.

    rltransfer experiment run actor-mimic

For each of MinAtar's games a mimic learns the other four from the zoo's teachers, by policy
regression alone and with feature regression. Then a learner trains on the game that was left out,
with the same network, seed and settings from each of four starts:

- random: fresh weights;
- policy, feature: the weights of the mimic, its head included (Parisotto 2015, section 4.2);
- single: the weights of a mimic of one other game, the next in the list, by policy regression.

Measured on the training returns, smoothed over a twentieth of the run:

- area ratio: the area under the curve, relative to that of random weights of the same seeds;
- jumpstart: the return over the first tenth of the run, minus that of random weights;
- time to threshold: the steps until the mean final return of random weights is first reached, as a
  fraction of the steps that random weights need. Runs that do not reach it are censored.

The steps of mimics and teachers are not counted.

Differs from the paper:

- MinAtar instead of Atari; PPO and PQN instead of DQN.
- The games observe different channels: those of the left-out game that the four do not have start
  with fresh weights.
- The mimic has the learner's network instead of a larger one: one convolution, 128 units, and
  LayerNorm, which PQN needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from rltransfer.agents import PPO, PQN, ActorMimic
from rltransfer.experiments.common.checks import choice
from rltransfer.experiments.common.experiment import PaperExperiment
from rltransfer.experiments.common.intervals import interval_json
from rltransfer.experiments.common.page import Page, format_hardware, markdown_table
from rltransfer.experiments.common.pictures import curve_panels
from rltransfer.experiments.common.training_curve import smooth_curves
from rltransfer.experiments.common.trials import Trial, run_options
from rltransfer.experiments.zoo.experiment import GAMES, task_of
from rltransfer.learning.agent import Method
from rltransfer.learning.initial_weights import InitMatch
from rltransfer.metrics.curves import Curve
from rltransfer.metrics.intervals import Interval
from rltransfer.metrics.thresholds import time_ratio, times_to_threshold
from rltransfer.metrics.transfer import area_ratio, jumpstart
from rltransfer.policies.network import Network
from rltransfer.tasks.task import Suite

LearnerName = Literal["ppo", "pqn"]
StartName = Literal["random", "policy", "feature", "single"]

STARTS: tuple[StartName, ...] = ("random", "policy", "feature", "single")
BETAS: dict[StartName, float] = {"policy": 0.0, "feature": 0.01, "single": 0.0}
"""The weight of the feature regression of each kind of mimic."""

NETWORK = Network(encoder="grid", layer_norm=True, activation="relu")

WINDOW = 0.05
"""Training returns are smoothed over this fraction of a run's steps."""

Curves = Mapping[tuple[str, LearnerName, StartName], Sequence[Curve]]
"""The smoothed training returns of each game, learner and start, one per seed."""


@dataclass(frozen=True)
class Transfer:
    """What one start gains over random weights."""

    area: Interval
    jumpstart: Interval
    time: Interval
    censored: int
    """How many runs did not reach the threshold."""

    @staticmethod
    def of(curves: Sequence[Curve], baseline: Sequence[Curve]) -> Transfer:
        """Compares the curves of a start with those of random weights."""
        threshold = float(np.mean([curve.returns[-1] for curve in baseline]))
        times, slow = (times_to_threshold(group, threshold) for group in (curves, baseline))
        horizon = min(times.horizon, slow.horizon, *(float(c.steps[-1]) for c in baseline))
        return Transfer(
            area_ratio(curves, baseline),
            jumpstart(curves, baseline),
            time_ratio(times, slow, horizon),
            times.censored,
        )

    def to_json(self) -> dict[str, Any]:
        """The figures, for `results.json`."""
        intervals = {"area": self.area, "jumpstart": self.jumpstart, "time": self.time}
        return {
            **{name: interval_json(one) for name, one in intervals.items()},
            "censored": self.censored,
        }


@dataclass(frozen=True, kw_only=True)
class ActorMimicTransfer(PaperExperiment):
    """A mimic of four games as a start (Parisotto 2015): 275 runs, hours on two CPU cores.

    Area ratio, jumpstart and time to threshold against random weights and one other game's.
    """

    games: tuple[str, ...] = choice("game", GAMES)
    """Games to leave out, each in turn."""
    learners: tuple[str, ...] = choice("learner", ("ppo", "pqn"))
    """Learners of the game that was left out."""
    mimic_steps: int = 1_000_000
    """Environment steps of each mimic, over all of its games."""
    steps: int = 500_000
    """Environment steps of each learner."""
    out: Path = Path("runs/actor-mimic")

    init_match: ClassVar[InitMatch] = "inputs"
    """How weights are matched: see the run's option."""

    @property
    def all_games(self) -> tuple[str, ...]:
        """The games that the zoo has teachers of, in their order."""
        return tuple(GAMES)

    def task_of(self, game: str) -> str:
        """The task of a game."""
        return task_of(game)

    def mimic(self, beta: float) -> ActorMimic:
        """The mimic's method.

        Args:
            beta: The weight of the feature regression.
        """
        return ActorMimic(
            teacher="zoo", student=NETWORK, beta=beta, num_envs=16, memory_steps=100_000
        )

    def learner(self, name: LearnerName) -> Method:
        """The method of the game that was left out."""
        return learning_method(name)

    def sources(self, game: str, kind: StartName) -> list[str]:
        """The games of the mimic whose weights a learner starts from."""
        names = list(self.all_games)
        first = names.index(game) + 1
        others = (names[first:] + names)[: len(names) - 1]
        return others[:1] if kind == "single" else others

    def make_page(self) -> Page:
        """Trains all mimics, then all learners, and builds the page."""
        mimics = self.run_trials(self.mimics())
        learners = self.run_trials(self.trials())
        return self.page(self._curves(), mimics, learners)

    def mimics(self) -> list[Trial]:
        """One run per seed, kind of mimic and game that the learner trains on."""
        return [
            Trial(
                name=_mimic_name(game, kind, seed),
                method=self.mimic(beta),
                suite=Suite.of(*map(self.task_of, self.sources(game, kind))),
                options=run_options(self.mimic_steps, seed),
            )
            for seed in range(self.seeds)
            for kind, beta in BETAS.items()
            for game in self.games
        ]

    def trials(self) -> list[Trial]:
        """One run per seed, start, learner and game."""
        return [
            Trial(
                name=_name(game, learner, start, seed),
                method=self.learner(learner),
                suite=self.task_of(game),
                options={**run_options(self.steps, seed), **self._start(game, start, seed)},
            )
            for seed in range(self.seeds)
            for start in STARTS
            for learner in self._learners
            for game in self.games
        ]

    @property
    def _learners(self) -> tuple[LearnerName, ...]:
        return tuple("ppo" if name == "ppo" else "pqn" for name in self.learners)

    def _start(self, game: str, start: StartName, seed: int) -> dict[str, Any]:
        """The options of a run that set its first weights."""
        if start == "random":
            return {}
        source = str(self.out / _mimic_name(game, start, seed))
        return {"init_from": source, "init_match": self.init_match}

    def _curves(self) -> Curves:
        return {
            (game, learner, start): smooth_curves(
                [self.out / _name(game, learner, start, seed) for seed in range(self.seeds)],
                self.task_of(game),
                WINDOW * self.steps,
            )
            for game in self.games
            for learner in self._learners
            for start in STARTS
        }

    def page(self, curves: Curves, mimics: Mapping[str, Any], learners: Mapping[str, Any]) -> Page:
        """The page of the curves and of all runs' results, by name."""
        table = {
            key: Transfer.of(found, curves[key[0], key[1], "random"])
            for key, found in curves.items()
            if key[2] != "random"
        }
        results = {**mimics, **learners}
        return Page(
            text=self._text(table, results),
            data={
                **self.option_values("steps", "mimic_steps", "seeds", "learners"),
                "hardware": format_hardware(results.values()),
                "table": {" ".join(key): found.to_json() for key, found in table.items()},
                "final_training_return": {
                    " ".join(key): [float(curve.returns[-1]) for curve in found]
                    for key, found in curves.items()
                },
                "wall_seconds": {name: one["wall_seconds"] for name, one in results.items()},
            },
            pictures={
                f"{learner}.png": curve_panels(
                    {
                        game: {start: curves[game, learner, start] for start in STARTS}
                        for game in self.games
                    }
                )
                for learner in self._learners
            },
        )

    def _text(
        self, table: Mapping[tuple[str, LearnerName, StartName], Transfer], results: Any
    ) -> str:
        above = {
            start: sum(
                found.area.against(1.0, "above", "below") == "above"
                for key, found in table.items()
                if key[1:] == ("ppo", start)
            )
            for start in STARTS
            if start != "random"
        }
        parts = []
        for learner in self._learners:
            rows = [
                [
                    game, start, found.area.format(2), found.jumpstart.format(1),
                    found.time.format(2), f"{found.censored} of {self.seeds}",
                ]
                for (game, name, start), found in table.items()
                if name == learner
            ]  # fmt: skip
            head = ["game", "start", "area ratio", "jumpstart", "time to threshold, ratio",
                    "not reached"]  # fmt: skip
            parts.append(
                f"## {learner.upper()}\n\n![training returns]({learner}.png)\n\n"
                f"{markdown_table(head, rows)}\n"
            )
        counts = ", ".join(f"{start} {count}" for start, count in above.items())
        return f"""# Actor-Mimic: the game that was left out

Games of {len(self.games)} on which the area under PPO's curve is above that of random weights, with
the whole 95 % interval over {self.seed_count}: **{counts}**.

{chr(10).join(parts)}
- policy, feature: the weights of a mimic of all other games, without and with feature
  regression. single: those of a mimic of one other game.
- area ratio: the area under the curve of training returns, relative to random weights; 1 means
  without transfer.
- jumpstart: the return in the first tenth of the run, minus that of random weights.
- time to threshold: steps until the mean final return of random weights is reached, relative to
  the steps of random weights; below 1 is sooner.
- Intervals are Student's over seeds. {self.steps:,} steps per learner, {self.mimic_steps:,} per
  mimic.

{self.footer(results.values())}

The docstring of `experiment.py` lists the differences from the paper.
"""


def learning_method(learner: LearnerName) -> Method:
    """The learner of the game that was left out."""
    settings: dict[str, Any] = {"num_envs": 16, "rollout_length": 128}
    if learner == "pqn":
        return PQN(network=NETWORK, **settings)
    return PPO(network=NETWORK, batch_size=256, epochs=3, **settings)


def _mimic_name(game: str, kind: str, seed: int) -> str:
    return f"mimic-for-{game}-{kind}-{seed}"


def _name(game: str, learner: str, start: str, seed: int) -> str:
    return f"{game}-{learner}-{start}-{seed}"
