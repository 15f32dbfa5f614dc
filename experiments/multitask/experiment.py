"""Multi-task: one student for all of MinAtar's games, as large as a single teacher.

    rltransfer experiment run multitask

Policy distillation from several teachers (Rusu 2015, section 3.3). The zoo's five teachers label
the observations of a single student, which learns from all labels together, with one head per game.
As a baseline, a network of the same shape learns the five games with PPO, from as many environment
steps and with the same seeds. The ratio to the teacher's return is averaged geometrically over the
games. The paper's figures: on three Atari games 117 % with KL, 105 % with NLL, 84 % for one DQN
that learned all three; on ten games, with KL, 89 %.

Differs from the paper:

- MinAtar instead of Atari.
- The teachers are policies (PPO), so the temperature of KL is 1.
- The student acts during training, except in the first fifth.
- Minibatches mix all games, with more samples of games in which the student lags.
- Heads are a single layer on the trunk's features. The paper's heads have a hidden layer of 128
  units per game.
- The RL baseline is PPO, not DQN. It has as many steps as the student, far fewer than the teachers.

Minibatch size, step size and epochs of the students are those of the compression experiment. They
were adopted after fewer epochs had left KL+MSE at 95 % of the teachers, on the same seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rltransfer.agents import PPO
from rltransfer.errors import InputError
from rltransfer.experiments.common.checks import choice
from rltransfer.experiments.common.experiment import PaperExperiment
from rltransfer.experiments.common.intervals import (
    percent_rows,
    ratio_row,
    run_return_ratio,
    table_json,
)
from rltransfer.experiments.common.page import (
    Page,
    format_hardware,
    format_parameters,
    markdown_table,
)
from rltransfer.experiments.common.pictures import bar_picture
from rltransfer.experiments.common.trials import Trial, run_options
from rltransfer.experiments.zoo.experiment import GAMES, task_of
from rltransfer.experiments.zoo.minatar_student import distilled_into, trained_longer
from rltransfer.learning.agent import Method
from rltransfer.learning.learner import PrecisionName
from rltransfer.metrics.intervals import Interval
from rltransfer.policies.network import Network
from rltransfer.tasks.task import Suite
from rltransfer.teachers.loading import load_teacher

LearnerName = Literal["KL+MSE", "KL", "NLL", "KL-one-head", "PPO"]

LEARNERS: tuple[LearnerName, ...] = ("KL+MSE", "KL", "NLL", "PPO")
"""A sum of two losses, then the paper's: two losses, and the RL baseline."""

OBJECTIVES = {
    "KL+MSE": "KL(temperature=1.0) + 0.1 * MSE()",
    "KL": "KL(temperature=1.0)",
    "NLL": "NLL()",
    "KL-one-head": "KL(temperature=1.0)",
}
"""Losses of the students; logits carry more information on rare actions than probabilities."""


