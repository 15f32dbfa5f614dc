"""Atari: teachers of three games, students of 25 and 7 % of their size, and one for all three.

    rltransfer experiment run atari
    rltransfer experiment run atari --part teachers

Policy distillation (Rusu 2015, sections 3.2 and 3.3) on the emulator itself, with the paper's
networks and sizes. PPO trains the teachers that the zoo has not. The games are Pong, as everywhere,
and Boxing and Q*bert, in which PPO learns from the start: their returns have doubled after 100,000
steps, when a policy for Freeway has not met a reward yet. None of them waits for FIRE after a lost
life, as Breakout does, in which a greedy policy may stand still for half an hour.

Parts: `teachers` trains all three teachers and writes them to `--out`, as the zoo keeps them;
`students` and `multitask` learn from the zoo's teacher where there is one, or else from that run.
Each part goes on where it was stopped, and the page tells of all students that are done. With
`--precision bfloat16` on two cores that have it, two runs at once, the teachers take two hours, a
student of one game six to seven minutes and one of all three 16 to 25. What everybody plays for the
figures takes 40 minutes with five seeds, if each evaluation has 50 episodes: there the emulator is
the limit.

Differs from the paper: sticky actions (Machado 2018); the teachers are policies (PPO) that were
trained with far fewer steps than its DQNs, so that KL's temperature is 1; the student acts while it
learns, but for a first fifth; evaluation is greedy and starts with random no-ops, not with those of
people; the network for all games has a head of one layer for each. How often students learn from a
step was chosen by looking at Pong with seed 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rltransfer.agents import PolicyDistillation
from rltransfer.experiments.common.checks import check_names, check_options, page_folder
from rltransfer.experiments.common.comparison import (
    RANDOM,
    RUN_EPISODES,
    TEACHER,
    Comparison,
    compare,
)
from rltransfer.experiments.common.intervals import Interval, interval_json, share_row
from rltransfer.experiments.common.page import (
    footer,
    format_hardware,
    format_parameters,
    markdown_table,
    write_results,
)
from rltransfer.experiments.common.pictures import bar_picture
from rltransfer.experiments.common.trials import Trial, check_settings, results_so_far, run_trials
from rltransfer.experiments.zoo.experiment import EVALUATION_SEED
from rltransfer.learning.agent import Method
from rltransfer.learning.learner import PrecisionName
from rltransfer.machine.terminal import console
from rltransfer.policies.network import Network
from rltransfer.runs.report import kept
from rltransfer.tasks.task import Suite
from rltransfer.teachers.loading import load_teacher

from .teachers import Teachers, in_zoo, task_of

PartName = Literal["teachers", "students", "multitask", "all"]

GAMES = ("Pong", "Boxing", "Qbert")

SIZES = {"25 %": 0.5, "7 %": 0.26}
"""Factor on the teacher's width that leaves this share of its parameters, as in the paper."""

TOGETHER = "one for all"
"""What the page calls the student of all games."""


