r"""Compression: how much of its teacher a student keeps at 25, 7 and 4 % of the parameters.

    rltransfer experiment run compression

Policy distillation (Rusu 2015, section 5.1 and table 1) on MinAtar's five games: students of three
sizes, three losses, from the zoo's teachers, whose shares of the teachers' returns are averaged
geometrically over the games. The paper's figures on ten Atari games, with KL: 108 % at a quarter of
the size, 102 % at 7 %, 84 % at 4 %; KL ahead of NLL ahead of MSE at full size.

Differs from the paper: MinAtar for Atari; the teachers are policies (PPO), so that KL's temperature
is 1 and the squared error is that of logits, not of Q-values; the student acts while it learns, but
for a first fifth.

Minibatches, step size and epochs were chosen by looking at seed 0 of the smallest students of
Asterix and Space Invaders with MSE, which are on the page too. Four times the steps, each learned
from as often, decide nothing for these two: 42 for the page's 44 in Asterix (teacher 47), 202 for
192 in Space Invaders (teacher 212).

    rltransfer experiment run compression --games Asterix SpaceInvaders --sizes "4 %" \
        --losses MSE --seeds 1 --steps 2_000_000 --precision bfloat16 --out runs/longer
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltransfer.experiments.common.checks import check_names, check_options, page_folder
from rltransfer.experiments.common.comparison import RUN_EPISODES, TEACHER, Comparison, compare
from rltransfer.experiments.common.intervals import Interval, geometric_mean_interval, interval_json
from rltransfer.experiments.common.page import (
    footer,
    format_hardware,
    markdown_table,
    write_results,
)
from rltransfer.experiments.common.pictures import bar_picture
from rltransfer.experiments.common.trials import Trial, run_trials
from rltransfer.experiments.zoo.experiment import EVALUATION_SEED, GAMES, task_of
from rltransfer.experiments.zoo.minatar_student import minatar_student, trained_longer
from rltransfer.learning.agent import Method
from rltransfer.learning.learner import PrecisionName
from rltransfer.machine.terminal import console
from rltransfer.teachers.zoo import ZOO

SIZES = {"25 %": 0.5, "7 %": 0.2625, "4 %": 0.1975}
"""Factor on the teacher's width that leaves this share of its parameters."""

LOSSES = {"KL": "KL(temperature=1.0)", "NLL": "NLL()", "MSE": "MSE()"}
"""The three losses, in the paper's order."""