@dataclass(frozen=True, kw_only=True)
class Multitask(PaperExperiment):
    """One student for five games, compared with PPO (Rusu 2015): 20 runs, 2 hours on 2 CPU cores.

    The student has the size of one teacher; four learners, five seeds.
    """

    games: tuple[str, ...] = choice("game", GAMES)
    """Games to play."""
    learners: tuple[LearnerName, ...] = choice("learner", get_args(LearnerName), LEARNERS)
    """Training methods to compare: distillation with one of these losses, or PPO. KL-one-head uses
    one head for all games, the others one head per game."""
    width: float = 1.5
    """Width of the network; the zoo's teachers have a width of 1 or 1.5."""
    steps: int = 2_000_000
    """Environment steps of each learner, over all games."""
    epochs: float = 15.0
    """How often a student learns from each environment step, on average."""
    episodes: int = 200
    """Episodes of each evaluation, per game."""
    precision: PrecisionName = "float32"
    """Arithmetic of the learner; bfloat16 is faster on processors that support it."""
    out: Path = Path("runs/multitask")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not set(self.learners) & set(OBJECTIVES):
            raise InputError(
                f"learners are {', '.join(self.learners)}: add at least one of "
                f"{', '.join(OBJECTIVES)}, as its runs evaluate the teachers."
            )

    def make_page(self) -> Page:
        """Trains all learners and builds the page."""
        found = self.run_trials(self.trials())
        ratios: dict[str, dict[str, list[float]]]
        ratios = {learner: self._ratios(found, learner) for learner in self.learners}
        table = {learner: ratio_row(by_game) for learner, by_game in ratios.items()}
        bars = {learner: list(row.values()) for learner, row in table.items()}
        return Page(
            text=self._text(table, found),
            data={
                **self.option_values("steps", "epochs", "seeds", "episodes", "width", "precision"),
                "hardware": format_hardware(found.values()),
                "teacher_parameters": self._teacher_sizes(),
                "table": table_json(table),
                "trials": {
                    name: {
                        "shares": {game: by_seed[seed] for game, by_seed in by_game.items()},
                        "parameters": found[name]["student_parameters"],
                        "wall_seconds": found[name]["wall_seconds"],
                    }
                    for learner, by_game in ratios.items()
                    for seed in range(self.seeds)
                    for name in [_name(learner, seed)]
                },
            },
            pictures={"picture.png": bar_picture(["all games", *self.games], bars)},
        )

    def trials(self) -> list[Trial]:
        """One run per learner and seed."""
        return [
            Trial(
                name=_name(learner, seed),
                method=self.method(learner),
                suite=Suite.of(*map(task_of, self.games)),
                options=run_options(self.steps, seed, self.episodes),
            )
            for learner in self.learners
            for seed in range(self.seeds)
        ]

    def method(self, learner: LearnerName) -> Method:
        """The training method of a learner."""
        heads: Literal["shared", "per-task"] = "shared" if learner == "KL-one-head" else "per-task"
        network = Network(encoder="grid", width=self.width, layer_norm=True, heads=heads)
        if learner == "PPO":
            return PPO(
                network=network, num_envs=16, rollout_length=128, batch_size=512, epochs=3,
                learning_rate=2e-3, precision=self.precision,
            )  # fmt: skip
        student = distilled_into(network, OBJECTIVES[learner], self.precision)
        return replace(trained_longer(student, self.epochs), num_envs=64, task_sampling="lag")

    def _ratios(self, found: Mapping[str, Any], learner: str) -> dict[str, list[float]]:
        student = next(name for name in self.learners if name in OBJECTIVES)
        return {
            game: [
                run_return_ratio(
                    found[_name(learner, seed)], task_of(game), found[_name(student, seed)]
                )
                for seed in range(self.seeds)
            ]
            for game in self.games
        }

    def _text(self, table: Mapping[str, Mapping[str, Interval]], found: Mapping[str, Any]) -> str:
        sizes = ", ".join(f"{game} {count:,}" for game, count in self._teacher_sizes().items())
        return f"""# Multi-task

Return of one network in per cent of each teacher's return, in {len(self.games)} MinAtar games, and
the geometric mean over all games, with 95 % intervals over {self.seed_count}. Learners:

- a loss: one student of all teachers, distilled with this loss (KL+MSE: KL + 0.1 MSE of the logits)
- PPO: a network of the same shape that learned the games with RL, from as many steps

{markdown_table(["learner", "all games", *self.games], percent_rows(table))}

![return ratios by game and learner](picture.png)

Parameters that acting needs: {format_parameters(found.values())}; of the teachers: {sizes}.

Each network learned from {self.steps:,} environment steps, of all games together. The students
learned {self.epochs:g} times from each step on average. Networks and teachers were evaluated over
{self.episodes} whole episodes per game.

{self.footer(found.values())}

The paper (Rusu 2015): on three Atari games 117 with KL, 105 with NLL, 84 for a multi-task DQN; on
ten games 89 with KL. The docstring of `experiment.py` lists the differences from the paper.
"""

    def _teacher_sizes(self) -> dict[str, int]:
        return {game: load_teacher(f"zoo:{task_of(game)}").num_parameters for game in self.games}


def _name(learner: str, seed: int) -> str:
    return f"{learner}-{seed}"
