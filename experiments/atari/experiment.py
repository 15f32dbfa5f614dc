"""Atari: teachers of three games, students of 25 and 7 % of their size, and one for all three.

    rltransfer experiment run atari
    rltransfer experiment run atari --part teachers

Policy distillation (Rusu 2015, sections 3.2 and 3.3) on the Atari emulator, with the paper's
networks and sizes. PPO trains the teachers that the zoo lacks. The games are Pong, the usual one,
and Boxing and Q*bert, in which PPO learns from the start: their returns have doubled after 100,000
steps, when a policy for Freeway has not seen a reward yet. None of these games waits for FIRE after
a lost life, as Breakout does, where a greedy policy may stand still for half an hour.

Parts:

- `teachers` trains all three teachers and writes them to `--out`, in the zoo's format.
- `students` and `multitask` learn from the zoo's teacher if there is one, else from that run.

Each part resumes where it was stopped, and the page covers all finished students. With
`--precision bfloat16` on two cores that support it, with two runs at once, the teachers take two
hours, a student of one game six to seven minutes, and a student of all three 16 to 25. With five
seeds, the evaluations for the page take 40 minutes at 50 episodes each: the emulator is the
bottleneck.

Differs from the paper:

- Actions are sticky (Machado 2018).
- The teachers are policies (PPO), trained with far fewer steps than the paper's DQNs, so the
  temperature of KL is 1.
- The student acts during training, except in the first fifth.
- Evaluation is greedy and starts with random no-ops, not with human starts.
- The network for all games has single-layer heads, one per game.

How often students learn from a step was chosen on seed 0 of Pong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rltransfer.agents import PolicyDistillation
from rltransfer.experiments.common.checks import choice
from rltransfer.experiments.common.comparison import (
    RANDOM,
    RUN_EPISODES,
    TEACHER,
    Comparison,
    Returns,
    compare,
)
from rltransfer.experiments.common.experiment import PaperExperiment
from rltransfer.experiments.common.intervals import percent_rows, ratio_row, table_json
from rltransfer.experiments.common.page import (
    Page,
    format_hardware,
    format_parameters,
    markdown_table,
    sizes_and_times,
)
from rltransfer.experiments.common.pictures import bar_picture
from rltransfer.experiments.common.trials import (
    Trial,
    check_settings,
    finished_results,
    run_options,
)
from rltransfer.experiments.zoo.experiment import EVALUATION_SEED
from rltransfer.learning.learner import PrecisionName
from rltransfer.metrics.intervals import Interval
from rltransfer.policies.network import Network
from rltransfer.runs.report import return_ratio
from rltransfer.tasks.task import Suite
from rltransfer.teachers.loading import load_teacher

from .teachers import Teachers, in_zoo, task_of

PartName = Literal["teachers", "students", "multitask", "all"]

GAMES = ("Pong", "Boxing", "Qbert")

SIZES = {"25 %": 0.5, "7 %": 0.26}
"""Factor on the teacher's width that results in this percentage of its parameters."""

MULTITASK = "one for all"
"""Name of the student of all games."""