@dataclass(frozen=True, kw_only=True)
class Compression:
    """Students of 25, 7 and 4 % of the size (Rusu 2015): 225 runs, two hours on two CPU cores.

    Three losses, from the zoo's teachers of five games, with five seeds.
    """

    games: tuple[str, ...] = GAMES
    """The games."""
    sizes: tuple[str, ...] = tuple(SIZES)
    """Shares of the teacher's parameters, of those in `SIZES`."""
    losses: tuple[str, ...] = tuple(LOSSES)
    """The losses, of those in `LOSSES`."""
    seeds: int = 5
    """Seeds of each combination, counted from 0."""
    steps: int = 500_000
    """Environment steps of each student."""
    epochs: float = 15.0
    """How often each step is learned from, on average."""
    episodes: int = 200
    """Episodes that teacher and students play, with the same seeds."""
    precision: PrecisionName = "float32"
    """Arithmetic of the learners; bfloat16 is faster on processors that have it."""
    jobs: int = 0
    """Trials at once; 0 means one for each core."""
    out: Path = Path("runs/compression")
    """Folder of the runs."""
    results: Path | None = None
    """Folder for the page, its picture and its figures; that of the runs if not given."""

    def __post_init__(self) -> None:
        check_options(self)
        check_names("game", self.games, GAMES)
        check_names("size", self.sizes, SIZES)
        check_names("loss", self.losses, LOSSES)

    def run(self) -> None:
        """Runs what has not been run yet, and writes the page."""
        folder = page_folder(self.results, self.out)
        found = run_trials(self.trials(), self.out, self.jobs)
        self._write(folder, found, compare(self.comparisons(), self.jobs))
        console().print(f"written: {folder / 'RESULTS.md'}", highlight=False)

    def trials(self) -> list[Trial]:
        """Returns every combination of seed, game, size and loss."""
        return [
            Trial(
                name=self._name(game, loss, size, seed),
                method=self._student(game, loss, size),
                suite=task_of(game),
                options={
                    "total_steps": self.steps,
                    "seed": seed,
                    "episodes": RUN_EPISODES,
                    "evaluate_episodes": 0,
                    "checkpoint_every": self.steps,
                },
            )
            for seed in range(self.seeds)
            for game in self.games
            for size in self.sizes
            for loss in self.losses
        ]

    def comparisons(self) -> dict[str, Comparison]:
        """Returns who plays each game with each seed: the teacher and all its students."""
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
                        for name in [self._name(game, loss, size, seed)]
                    },
                },
                episodes=self.episodes,
                seed=EVALUATION_SEED + seed,
            )
            for seed in range(self.seeds)
            for game in self.games
        }

    def _student(self, game: str, loss: str, size: str) -> Method:
        """Returns how a student learns."""
        recipe = minatar_student(game, SIZES[size], LOSSES[loss], self.precision)
        method: Method = trained_longer(recipe, self.epochs)
        return method

    def _name(self, game: str, loss: str, size: str, seed: int) -> str:
        return f"{game}-{loss}-{size.split()[0]}-{seed}"

    def _write(
        self,
        folder: Path,
        found: Mapping[str, dict[str, Any]],
        played: Mapping[str, dict[str, float]],
    ) -> None:
        """Writes the page, the picture and the figures.

        Args:
            folder: Where to.
            found: The runs' results, by name.
            played: For each game and seed everybody's mean return; see `comparisons`.
        """
        table = {
            loss: [
                geometric_mean_interval(
                    {game: self._shares(played, game, loss, size) for game in self.games}
                )
                for size in self.sizes
            ]
            for loss in self.losses
        }
        page, data = self._page(table, found, played), self._data(table, found, played)
        write_results(folder, page, data)
        bar_picture(folder / "picture.png", self.sizes, table, "share of teacher, %")

    def _shares(
        self, played: Mapping[str, dict[str, float]], game: str, loss: str, size: str
    ) -> list[float]:
        """Returns what the students of each seed keep."""
        seeds = range(self.seeds)
        each = [(self._name(game, loss, size, n), played[f"{game}-{n}"]) for n in seeds]
        return [returns[name] / returns[TEACHER] for name, returns in each]

    def _page(
        self,
        table: Mapping[str, list[Interval]],
        found: Mapping[str, dict[str, Any]],
        played: Mapping[str, dict[str, float]],
    ) -> str:
        """Returns the page.

        Args:
            table: For each loss the share that students of each size keep.
            found: See `_write`.
            played: See `_write`.
        """
        rows = [
            [loss, *(interval.percent() for interval in intervals)]
            for loss, intervals in table.items()
        ]
        games = [
            [
                game,
                loss,
                *(
                    f"{100 * sum(self._shares(played, game, loss, size)) / self.seeds:.0f}"
                    for size in self.sizes
                ),
            ]
            for game in self.games
            for loss in self.losses
        ]
        return f"""# Compression

Share of the teacher's return that a student keeps, in per cent: geometric mean over
{len(self.games)} MinAtar games, with its 95 % interval over {self.seeds} seeds.

{markdown_table(["loss", *self.sizes], rows)}

![shares by size and loss](picture.png)

Each game by itself (mean over seeds):

{markdown_table(["game", "loss", *self.sizes], games)}

Each student learned from {self.steps:,} environment steps, from each {self.epochs:g} times on
average. Teachers and students played {self.episodes} whole episodes of each game and seed, with the
same seeds of the environments.

{footer("compression", self, found.values())}

The paper (Rusu 2015, ten Atari games, KL): 108, 102 and 84. What differs stands in the module's
docstring.
"""

    def _data(
        self,
        table: Mapping[str, list[Interval]],
        found: Mapping[str, dict[str, Any]],
        played: Mapping[str, dict[str, float]],
    ) -> dict[str, Any]:
        """Returns everything that the page was made from; see `_page`."""
        return {
            "steps": self.steps,
            "epochs": self.epochs,
            "seeds": self.seeds,
            "episodes": self.episodes,
            "precision": self.precision,
            "hardware": format_hardware(found.values()),
            "table": {
                loss: {
                    size: interval_json(interval)
                    for size, interval in zip(self.sizes, intervals, strict=True)
                }
                for loss, intervals in table.items()
            },
            "returns": played,
            "trials": {
                name: {
                    "student_parameters": result["student_parameters"],
                    "teacher_parameters": result["teacher_parameters"],
                    "wall_seconds": result["wall_seconds"],
                }
                for name, result in found.items()
            },
        }
