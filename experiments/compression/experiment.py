r"""Compression: students with 25, 7 and 4 % of the teacher's parameters, and the return they reach.

    rltransfer experiment run compression

Policy distillation (Rusu 2015, section 5.1 and table 1) on MinAtar's five games. The zoo's teachers
are distilled into students of three sizes with three losses. The ratio of student to teacher return
is averaged geometrically over the games. The paper's figures on ten Atari games, with KL: 108 % at
a quarter of the size, 102 % at 7 %, 84 % at 4 %; at full size KL is ahead of NLL, NLL of MSE.

Differs from the paper:

- MinAtar instead of Atari.
- The teachers are policies (PPO), so the temperature of KL is 1 and MSE compares logits, not
  Q-values.
- The student acts during training, except in the first fifth.

Minibatch size, step size and epochs were chosen on seed 0 of the smallest MSE students of Asterix
and Space Invaders; these runs are on the page too. Four times the steps, with as many epochs,
make no clear difference for these two: 42 instead of the page's 44 in Asterix (teacher 47), 202
instead of 192 in Space Invaders (teacher 212).

    rltransfer experiment run compression --games Asterix SpaceInvaders --sizes "4 %" \
        --losses MSE --seeds 1 --steps 2_000_000 --precision bfloat16 --out runs/longer
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltransfer.experiments.common.checks import choice
from rltransfer.experiments.common.comparison import (
    RUN_EPISODES,
    TEACHER,
    Comparison,
    Returns,
    compare,
)
from rltransfer.experiments.common.experiment import PaperExperiment
from rltransfer.experiments.common.intervals import mean_percent, percent_rows, table_json
from rltransfer.experiments.common.page import (
    Page,
    format_hardware,
    markdown_table,
    sizes_and_times,
)
from rltransfer.experiments.common.pictures import bar_picture
from rltransfer.experiments.common.trials import Trial, run_options
from rltransfer.experiments.zoo.experiment import EVALUATION_SEED, GAMES, task_of
from rltransfer.experiments.zoo.minatar_student import minatar_student, trained_longer
from rltransfer.learning.agent import Method
from rltransfer.learning.learner import PrecisionName
from rltransfer.metrics.intervals import Interval, geometric_mean_interval
from rltransfer.teachers.zoo import ZOO

SIZES = {"25 %": 0.5, "7 %": 0.2625, "4 %": 0.1975}
"""Factor on the teacher's width that results in this percentage of its parameters."""

LOSSES = {"KL": "KL(temperature=1.0)", "NLL": "NLL()", "MSE": "MSE()"}
"""The three losses, in the paper's order."""


@dataclass(frozen=True, kw_only=True)
class Compression(PaperExperiment):
    """Students of 25, 7 and 4 % of the size (Rusu 2015): 225 runs, two hours on two CPU cores.

    Three losses, five games with a teacher in the zoo, five seeds.
    """

    games: tuple[str, ...] = choice("game", GAMES)
    """Games to play."""
    sizes: tuple[str, ...] = choice("size", SIZES)
    """Student sizes, in per cent of the teacher's parameters."""
    losses: tuple[str, ...] = choice("loss", LOSSES)
    """Distillation losses."""
    steps: int = 500_000
    """Environment steps of each student."""
    epochs: float = 15.0
    """How often each environment step is learned from, on average."""
    episodes: int = 200
    """Evaluation episodes of teacher and students, with the same seeds."""
    precision: PrecisionName = "float32"
    """Arithmetic of the learner; bfloat16 is faster on processors that support it."""
    out: Path = Path("runs/compression")

    def make_page(self) -> Page:
        """Trains the students, compares them with their teachers, and builds the page."""
        found = self.run_trials(self.trials())
        returns = compare(self.comparisons(), self.jobs)
        ratios = {
            loss: {size: self._ratios(returns, loss, size) for size in self.sizes}
            for loss in self.losses
        }
        table = {
            loss: {size: geometric_mean_interval(by_game) for size, by_game in by_size.items()}
            for loss, by_size in ratios.items()
        }
        bars = {loss: list(row.values()) for loss, row in table.items()}
        return Page(
            text=self._text(table, ratios, found),
            data={
                **self.option_values("steps", "epochs", "seeds", "episodes", "precision"),
                "hardware": format_hardware(found.values()),
                "table": table_json(table),
                "returns": returns,
                "trials": sizes_and_times(found),
            },
            pictures={"picture.png": bar_picture(self.sizes, bars)},
        )

    def trials(self) -> list[Trial]:
        """One run per seed, game, size and loss."""
        return [
            Trial(
                name=_name(game, loss, size, seed),
                method=self._method(game, loss, size),
                suite=task_of(game),
                options=run_options(self.steps, seed, RUN_EPISODES),
            )
            for seed in range(self.seeds)
            for game in self.games
            for size in self.sizes
            for loss in self.losses
        ]

    def _method(self, game: str, loss: str, size: str) -> Method:
        recipe = minatar_student(game, SIZES[size], LOSSES[loss], self.precision)
        return trained_longer(recipe, self.epochs)

    def comparisons(self) -> dict[str, Comparison]:
        """For each game and seed the teacher and all its students."""
        return {
            f"{game}-{seed}": Comparison(
                path=self.out / f"{game}-{seed}.comparison.json",
                task=task_of(game),
                players={
                    TEACHER: f"{ZOO}:{task_of(game)}",
                    **{
                        name: str(self.out / name)
                        for size in self.sizes
                        for loss in self.losses
                        for name in [_name(game, loss, size, seed)]
                    },
                },
                episodes=self.episodes,
                seed=EVALUATION_SEED + seed,
            )
            for seed in range(self.seeds)
            for game in self.games
        }

    def _ratios(self, returns: Returns, loss: str, size: str) -> dict[str, list[float]]:
        return {
            game: [
                one[_name(game, loss, size, seed)] / one[TEACHER]
                for seed in range(self.seeds)
                for one in [returns[f"{game}-{seed}"]]
            ]
            for game in self.games
        }

    def _text(
        self,
        table: Mapping[str, Mapping[str, Interval]],
        ratios: Mapping[str, Mapping[str, Mapping[str, list[float]]]],
        found: Mapping[str, dict[str, Any]],
    ) -> str:
        games = [
            [game, loss, *(mean_percent(by_game[game]) for by_game in ratios[loss].values())]
            for game in self.games
            for loss in self.losses
        ]
        return f"""# Compression

Student return in per cent of the teacher's return, by student size (in per cent of the teacher's
parameters) and loss: geometric mean over {len(self.games)} MinAtar games, with its 95 % interval
over {self.seed_count}.

{markdown_table(["loss", *self.sizes], percent_rows(table))}

![return ratios by size and loss](picture.png)

Each game (mean over seeds):

{markdown_table(["game", "loss", *self.sizes], games)}

Each student learned from {self.steps:,} environment steps, {self.epochs:g} times from each step on
average. Teachers and students were evaluated over {self.episodes} whole episodes per game and seed,
with the same environment seeds.

{self.footer(found.values())}

The paper (Rusu 2015, ten Atari games, KL): 108, 102 and 84. The docstring of `experiment.py` lists
the differences from the paper.
"""


def _name(game: str, loss: str, size: str, seed: int) -> str:
    return f"{game}-{loss}-{size.split()[0]}-{seed}"
