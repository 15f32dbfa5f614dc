"""Compression: how much of its teacher a student keeps at 25, 7 and 4 % of the parameters.

    rltransfer experiment run compression

Policy distillation (Rusu 2015, section 5.1 and table 1) on MinAtar's five games: students of three
sizes, three losses, from the zoo's teachers, whose shares of the teachers' returns are averaged
geometrically over the games. The paper's figures on ten Atari games, with KL: 108 % at a quarter of
the size, 102 % at 7 %, 84 % at 4 %; KL ahead of NLL ahead of MSE at full size.

Differs from the paper: MinAtar for Atari; the teachers are policies (PPO), so that KL's temperature
is 1 and the squared error is that of logits, not of Q-values; the student acts while it learns, but
for a first fifth.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rltransfer.experiments.asked import check_names, check_options, page_folder
from rltransfer.experiments.minatar_student import EPOCHS, minatar_student
from rltransfer.experiments.summary import (
    Interval,
    bar_picture,
    footer,
    geometric_mean_interval,
    interval_json,
    kept_share,
    markdown_table,
    told_hardware,
    write_results,
)
from rltransfer.experiments.trials import Trial, run_trials
from rltransfer.experiments.zoo import GAMES, task_of
from rltransfer.learner import PrecisionName
from rltransfer.report import console

SIZES = {"25 %": 0.5, "7 %": 0.2625, "4 %": 0.1975}
"""Factor on the teacher's width that leaves this share of its parameters."""

LOSSES = {"KL": "KL(temperature=1.0)", "NLL": "NLL()", "MSE": "MSE()"}
"""The three losses, in the paper's order."""


@dataclass(frozen=True, kw_only=True)
class Compression:
    """Students of 25, 7 and 4 % of the size (Rusu 2015): 225 runs, three hours on two CPU cores.

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
    epochs: float = EPOCHS
    """How often each step is learned from, on average."""
    episodes: int = 200
    """Episodes of each evaluation."""
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
        table = {
            loss: [self._interval(found, loss, size) for size in self.sizes] for loss in self.losses
        }
        self._write(folder, table, found)
        console().print(f"written: {folder / 'RESULTS.md'}", highlight=False)

    def trials(self) -> list[Trial]:
        """Returns every combination of seed, game, size and loss."""
        return [
            Trial(
                name=self._name(game, loss, size, seed),
                method=minatar_student(
                    game, SIZES[size], LOSSES[loss], self.precision, self.epochs
                ),
                suite=task_of(game),
                options={
                    "steps": self.steps,
                    "seed": seed,
                    "episodes": self.episodes,
                    "evaluate_episodes": 0,
                    "checkpoint_every": self.steps,
                },
            )
            for seed in range(self.seeds)
            for game in self.games
            for size in self.sizes
            for loss in self.losses
        ]

    def _name(self, game: str, loss: str, size: str, seed: int) -> str:
        return f"{game}-{loss}-{size.split()[0]}-{seed}"

    def _shares(self, found: dict[str, Any], game: str, loss: str, size: str) -> list[float]:
        """Returns what the students of each seed keep."""
        names = [self._name(game, loss, size, seed) for seed in range(self.seeds)]
        return [kept_share(found[name]) for name in names]

    def _interval(self, found: dict[str, Any], loss: str, size: str) -> Interval:
        return geometric_mean_interval(
            {game: self._shares(found, game, loss, size) for game in self.games}
        )

    def _write(self, folder: Path, table: dict[str, list[Interval]], found: dict[str, Any]) -> None:
        """Writes the page, the picture and the figures."""
        rows = [
            [loss, *(interval.percent() for interval in intervals)]
            for loss, intervals in table.items()
        ]
        games = [
            [
                game,
                loss,
                *(
                    f"{100 * sum(shares) / len(shares):.0f}"
                    for size in self.sizes
                    if (shares := self._shares(found, game, loss, size))
                ),
            ]
            for game in self.games
            for loss in self.losses
        ]
        text = f"""# Compression

Share of the teacher's return that a student keeps, in per cent: geometric mean over
{len(self.games)} MinAtar games, with its 95 % interval over {self.seeds} seeds.

{markdown_table(["loss", *self.sizes], rows)}

![shares by size and loss](picture.png)

Each game by itself (mean over seeds):

{markdown_table(["game", "loss", *self.sizes], games)}

Each student learned from {self.steps:,} environment steps, from each {self.epochs:g} times on
average, and was evaluated, as was its teacher, over {self.episodes} whole episodes.

{footer("compression", self, found.values())}

The paper (Rusu 2015, ten Atari games, KL): 108, 102 and 84. What differs stands in the module's
docstring.
"""
        data = {
            "steps": self.steps,
            "epochs": self.epochs,
            "seeds": self.seeds,
            "episodes": self.episodes,
            "precision": self.precision,
            "hardware": told_hardware(found.values()),
            "table": {
                loss: {
                    size: interval_json(interval)
                    for size, interval in zip(self.sizes, intervals, strict=True)
                }
                for loss, intervals in table.items()
            },
            "trials": {
                name: {
                    "kept": kept_share(result),
                    "student_parameters": result["student_parameters"],
                    "teacher_parameters": result["teacher_parameters"],
                    "wall_seconds": result["wall_seconds"],
                }
                for name, result in found.items()
            },
        }
        write_results(folder, text, data)
        bar_picture(folder / "picture.png", self.sizes, table, "share of teacher, %")
