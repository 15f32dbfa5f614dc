"""Teachers of Atari games, trained with PPO and written in the zoo's format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rltransfer.agents import PPO
from rltransfer.agents.ppo import Surrogate
from rltransfer.errors import InputError
from rltransfer.experiments.common.trials import Trial, check_settings, run_parallel, train_trial
from rltransfer.experiments.zoo.experiment import write_teacher
from rltransfer.learning.learner import PrecisionName
from rltransfer.machine.terminal import console
from rltransfer.policies.network import Network
from rltransfer.teachers.zoo import zoo_cards

STEPS = {"Pong": 2_500_000, "Boxing": 1_500_000, "Qbert": 1_500_000}
"""Environment steps of each teacher; a step is four frames."""

LEARNING_RATES = {"Pong": 1e-3}
"""Step sizes that differ from the recipe's, with which Pong's policy changes little."""

TEACHER_EPISODES = 10
"""Episodes of the evaluation at the end of training; the card reports 200 other episodes."""


@dataclass(frozen=True, kw_only=True)
class Teachers:
    """Teachers of games, trained in a folder."""

    out: Path
    """Folder for the runs; the teachers are in its folder `teachers`."""
    steps: int
    """Environment steps of each teacher; 0 means those of `STEPS`."""
    precision: PrecisionName
    """Arithmetic of the learner."""

    def train_all(self, games: Sequence[str], jobs: int) -> None:
        """Trains the teachers that are not finished in the folder, in parallel.

        Args:
            games: The games.
            jobs: Number of teachers at once; see `run_parallel`.

        Raises:
            InputError: A folder contains a run with other settings.
        """
        check_settings([self.trial(game) for game in games], self.out)
        left = {game: (self, game) for game in games if not self._is_trained(game)}
        for game, card in run_parallel(Teachers.train, left, jobs):
            console().print(f"{game}: {card['return_mean']:.1f} ± {card['return_ci95']:.1f}")

    def train(self, game: str) -> dict[str, Any]:
        """Trains or resumes a game's teacher, writes it in the zoo's format, returns its card."""
        return write_teacher(train_trial(self.trial(game), self.out), self._stem(game))

    def trial(self, game: str) -> Trial:
        """The training run of a game's teacher."""
        return Trial(
            name=self._run_dir(game).name,
            method=replace(teacher_recipe(game), precision=self.precision),
            suite=task_of(game),
            options={
                "total_steps": self.steps or STEPS[game],
                "seed": 0,
                "episodes": TEACHER_EPISODES,
                "evaluate_episodes": 0,
            },
        )

    def source(self, game: str) -> str:
        """The source of a game's teacher: in the zoo, or the run that trained it.

        Raises:
            InputError: There is no teacher yet.
        """
        if in_zoo(game):
            return f"zoo:{task_of(game)}"
        if not self._is_trained(game):
            raise InputError(
                f"Neither the zoo nor {self.out} contains a teacher of {game}: run "
                "`rltransfer experiment run atari --part teachers` first."
            )
        return str(self._run_dir(game))

    def trained_for(self, game: str) -> int:
        """The environment steps of the teacher that `source` names."""
        of_zoo = (card.data["env_steps"] for card in zoo_cards() if card.task.id == task_of(game))
        return int(next(of_zoo, self.steps or STEPS[game]))

    def _run_dir(self, game: str) -> Path:
        return self.out / f"{game}-teacher"

    def _stem(self, game: str) -> Path:
        return self.out / "teachers" / f"ALE-{game}-v5"

    def _is_trained(self, game: str) -> bool:
        stem = self._stem(game)
        return stem.with_name(stem.name + ".card.json").exists()


def task_of(game: str) -> str:
    """The id of a game's task."""
    return f"ALE/{game}-v5"


def in_zoo(game: str) -> bool:
    """Whether an installed zoo contains a teacher of a game."""
    return any(card.task.id == task_of(game) for card in zoo_cards())


def teacher_recipe(game: str) -> PPO:
    """The method that trains a game's teacher."""
    return PPO(
        network=Network(encoder="nature"),
        num_envs=16,
        rollout_length=128,
        batch_size=256,
        epochs=3,
        learning_rate=LEARNING_RATES.get(game, 5e-4),
        surrogate=Surrogate(clip_range=0.1, entropy_coefficient=0.01),
    )
