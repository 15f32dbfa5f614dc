"""Multi-task: one student of one teacher's size for all of MinAtar's games at once.

    rltransfer experiment run multitask

Policy distillation from several teachers (Rusu 2015, section 3.3): the zoo's five teachers label
what one student sees of their games, and it learns from all labels together, with a head for each
game. Beside it a network of the same shape learns the five games by reinforcement, with PPO, from
as many environment steps and with the same seeds. Shares of the teachers' returns are averaged
geometrically over the games. The paper's figures: on three Atari games 117 % with KL, 105 % with
NLL, 84 % for one DQN that learned all three; on ten games, with KL, 89 %.

Differs from the paper: MinAtar for Atari; the teachers are policies (PPO), so that KL's temperature
is 1; the student acts while it learns, but for a first fifth; minibatches are mixed of all games,
more of those in which the student lags; heads are one layer on the trunk's features, without the
hidden layer of 128 units that each game has there; reinforcement is PPO, not DQN, and has as many
steps as the student: far fewer than the teachers were trained with.

Students' minibatches, step size and epochs are those of the experiment on compression. They were
taken over after fewer epochs had left KL+MSE at 95 % of the teachers, on the same seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rltransfer.agents import PPO
from rltransfer.errors import InputError
from rltransfer.experiments.common.checks import check_names, check_options, page_folder
from rltransfer.experiments.common.intervals import Interval, interval_json, kept_share, share_row
from rltransfer.experiments.common.page import (
    footer,
    format_hardware,
    format_parameters,
    markdown_table,
    write_results,
)
from rltransfer.experiments.common.pictures import bar_picture
from rltransfer.experiments.common.trials import Trial, run_trials
from rltransfer.experiments.zoo.experiment import GAMES, task_of
from rltransfer.experiments.zoo.minatar_student import distilled_into, trained_longer
from rltransfer.learning.agent import Method
from rltransfer.learning.learner import PrecisionName
from rltransfer.machine.terminal import console
from rltransfer.policies.network import Network
from rltransfer.tasks.task import Suite
from rltransfer.teachers.loading import load_teacher

LearnerName = Literal["KL+MSE", "KL", "NLL", "KL-one-head", "PPO"]

LEARNERS: tuple[LearnerName, ...] = ("KL+MSE", "KL", "NLL", "PPO")
"""The sum of two losses, and the paper's: distilled by two losses, and reinforced."""

OBJECTIVES = {
    "KL+MSE": "KL(temperature=1.0) + 0.1 * MSE()",
    "KL": "KL(temperature=1.0)",
    "NLL": "NLL()",
    "KL-one-head": "KL(temperature=1.0)",
}
"""What those learn that are distilled; of rare actions logits say more than probabilities."""