@dataclass(frozen=True, kw_only=True)
class AtariDistillation(PaperExperiment):
    """Students of Pong, Boxing and Q*bert (Rusu 2015): 35 runs, hours on two CPU cores.

    Students of the zoo's teachers in two sizes, and one student of all three; five seeds.
    """

    part: PartName = "all"
    """Part to run: training of all teachers, students of one game, students of all games, or all of
    these except teachers that the zoo contains."""
    games: tuple[str, ...] = choice("game", GAMES)
    """Games to play."""
    sizes: tuple[str, ...] = choice("size", SIZES)
    """Student sizes, in per cent of the teacher's parameters."""
    steps: int = 150_000
    """Environment steps of each student per game; a step is four frames."""
    teacher_steps: int = 0
    """Environment steps of each teacher; 0 means 2.5 million for Pong and 1.5 million for the other
    games."""
    episodes: int = 200
    """Episodes of each evaluation, per game."""
    precision: PrecisionName = "float32"
    """Arithmetic of the learner; bfloat16 is faster on processors that support it."""
    jobs: int = 0
    """Number of teachers or students to train at once; 0 means one per core."""
    out: Path = Path("runs/atari")
    """Folder for the runs; the teachers are in its folder `teachers`."""

    def make_page(self) -> Page | None:
        """Runs what is left of the part, and builds the page of all finished students."""
        if self.part in ("teachers", "all"):
            # On its own the part also repeats the training of teachers in the zoo.
            left = [game for game in self.games if self.part == "teachers" or not in_zoo(game)]
            self._teachers.train_all(left, self.jobs)
        if self.part == "teachers":
            return None
        trials = {**{size: self.students(size) for size in self.sizes}, MULTITASK: self.multitask()}
        check_settings([trial for group in trials.values() for trial in group], self.out)
        # The longest first, so that none runs alone at the end.
        kinds = [kind for kind in reversed(trials) if self._includes(kind)]
        self.run_trials([trial for kind in kinds for trial in trials[kind]])
        found = {kind: finished_results(group, self.out) for kind, group in trials.items()}
        done = {kind: found[kind] for kind in trials if len(found[kind]) == len(trials[kind])}
        return self._page(done, compare(self.comparisons(done), self.jobs)) if done else None

    def _includes(self, kind: str) -> bool:
        return self.part in ("all", "multitask" if kind == MULTITASK else "students")

    @property
    def _teachers(self) -> Teachers:
        return Teachers(out=self.out, steps=self.teacher_steps, precision=self.precision)

    def students(self, size: str) -> list[Trial]:
        """The runs of students of one game."""
        network = Network(encoder="nature", width=SIZES[size])
        return [
            Trial(
                name=self._name(size, game, seed),
                method=distilled(self._teachers.source(game), network, self.precision, 32),
                suite=task_of(game),
                options=run_options(self.steps, seed, RUN_EPISODES),
            )
            for seed in range(self.seeds)
            for game in self.games
        ]

    def multitask(self) -> list[Trial]:
        """The runs of students of all games."""
        teachers = {task_of(game): self._teachers.source(game) for game in self.games}
        teacher, network = f"PerTask({teachers})", Network(encoder="nature", heads="per-task")
        return [
            Trial(
                name=self._name(MULTITASK, "", seed),
                method=distilled(teacher, network, self.precision, 16, len(self.games)),
                suite=Suite.of(*map(task_of, self.games)),
                options=run_options(self.steps * len(self.games), seed, RUN_EPISODES),
            )
            for seed in range(self.seeds)
        ]

    def comparisons(self, kinds: Iterable[str]) -> dict[str, Comparison]:
        """For each game and seed a random policy, the teacher and its students.

        Args:
            kinds: The finished kinds of students.
        """
        return {
            f"{game}-{seed}": Comparison(
                path=self.out / f"{game}-{seed}.comparison.json",
                task=task_of(game),
                players={
                    RANDOM: RANDOM,
                    TEACHER: self._teachers.source(game),
                    **{kind: str(self.out / self._name(kind, game, seed)) for kind in kinds},
                },
                episodes=self.episodes,
                seed=EVALUATION_SEED + seed,
            )
            for seed in range(self.seeds)
            for game in self.games
        }

    def _name(self, kind: str, game: str, seed: int) -> str:
        if kind == MULTITASK:
            # With other games it is another student.
            return f"together-{'-'.join(self.games)}-{seed}"
        return f"{game}-{kind.split()[0]}-{seed}"

    def _page(self, done: Mapping[str, dict[str, Any]], returns: Returns) -> Page:
        """The page of the finished kinds of students, each with its runs' results by name."""
        ratios = {
            kind: {
                game: [_return_ratio(returns[f"{game}-{seed}"], kind) for seed in range(self.seeds)]
                for game in self.games
            }
            for kind in done
        }
        table = {kind: ratio_row(by_game) for kind, by_game in ratios.items()}
        runs = {name: result for found in done.values() for name, result in found.items()}
        bars = {kind: list(row.values()) for kind, row in table.items()}
        return Page(
            text=self._text(table, done, self._teacher_rows(returns)),
            data={
                **self.option_values("steps", "seeds", "episodes", "precision"),
                "hardware": format_hardware(runs.values()),
                "table": table_json(table),
                "shares": ratios,
                "returns": returns,
                "trials": sizes_and_times(runs),
            },
            pictures={"picture.png": bar_picture(["all games", *self.games], bars)},
        )

    def _text(
        self,
        table: Mapping[str, Mapping[str, Interval]],
        done: Mapping[str, dict[str, Any]],
        teachers: list[list[str]],
    ) -> str:
        rows = [
            [kind, format_parameters(done[kind].values()), *cells]
            for kind, *cells in percent_rows(table)
        ]
        head = ["student", "parameters", "all games", *self.games]
        runs = [result for found in done.values() for result in found.values()]
        return f"""# Atari

Student return in per cent of the teacher's return, and the geometric mean over {len(self.games)}
games, with 95 % intervals over {self.seed_count}. Where a return is negative, both are counted
from the return of a random policy.

{markdown_table(head, rows)}

![return ratios by game and student](picture.png)

The teachers, trained by this experiment with PPO:

{markdown_table(["game", "random policy", "teacher", "parameters", "steps"], teachers)}

Each student learned from {self.steps:,} environment steps of four frames in each of its games.
Students, teachers and the random policy were evaluated over {self.episodes} whole episodes per game
and seed, with the same environment seeds.

{self.footer(runs)}

The paper (Rusu 2015), with KL: 108 at a quarter of the size and 102 at 7 %, on ten games; one
network for three games, 117. The docstring of `experiment.py` lists the differences from the paper.
"""

    def _teacher_rows(self, returns: Returns) -> list[list[str]]:
        rows = []
        for game in self.games:
            each = [returns[f"{game}-{seed}"] for seed in range(self.seeds)]
            means = [sum(one[name] for one in each) / self.seeds for name in (RANDOM, TEACHER)]
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


def _return_ratio(returns: Mapping[str, float], student: str) -> float:
    return return_ratio(
        {
            "return_mean": returns[student],
            "teacher_return_mean": returns[TEACHER],
            "random_return_mean": returns[RANDOM],
        }
    )


def distilled(
    teacher: str, network: Network, precision: PrecisionName, num_envs: int, num_games: int = 1
) -> PolicyDistillation:
    """The method that distils teachers into a network.

    Args:
        teacher: The teacher, or the teachers of all games.
        network: The student's.
        precision: Arithmetic of the learner.
        num_envs: Environments per game.
        num_games: Number of games; the number of optimizer steps does not depend on it.
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
        # The emulator is expensive and learning is cheap; the paper learns from a step even more
        # often. With a third of the epochs, a student of a quarter of the size kept two thirds of
        # Pong's points, in a single run.
        epochs=12 / num_games,
        batch_size=256,
        learning_rate=1e-3,
        precision=precision,
    )
