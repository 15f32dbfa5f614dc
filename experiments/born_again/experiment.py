"""Born-again networks: five generations of students, each taught by the one before it.

    rltransfer experiment run born-again

Furlanello 2018 (arXiv 1805.04770), section 3, on MinAtar's five games. The zoo's teacher teaches a
student of the same width, which teaches the next one, and so on. At the end all students form an
ensemble that averages their probabilities. In the paper students surpass their teachers. Here none
did: the first generation is level with the zoo's teacher or slightly below it, the last one is
below it (see RESULTS.md).

Differs from the paper:

- The paper classifies images and models language. All its networks are trained on the same labelled
  data, the first teacher with the labels alone.
- Here the first teacher was trained with RL. Students minimise the KL to their teacher alone, on
  games that they play themselves, except for a first fifth that the teacher plays. They get no
  rewards.
- The students' networks have a LayerNorm that the zoo's teacher does not have. From the first
  student on all networks are alike.
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
from rltransfer.experiments.common.intervals import interval_json, mean_percent
from rltransfer.experiments.common.page import Page, format_hardware, markdown_table
from rltransfer.experiments.common.pictures import bar_picture
from rltransfer.experiments.common.trials import Trial, run_options
from rltransfer.experiments.zoo.experiment import EVALUATION_SEED, GAMES, task_of
from rltransfer.experiments.zoo.minatar_student import minatar_student
from rltransfer.files.checkpoint import generation_folder
from rltransfer.learning.learner import PrecisionName
from rltransfer.metrics.intervals import Interval, geometric_mean_interval
from rltransfer.runs.generations import generation_results
from rltransfer.teachers.zoo import ZOO

OBJECTIVE = "KL(temperature=1.0)"
"""The loss of every generation."""

ENSEMBLE = "ensemble"
"""Name of the ensemble of all students."""


@dataclass(frozen=True, kw_only=True)
class BornAgain(PaperExperiment):
    """Students that teach the next one (Furlanello 2018): 125 runs, over an hour on two CPU cores.

    Five generations, five games, five seeds.
    """

    games: tuple[str, ...] = choice("game", GAMES)
    """Games to play."""
    generations: int = 5
    """Number of students in a chain, each the teacher of the next."""
    steps: int = 500_000
    """Environment steps of each generation."""
    episodes: int = 200
    """Evaluation episodes of teacher, students and ensemble, with the same seeds."""
    precision: PrecisionName = "float32"
    """Arithmetic of the learner; bfloat16 is faster on processors that support it."""
    jobs: int = 0
    """Number of chains to train at once; 0 means one per core."""
    out: Path = Path("runs/born-again")

    def make_page(self) -> Page:
        """Trains the chains, compares all generations with the zoo's teacher, builds the page."""
        self.run_trials(self.trials())
        returns = compare(self.comparisons(), self.jobs)
        ratios = {
            student: {game: self._ratios(returns, game, student) for game in self.games}
            for student in self._students
        }
        table = {student: geometric_mean_interval(by_game) for student, by_game in ratios.items()}
        chains = {name: generation_results(self.out / name)[: self.generations] for name in returns}
        found = [result for chain in chains.values() for result in chain]
        bars = {"geometric mean over games": list(table.values())}
        return Page(
            text=self._text(table, ratios, found),
            data={
                **self.option_values("steps", "seeds", "generations", "episodes", "precision"),
                "hardware": format_hardware(found),
                "table": {student: interval_json(ratio) for student, ratio in table.items()},
                "chains": {
                    name: {
                        "returns": returns[name],
                        "student_parameters": chain[0]["student_parameters"],
                        "teacher_parameters": chain[0]["teacher_parameters"],
                        "wall_seconds": [result["wall_seconds"] for result in chain],
                    }
                    for name, chain in chains.items()
                },
            },
            pictures={"picture.png": bar_picture(self._students, bars)},
        )

    def trials(self) -> list[Trial]:
        """One chain per seed and game."""
        return [
            Trial(
                name=_name(game, seed),
                method=minatar_student(game, 1.0, OBJECTIVE, self.precision),
                suite=task_of(game),
                options={
                    "generations": self.generations,
                    **run_options(self.steps, seed, RUN_EPISODES),
                },
            )
            for seed in range(self.seeds)
            for game in self.games
        ]

    def comparisons(self) -> dict[str, Comparison]:
        """For each chain the zoo's teacher, every generation and their ensemble."""
        return {
            _name(game, seed): self._comparison(game, seed)
            for seed in range(self.seeds)
            for game in self.games
        }

    def _comparison(self, game: str, seed: int) -> Comparison:
        chain = self.out / _name(game, seed)
        students = {
            str(number): str(generation_folder(chain, number))
            for number in range(1, self.generations + 1)
        }
        return Comparison(
            path=chain / "comparison.json",
            task=task_of(game),
            players={
                TEACHER: f"{ZOO}:{task_of(game)}",
                **students,
                ENSEMBLE: f"Ensemble({', '.join(map(repr, students.values()))})",
            },
            episodes=self.episodes,
            seed=EVALUATION_SEED + seed,
        )

    @property
    def _students(self) -> list[str]:
        return [*(str(number) for number in range(1, self.generations + 1)), ENSEMBLE]

    def _ratios(self, returns: Returns, game: str, student: str) -> list[float]:
        each = [returns[_name(game, seed)] for seed in range(self.seeds)]
        return [one[student] / one[TEACHER] for one in each]

    def _text(
        self,
        table: Mapping[str, Interval],
        ratios: Mapping[str, Mapping[str, list[float]]],
        found: list[dict[str, Any]],
    ) -> str:
        rows = [[student, one.format_percent()] for student, one in table.items()]
        games = [
            [game, *(mean_percent(by_game[game]) for by_game in ratios.values())]
            for game in self.games
        ]
        return f"""# Born-again networks

Return in per cent of the zoo's teacher, for {self.generations} generations of students and for the
ensemble of all of them. Each student taught the next one. Geometric mean over {len(self.games)}
MinAtar games, with its 95 % interval over {self.seed_count}.

{markdown_table(["generation", "return ratio, %"], rows)}

![return ratio by generation](picture.png)

Each game (mean over seeds):

{markdown_table(["game", *self._students], games)}

Each generation learned from {self.steps:,} environment steps. The zoo's teacher, every generation
and the ensemble were evaluated over {self.episodes} whole episodes per game and seed, with the same
environment seeds.

{self.footer(found)}

The paper (Furlanello 2018) is about supervised learning on labelled images and text. These students
minimise the KL to their teacher alone, without rewards. The docstring of `experiment.py` lists all
differences.
"""


def _name(game: str, seed: int) -> str:
    return f"{game}-{seed}"