@dataclass(frozen=True, kw_only=True)
class AtariDistillation:
    """Students of Pong, Boxing and Q*bert (Rusu 2015): 35 runs, hours on two CPU cores.

    Students of the zoo's teachers, of two sizes, and one of all three; five seeds.
    """

    part: PartName = "all"
    """What is run: the training of all teachers, the students of one game each, those of all games,
    or all of it, but for teachers that the zoo has."""
    games: tuple[str, ...] = GAMES
    """The games."""
    sizes: tuple[str, ...] = tuple(SIZES)
    """Shares of the teacher's parameters, of those in `SIZES`."""
    seeds: int = 5
    """Seeds of each student, counted from 0."""
    steps: int = 150_000
    """Environment steps of each student, in each of its games; a step is four frames."""
    teacher_steps: int = 0
    """Environment steps of each teacher; 0 means those of `teachers.STEPS`."""
    episodes: int = 200
    """Episodes of each evaluation, in each game."""
    precision: PrecisionName = "float32"
    """Arithmetic of the learners; bfloat16 is faster on processors that have it."""
    jobs: int = 0
    """Teachers or students at once; 0 means one for each core."""
    out: Path = Path("runs/atari")
    """Folder of the runs, and of the teachers in its folder `teachers`."""
    results: Path | None = None
    """Folder for the page, its picture and its figures; that of the runs if not given."""

    def __post_init__(self) -> None:
        check_options(self)
        check_names("game", self.games, GAMES)
        check_names("size", self.sizes, SIZES)

    def run(self) -> None:
        """Runs what the part has not run yet, and writes the page of the students that are done."""
        folder = page_folder(self.results, self.out)
        if self.part in ("teachers", "all"):
            # Asked for by itself, the part repeats the training of those in the zoo too.
            left = [game for game in self.games if self.part == "teachers" or not in_zoo(game)]
            self._teachers.train_all(left, self.jobs)
        if self.part == "teachers":
            return
        trials = {
            **{size: self._students(size) for size in self.sizes},
            TOGETHER: self._multitask(),
        }
        check_settings([trial for those in trials.values() for trial in those], self.out)
        # The longest first, so that none runs alone at the end.
        asked = [trial for name in reversed(trials) for trial in trials[name] if self._asks(name)]
        run_trials(asked, self.out, self.jobs)
        found = {name: results_so_far(those, self.out) for name, those in trials.items()}
        done = {name: found[name] for name in trials if len(found[name]) == len(trials[name])}
        if done:
            self._write(folder, done, compare(self._comparisons(done), self.jobs))
            console().print(f"written: {folder / 'RESULTS.md'}", highlight=False)

    def _asks(self, student: str) -> bool:
        """Tells whether a kind of student belongs to the part."""
        return self.part in ("all", "multitask" if student == TOGETHER else "students")

    @property
    def _teachers(self) -> Teachers:
        return Teachers(out=self.out, steps=self.teacher_steps, precision=self.precision)

    def _students(self, size: str) -> list[Trial]:
        """Returns the runs of students of one game each."""
        return [
            Trial(
                name=self._name(size, game, seed),
                method=self._distilled(
                    self._teachers.source(game), Network(encoder="nature", width=SIZES[size]), 32
                ),
                suite=task_of(game),
                options=self._options(self.steps, seed),
            )
            for seed in range(self.seeds)
            for game in self.games
        ]

    def _multitask(self) -> list[Trial]:
        """Returns the runs of students of all games."""
        teachers = {task_of(game): self._teachers.source(game) for game in self.games}
        network = Network(encoder="nature", heads="per-task")
        return [
            Trial(
                name=self._name(TOGETHER, "", seed),
                method=self._distilled(f"PerTask({teachers})", network, 16, len(self.games)),
                suite=Suite.of(*map(task_of, self.games)),
                options=self._options(self.steps * len(self.games), seed),
            )
            for seed in range(self.seeds)
        ]

    def _distilled(
        self, teacher: str, network: Network, num_envs: int, num_games: int = 1
    ) -> Method:
        """Returns how a student learns; see `distilled`."""
        recipe = distilled(teacher, network, num_envs, num_games)
        method: Method = replace(recipe, precision=self.precision)
        return method

    def _options(self, steps: int, seed: int) -> dict[str, Any]:
        return {
            "total_steps": steps,
            "seed": seed,
            "episodes": RUN_EPISODES,
            "evaluate_episodes": 0,
            "checkpoint_every": steps,
        }

    def _comparisons(self, students: Iterable[str]) -> dict[str, Comparison]:
        """Returns who plays each game with each seed: random actions, the teacher, its students.

        Args:
            students: The kinds of students that are done.
        """
        return {
            f"{game}-{seed}": Comparison(
                path=self.out / f"{game}-{seed}.comparison.json",
                task=task_of(game),
                players={
                    RANDOM: RANDOM,
                    TEACHER: self._teachers.source(game),
                    **{who: str(self.out / self._name(who, game, seed)) for who in students},
                },
                episodes=self.episodes,
                seed=EVALUATION_SEED + seed,
            )
            for seed in range(self.seeds)
            for game in self.games
        }

    def _name(self, student: str, game: str, seed: int) -> str:
        """Returns the name of the run in which a kind of student learns a game."""
        if student == TOGETHER:
            # Students of other games are others.
            return f"together-{'-'.join(self.games)}-{seed}"
        return f"{game}-{student.split()[0]}-{seed}"

    def _write(
        self,
        folder: Path,
        done: Mapping[str, dict[str, Any]],
        played: Mapping[str, dict[str, float]],
    ) -> None:
        """Writes the page, the picture and the figures.

        Args:
            folder: Where to.
            done: For each kind of student the runs' results, by name.
            played: For each game and seed everybody's mean return; see `_comparisons`.
        """
        shares = {
            who: {
                game: [_share(played[f"{game}-{seed}"], who) for seed in range(self.seeds)]
                for game in self.games
            }
            for who in done
        }
        table = {who: share_row(by_game) for who, by_game in shares.items()}
        page = self._page(table, done, self._teacher_rows(played))
        write_results(folder, page, self._data(table, shares, done, played))
        bar_picture(
            folder / "picture.png",
            ["all games", *self.games],
            {who: list(row.values()) for who, row in table.items()},
            "share of teacher, %",
        )

    def _page(
        self,
        table: Mapping[str, dict[str, Interval]],
        done: Mapping[str, dict[str, Any]],
        teachers: list[list[str]],
    ) -> str:
        """Returns the page.

        Args:
            table: For each kind of student the shares of the teachers' returns.
            done: For each kind of student the runs' results, by name.
            teachers: A row for each teacher.
        """
        rows = [
            [name, format_parameters(done[name].values()), *(one.percent() for one in row.values())]
            for name, row in table.items()
        ]
        head = ["student", "parameters", "all games", *self.games]
        runs = [result for found in done.values() for result in found.values()]
        return f"""# Atari

Share of their teachers' returns that students keep, in per cent, and its geometric mean over
{len(self.games)} games, each with its 95 % interval over {self.seeds} seeds. Where a return is
negative, returns are counted from that of random actions.

{markdown_table(head, rows)}

![shares by game and student](picture.png)

The teachers, PPO trained by this experiment:

{markdown_table(["game", "random actions", "teacher", "parameters", "steps"], teachers)}

Each student learned from {self.steps:,} environment steps of four frames in each of its games.
Students, teachers and random actions played {self.episodes} whole episodes of each game and seed,
with the same seeds of the environments.

{footer("atari", self, runs)}

The paper (Rusu 2015), with KL: 108 at a quarter of the size and 102 at 7 %, on ten games; one
network for three games, 117. What differs stands in the module's docstring.
"""

    def _teacher_rows(self, played: Mapping[str, dict[str, float]]) -> list[list[str]]:
        """Returns a row for each teacher: returns are means over the seeds."""
        rows = []
        for game in self.games:
            each = [played[f"{game}-{seed}"] for seed in range(self.seeds)]
            means = [sum(one[who] for one in each) / self.seeds for who in (RANDOM, TEACHER)]
            teacher = load_teacher(self._teachers.source(game))
            rows.append(
                [
                    game,
                    *(f"{mean:.1f}" for mean in means),
                    f"{teacher.num_parameters:,}",
                    f"{self._teachers.trained_for(game):,}",
                ]
            )
        return rows

    def _data(
        self,
        table: Mapping[str, dict[str, Interval]],
        shares: Mapping[str, dict[str, list[float]]],
        done: Mapping[str, dict[str, Any]],
        played: Mapping[str, dict[str, float]],
    ) -> dict[str, Any]:
        """Returns everything that the page was made from."""
        return {
            "steps": self.steps,
            "seeds": self.seeds,
            "episodes": self.episodes,
            "precision": self.precision,
            "hardware": format_hardware([one for found in done.values() for one in found.values()]),
            "table": {
                who: {game: interval_json(interval) for game, interval in row.items()}
                for who, row in table.items()
            },
            "shares": shares,
            "returns": played,
            "trials": {
                name: {
                    key: result[key]
                    for key in ("student_parameters", "teacher_parameters", "wall_seconds")
                }
                for found in done.values()
                for name, result in found.items()
            },
        }


def _share(returns: Mapping[str, float], who: str) -> float:
    """Returns which share of the teacher's return a student keeps; see `report.kept`."""
    share: float = kept(
        {
            "return_mean": returns[who],
            "teacher_return_mean": returns[TEACHER],
            "random_return_mean": returns[RANDOM],
        }
    )
    return share


def distilled(
    teacher: str, network: Network, num_envs: int, num_games: int = 1
) -> PolicyDistillation:
    """Returns the method that distils teachers into a network.

    Args:
        teacher: The teacher, or those of all games.
        network: The student's.
        num_envs: Environments of each game.
        num_games: How many games there are; however many, a student takes as many optimizer steps.
    """
    return PolicyDistillation(
        teacher=teacher,
        student=network,
        objective="KL(temperature=1.0)",
        num_envs=num_envs,
        rollout_length=32,
        teacher_acts="1->0@0.2",
        exploration=0.01,
        memory_steps=100_000,
        # The emulator is dear, and learning cheap; the paper learns more often still. With a third
        # of it a student of a quarter of the size kept two thirds of Pong's points, in one run.
        epochs=12 / num_games,
        batch_size=256,
        learning_rate=1e-3,
    )
