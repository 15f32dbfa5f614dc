"""Taskonomy of MinAtar's games: which game's weights help to learn which other game.

    rltransfer experiment run taskonomy

A source is a student of the zoo's teacher of one game. PPO learns each game from each other game's
source, and from random weights, with the same network, seeds and settings. The gain of a transfer
is its area ratio, the area under the curve of training returns relative to random weights, minus 1.
Then integer programming chooses the games to learn first, for each budget (Zamir 2018).

Differs from Zamir 2018, besides the tasks:

- Affinities are area ratios, which have a unit and an interval, instead of the ordinal scale of an
  analytic hierarchy process.
- Transfers have one source each.
- All weights train on, the source's head included, instead of a readout on frozen features.
- The games observe different channels: those that the source lacks start with fresh weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltransfer.agents import PolicyDistillation
from rltransfer.errors import InputError
from rltransfer.experiments.actor_mimic.experiment import NETWORK, WINDOW, learning_method
from rltransfer.experiments.common.checks import choice
from rltransfer.experiments.common.experiment import PaperExperiment
from rltransfer.experiments.common.intervals import interval_json
from rltransfer.experiments.common.page import Page, format_hardware, markdown_table
from rltransfer.experiments.common.pictures import curve_panels, heat_map
from rltransfer.experiments.common.training_curve import smooth_curves
from rltransfer.experiments.common.trials import Trial, run_options
from rltransfer.experiments.taskonomy.selection import Selection, best_selection
from rltransfer.experiments.zoo.experiment import GAMES, task_of
from rltransfer.metrics.curves import Curve
from rltransfer.metrics.intervals import Interval
from rltransfer.metrics.transfer import area_ratio

RANDOM = "random weights"

Curves = Mapping[str, Mapping[str, Sequence[Curve]]]
"""The smoothed training returns, one per seed: by game, then by source."""

Ratios = Mapping[str, Mapping[str, Interval]]
"""The area ratios: by source, then by game."""


@dataclass(frozen=True, kw_only=True)
class Taskonomy(PaperExperiment):
    """Which game helps which (Zamir 2018): 150 runs, hours on two CPU cores.

    A matrix of area ratios between MinAtar's games, and the best sources for each budget.
    """

    games: tuple[str, ...] = choice("game", GAMES)
    """Games that are sources and targets; at least two."""
    source_steps: int = 300_000
    """Environment steps of each source."""
    steps: int = 500_000
    """Environment steps of each learner."""
    out: Path = Path("runs/taskonomy")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.games) < 2:
            raise InputError("games has a single game: a transfer needs at least two.")

    def make_page(self) -> Page:
        """Trains all sources, then all learners, and builds the page."""
        sources = self.run_trials(self.sources())
        learners = self.run_trials(self.trials())
        return self.page(self._curves(), {**sources, **learners})

    def sources(self) -> list[Trial]:
        """One student of the zoo's teacher per seed and game."""
        return [
            Trial(
                name=_source_name(game, seed),
                method=PolicyDistillation(
                    teacher="zoo",
                    student=NETWORK,
                    num_envs=16,
                    memory_steps=100_000,
                    objective="kl",
                    teacher_acts=1.0,
                    epochs=4.0,
                    exploration=0.05,
                    rollout_length=128,
                    batch_size=512,
                    learning_rate=2e-3,
                ),
                suite=task_of(game),
                options=run_options(self.source_steps, seed),
            )
            for seed in range(self.seeds)
            for game in self.games
        ]

    def trials(self) -> list[Trial]:
        """One run per seed, game and source, random weights included."""
        return [
            Trial(
                name=_name(game, source, seed),
                method=learning_method("ppo"),
                suite=task_of(game),
                options={**run_options(self.steps, seed), **self._start(source, seed)},
            )
            for seed in range(self.seeds)
            for game in self.games
            for source in self._sources_of(game)
        ]

    def _sources_of(self, game: str) -> tuple[str, ...]:
        return (RANDOM, *(one for one in self.games if one != game))

    def _start(self, source: str, seed: int) -> dict[str, Any]:
        """The options of a run that set its first weights."""
        if source == RANDOM:
            return {}
        return {"init_from": str(self.out / _source_name(source, seed)), "init_match": "inputs"}

    def _curves(self) -> Curves:
        return {
            game: {
                source: smooth_curves(
                    [self.out / _name(game, source, seed) for seed in range(self.seeds)],
                    task_of(game),
                    WINDOW * self.steps,
                )
                for source in self._sources_of(game)
            }
            for game in self.games
        }

    def page(self, curves: Curves, results: Mapping[str, Any]) -> Page:
        """The page of the curves and of all runs' results, by name."""
        ratios = area_ratios(self.games, curves)
        selections = best_selections(self.games, ratios)
        return Page(
            text=self._text(ratios, selections, results),
            data={
                **self.option_values("steps", "source_steps", "seeds"),
                "hardware": format_hardware(results.values()),
                "area_ratio": {
                    source: {game: interval_json(one) for game, one in row.items()}
                    for source, row in ratios.items()
                },
                "selections": {
                    str(budget): {"sources": one.sources, "starts": one.starts, "gain": one.gain}
                    for budget, one in selections.items()
                },
                "final_training_return": {
                    game: {
                        source: [float(curve.returns[-1]) for curve in group]
                        for source, group in rows.items()
                    }
                    for game, rows in curves.items()
                },
                "wall_seconds": {name: one["wall_seconds"] for name, one in results.items()},
            },
            pictures={
                "matrix.png": heat_map(
                    {
                        source: {game: one.estimate for game, one in row.items()}
                        for source, row in ratios.items()
                    },
                    neutral=1.0,
                    label="area ratio",
                ),
                "curves.png": curve_panels(curves),
            },
        )

    def _text(
        self, ratios: Ratios, selections: Mapping[int, Selection], results: Mapping[str, Any]
    ) -> str:
        matrix = [
            [source, *(row[game].format(2) if game in row else "" for game in self.games)]
            for source, row in ratios.items()
        ]
        verdicts = [
            one.against(1.0, "above", "below") for row in ratios.values() for one in row.values()
        ]
        counts = [
            f"{verdicts.count('above')} of {len(verdicts)} transfers help",
            f"{verdicts.count('below')} hurt",
            f"{len(verdicts) - verdicts.count('above') - verdicts.count('below')} are undecided",
        ]
        choices = [
            [
                str(budget),
                ", ".join(one.sources) or "none",
                ", ".join(f"{game} from {source}" for game, source in one.starts.items()) or "none",
                f"{1 + one.gain / len(self.games):.2f}",
            ]
            for budget, one in selections.items()
        ]
        return f"""# Which game helps which

**{"; ".join(counts)}**, by the 95 % interval of the area ratio over {self.seed_count}.

Area ratio by source (rows) and game that is learned from it (columns): the area under the curve of
training returns, relative to random weights. 1 means without transfer.

{markdown_table(["", *self.games], matrix)}

![area ratios](matrix.png)

![training returns](curves.png)

## The best sources for a budget

If this many games may be learned first, these choices have the highest mean area ratio. The games
that are learned first, and those without a source that helps, start from random weights and count
as 1. The choice uses the estimates alone: where intervals overlap, it may be chance.

{markdown_table(["games first", "which", "starts", "mean area ratio"], choices)}

- A source is a student of the zoo's teacher, {self.source_steps:,} steps; learners are PPO,
  {self.steps:,} steps. The sources' steps are not counted.
- Intervals are Fieller's, over seeds.

{self.footer(results.values())}

The docstring of `experiment.py` lists the differences from the paper.
"""


def area_ratios(games: Sequence[str], curves: Curves) -> dict[str, dict[str, Interval]]:
    """The area ratio of each source and each other game."""
    return {
        source: {
            game: area_ratio(curves[game][source], curves[game][RANDOM])
            for game in games
            if game != source
        }
        for source in games
    }


def best_selections(games: Sequence[str], ratios: Ratios) -> dict[int, Selection]:
    """The best sources for each budget."""
    gains = {
        source: {game: one.estimate - 1 for game, one in row.items()}
        for source, row in ratios.items()
    }
    return {budget: best_selection(games, gains, budget) for budget in range(1, len(games))}


def _source_name(game: str, seed: int) -> str:
    return f"source-{game}-{seed}"


def _name(game: str, source: str, seed: int) -> str:
    return f"{game}-from-{'random' if source == RANDOM else source}-{seed}"