@dataclass(frozen=True, kw_only=True)
class Multitask:
    """One student for five games, beside PPO (Rusu 2015): 20 runs, two hours on two CPU cores.

    The student has the size of one teacher; four learners, five seeds.
    """

    games: tuple[str, ...] = GAMES
    """The games."""
    learners: tuple[LearnerName, ...] = LEARNERS
    """Who learns: a student by a loss, with a head for each game or with one that all share, or a
    network of the same shape by reinforcement."""
    width: float = 1.5
    """Width of the network; that of the zoo's teachers is 1 or 1.5."""
    seeds: int = 5
    """Seeds of each, counted from 0."""
    steps: int = 2_000_000
    """Environment steps of each, over all games."""
    epochs: float = 15.0
    """How often a student learns from each step, on average."""
    episodes: int = 200
    """Episodes of each evaluation, in each game."""
    precision: PrecisionName = "float32"
    """Arithmetic of the learners; bfloat16 is faster on processors that have it."""
    jobs: int = 0
    """Trials at once; 0 means one for each core."""
    out: Path = Path("runs/multitask")
    """Folder of the runs."""
    results: Path | None = None
    """Folder for the page, its picture and its figures; that of the runs if not given."""

    def __post_init__(self) -> None:
        check_options(self)
        check_names("game", self.games, GAMES)
        check_names("learner", self.learners, get_args(LearnerName))
        if not set(self.learners) & set(OBJECTIVES):
            raise InputError(
                f"learners are {', '.join(self.learners)}: at least one of "
                f"{', '.join(OBJECTIVES)} must be there, as its runs measure the teachers."
            )

    def run(self) -> None:
        """Runs what has not been run yet, and writes the page."""
        folder = page_folder(self.results, self.out)
        found = run_trials(self.trials(), self.out, self.jobs)
        shares = {learner: self._shares(found, learner) for learner in self.learners}
        self._write(folder, shares, found)
        console().print(f"written: {folder / 'RESULTS.md'}", highlight=False)

    def trials(self) -> list[Trial]:
        """Returns every combination of learner and seed."""
        return [
            Trial(
                name=self._name(learner, seed),
                method=self.method(learner),
                suite=Suite.of(*map(task_of, self.games)),
                options={
                    "total_steps": self.steps,
                    "seed": seed,
                    "episodes": self.episodes,
                    "evaluate_episodes": 0,
                    "checkpoint_every": self.steps,
                },
            )
            for learner in self.learners
            for seed in range(self.seeds)
        ]

    def method(self, learner: LearnerName) -> Method:
        """Returns how a learner learns."""
        heads: Literal["shared", "per-task"] = "shared" if learner == "KL-one-head" else "per-task"
        network = Network(encoder="grid", width=self.width, layer_norm=True, heads=heads)
        if learner == "PPO":
            baseline: Method = PPO(
                network=network, num_envs=16, rollout_length=128, batch_size=512,
                learning_rate=2e-3, precision=self.precision,
            )  # fmt: skip
            return baseline
        student = distilled_into(network, OBJECTIVES[learner], self.precision)
        several: Method = replace(
            trained_longer(student, self.epochs), num_envs=64, task_sampling="lag"
        )
        return several

    def _name(self, learner: str, seed: int) -> str:
        return f"{learner}-{seed}"

    def _shares(self, found: dict[str, Any], learner: str) -> dict[str, list[float]]:
        """Returns for each game which shares of the teacher's return the seeds' networks reach."""
        taught = next(name for name in self.learners if name in OBJECTIVES)
        return {
            game: [
                kept_share(
                    found[self._name(learner, seed)],
                    task_of(game),
                    found[self._name(taught, seed)],
                )
                for seed in range(self.seeds)
            ]
            for game in self.games
        }

    def _write(
        self,
        folder: Path,
        shares: Mapping[LearnerName, dict[str, list[float]]],
        found: dict[str, Any],
    ) -> None:
        """Writes the page, the picture and the figures.

        Args:
            folder: Where to.
            shares: For each learner those of each game, by seed.
            found: The runs' results, by name.
        """
        table = {learner: share_row(by_game) for learner, by_game in shares.items()}
        write_results(folder, self._page(table, found), self._data(table, shares, found))
        bar_picture(
            folder / "picture.png",
            ["all games", *self.games],
            {learner: list(row.values()) for learner, row in table.items()},
            "share of teacher, %",
        )

    def _page(self, table: Mapping[LearnerName, dict[str, Interval]], found: dict[str, Any]) -> str:
        """Returns the page."""
        rows = [[name, *(one.percent() for one in row.values())] for name, row in table.items()]
        sizes = ", ".join(f"{game} {count:,}" for game, count in self._teacher_sizes().items())
        return f"""# Multi-task

Share of its teacher's return that one network reaches in each of {len(self.games)} MinAtar games,
in per cent, and as a geometric mean over all games, each with its 95 % interval over {self.seeds}
seeds. A loss: a student of all teachers, distilled by it (KL+MSE: KL + 0.1 MSE of the logits).
PPO: a network of the same shape that learned the games by reinforcement, from as many steps.

{markdown_table(["learner", "all games", *self.games], rows)}

![shares by game and learner](picture.png)

Parameters that acting needs: {format_parameters(found.values())}; of the teachers: {sizes}.

Each network learned from {self.steps:,} environment steps, of all games together, the students from
each {self.epochs:g} times on average. Networks and teachers were evaluated over {self.episodes}
whole episodes of each game.

{footer("multitask", self, found.values())}

The paper (Rusu 2015): on three Atari games 117 with KL, 105 with NLL, 84 for a multi-task DQN; on
ten games 89 with KL. What differs stands in the module's docstring.
"""

    def _data(
        self,
        table: Mapping[LearnerName, dict[str, Interval]],
        shares: Mapping[LearnerName, dict[str, list[float]]],
        found: dict[str, Any],
    ) -> dict[str, Any]:
        """Returns everything that the page was made from."""
        return {
            "steps": self.steps,
            "epochs": self.epochs,
            "seeds": self.seeds,
            "episodes": self.episodes,
            "width": self.width,
            "precision": self.precision,
            "hardware": format_hardware(found.values()),
            "teacher_parameters": self._teacher_sizes(),
            "table": {
                learner: {name: interval_json(interval) for name, interval in row.items()}
                for learner, row in table.items()
            },
            "trials": {
                self._name(learner, seed): {
                    "shares": {game: by_seed[seed] for game, by_seed in by_game.items()},
                    "parameters": found[self._name(learner, seed)]["student_parameters"],
                    "wall_seconds": found[self._name(learner, seed)]["wall_seconds"],
                }
                for learner, by_game in shares.items()
                for seed in range(self.seeds)
            },
        }

    def _teacher_sizes(self) -> dict[str, int]:
        """Returns the number of parameters of each game's teacher."""
        return {game: load_teacher(f"zoo:{task_of(game)}").num_parameters for game in self.games}
