"""Born-again networks: five generations of students, each taught by the one before it.

    rltransfer experiment run born-again

Furlanello 2018 (arXiv 1805.04770), section 3, on MinAtar's five games: the zoo's teacher teaches a
student of its own width, which teaches the next, and so on; at the end all students together are an
ensemble, the mean of their probabilities. In the paper students come out ahead of their teachers;
here none did: the first generation is level with the zoo's teacher or just below it, the last is
behind it (see RESULTS.md).

Differs from the paper: there networks classify images and model language, all are trained on the
same labelled data, the first teacher by the labels alone. Here the first teacher was trained by
reinforcement, and students learn by KL to their teacher alone, without rewards, on what they see in
games that they play themselves, but for a first fifth that the teacher plays. The networks of the
students have a LayerNorm that the zoo's teacher has not; from the first student on all are alike.
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
from rltransfer.experiments.zoo.minatar_student import minatar_student
from rltransfer.files.checkpoint import generation_folder
from rltransfer.learning.learner import PrecisionName
from rltransfer.machine.terminal import console
from rltransfer.runs.generations import generation_results
from rltransfer.teachers.zoo import ZOO

OBJECTIVE = "KL(temperature=1.0)"
"""What every generation learns."""

ENSEMBLE = "ensemble"
"""What figures call all students together."""


@dataclass(frozen=True, kw_only=True)
class BornAgain:
    """Students that teach the next (Furlanello 2018): 125 runs, over an hour on two CPU cores.

    Five generations, of five games, with five seeds.
    """

    games: tuple[str, ...] = GAMES
    """The games."""
    generations: int = 5
    """Students in a chain, each the next one's teacher."""
    seeds: int = 5
    """Seeds of each game, counted from 0."""
    steps: int = 500_000
    """Environment steps of each generation."""
    episodes: int = 200
    """Episodes that teacher, students and ensemble play, with the same seeds."""
    precision: PrecisionName = "float32"
    """Arithmetic of the learners; bfloat16 is faster on processors that have it."""
    jobs: int = 0
    """Chains at once; 0 means one for each core."""
    out: Path = Path("runs/born-again")
    """Folder of the runs."""
    results: Path | None = None
    """Folder for the page, its picture and its figures; that of the runs if not given."""

    def __post_init__(self) -> None:
        check_options(self)
        check_names("game", self.games, GAMES)

    def run(self) -> None:
        """Runs what has not been run yet, and writes the page."""
        folder = page_folder(self.results, self.out)
        run_trials(self.trials(), self.out, self.jobs)
        self._write(folder, compare(self.comparisons(), self.jobs))
        console().print(f"written: {folder / 'RESULTS.md'}", highlight=False)

    def trials(self) -> list[Trial]:
        """Returns the chain of every seed and game."""
        return [
            Trial(
                name=self._name(game, seed),
                method=minatar_student(game, 1.0, OBJECTIVE, self.precision),
                suite=task_of(game),
                options={
                    "generations": self.generations,
                    "total_steps": self.steps,
                    "seed": seed,
                    "episodes": RUN_EPISODES,
                    "evaluate_episodes": 0,
                    "checkpoint_every": self.steps,
                },
            )
            for seed in range(self.seeds)
            for game in self.games
        ]

    def comparisons(self) -> dict[str, Comparison]:
        """Returns who plays for each chain: the zoo's teacher, its generations, all of them."""
        return {
            self._name(game, seed): self._comparison(game, seed)
            for seed in range(self.seeds)
            for game in self.games
        }

    def _comparison(self, game: str, seed: int) -> Comparison:
        chain = self.out / self._name(game, seed)
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

    def _name(self, game: str, seed: int) -> str:
        return f"{game}-{seed}"

    @property
    def _students(self) -> list[str]:
        """Who is compared with the zoo's teacher."""
        return [*(str(number) for number in range(1, self.generations + 1)), ENSEMBLE]

    def _shares(self, found: Mapping[str, dict[str, float]], game: str, who: str) -> list[float]:
        """Returns the shares of the zoo's teacher's return, of each seed."""
        each = [found[self._name(game, seed)] for seed in range(self.seeds)]
        return [returns[who] / returns[TEACHER] for returns in each]

    def _write(self, folder: Path, found: Mapping[str, dict[str, float]]) -> None:
        """Writes the page, the picture and the figures.

        Args:
            folder: Where to.
            found: For each chain the return of everybody.
        """
        shares = {
            who: {game: self._shares(found, game, who) for game in self.games}
            for who in self._students
        }
        table = {who: geometric_mean_interval(by_game) for who, by_game in shares.items()}
        runs = {name: generation_results(self.out / name)[: self.generations] for name in found}
        write_results(folder, self._page(table, shares, runs), self._data(table, found, runs))
        bar_picture(
            folder / "picture.png", self._students,
            {"geometric mean over games": list(table.values())}, "share of the zoo's teacher, %",
        )  # fmt: skip

    def _page(
        self,
        table: Mapping[str, Interval],
        shares: Mapping[str, Mapping[str, list[float]]],
        runs: Mapping[str, list[dict[str, Any]]],
    ) -> str:
        """Returns the page.

        Args:
            table: For each student the share of the zoo's teacher's return.
            shares: The same for each game, by seed.
            runs: For each chain the results of its runs.
        """
        games = [
            [game, *(f"{100 * sum(one[game]) / self.seeds:.0f}" for one in shares.values())]
            for game in self.games
        ]
        results = [result for chain in runs.values() for result in chain]
        return f"""# Born-again networks

Share of the zoo's teacher's return, in per cent, of {self.generations} generations of students, of
which each taught the next, and of the ensemble of all of them: geometric mean over
{len(self.games)} MinAtar games, with its 95 % interval over {self.seeds} seeds.

{markdown_table(["generation", "share"], [[who, one.percent()] for who, one in table.items()])}

![share by generation](picture.png)

Each game by itself (mean over seeds):

{markdown_table(["game", *self._students], games)}

Each generation learned from {self.steps:,} environment steps. The zoo's teacher, every generation
and the ensemble played {self.episodes} whole episodes of each game and seed, with the same seeds of
the environments.

{footer("born-again", self, results)}

The paper (Furlanello 2018) is about supervised learning, of labelled images and of text; these
students learn by KL to their teacher alone, without rewards. What else differs stands in the
module's docstring.
"""

    def _data(
        self,
        table: Mapping[str, Interval],
        found: Mapping[str, dict[str, float]],
        runs: Mapping[str, list[dict[str, Any]]],
    ) -> dict[str, Any]:
        """Returns everything that the page was made from; see `_page`."""
        return {
            "steps": self.steps,
            "seeds": self.seeds,
            "generations": self.generations,
            "episodes": self.episodes,
            "precision": self.precision,
            "hardware": format_hardware([one for chain in runs.values() for one in chain]),
            "table": {who: interval_json(interval) for who, interval in table.items()},
            "chains": {
                name: {
                    "returns": returns,
                    "student_parameters": runs[name][0]["student_parameters"],
                    "teacher_parameters": runs[name][0]["teacher_parameters"],
                    "wall_seconds": [result["wall_seconds"] for result in runs[name]],
                }
                for name, returns in found.items()
            },
        }
