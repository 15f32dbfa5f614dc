"""Kickstarting: how much sooner PPO gets there when a teacher advises it.

    rltransfer experiment run kickstarting

On each of MinAtar's games PPO learns from scratch, and once more with the zoo's teacher: the same
network, seed and settings, and KL to the teacher on what the student itself sees, with a weight
that fades to nothing in the first half (Schmitt 2018, arXiv 1803.03835). What counts is the number
of steps after which the training return is, for the first time, what learning from scratch ends
with, as a share of that run's steps. The paper, with 30 tasks of DMLab: about a tenth, and 42 %
more at the end.

Training returns are means of the episodes that ended in a rollout, smoothed over a twentieth of the
run: shorter times cannot be told apart. Runs that do not get there count with all of their steps,
and the page says how many they are. The teacher's own steps are not counted.

Differs from the paper: PPO for IMPALA; MinAtar for DMLab, each game by itself with its own teacher;
the advice's weight is a schedule, where the paper tunes it while learning, by population-based
training; KL for the cross-entropy, which has the same gradient. Adam's epsilon is 1e-8 where the
teacher advises, and 1e-5 where PPO is alone, as each has it here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rltransfer.agents import PPO, PolicyDistillation
from rltransfer.errors import InputError
from rltransfer.experiments.common.checks import check_names, check_options, page_folder
from rltransfer.experiments.common.intervals import (
    Interval,
    geometric_mean_interval,
    interval_json,
    kept_share,
)
from rltransfer.experiments.common.page import (
    footer,
    format_hardware,
    markdown_table,
    write_results,
)
from rltransfer.experiments.common.training_curve import Curve, training_curve
from rltransfer.experiments.common.trials import Trial, run_trials
from rltransfer.experiments.zoo.experiment import GAMES, task_of
from rltransfer.learning.agent import Method
from rltransfer.machine.terminal import console
from rltransfer.policies.network import Network

LearnerName = Literal["scratch", "kickstarted"]

LEARNERS: tuple[LearnerName, ...] = ("kickstarted", "scratch")
"""The slower one first, so that none runs alone at the end."""

SETTINGS: dict[str, Any] = {
    "num_envs": 16,
    "rollout_length": 128,
    "batch_size": 256,
    "epochs": 3,
    "learning_rate": 2e-3,
    "max_grad_norm": 0.5,
}
"""What both share. With few environments a rollout is short, and returns are known early."""

Shares = Mapping[LearnerName, Mapping[str, Sequence[float]]]
"""For each learner the shares of each game, by seed."""

WINDOW = 0.05
"""Share of a run's steps that training returns are smoothed over."""


@dataclass(frozen=True)
class Race:
    """A run from scratch and a kickstarted one, of the same game and seed."""

    scratch: Curve
    """Smoothed training returns."""
    kickstarted: Curve
    """Smoothed training returns."""

    @property
    def goal(self) -> float:
        """The return that learning from scratch ends with."""
        return float(self.scratch.returns[-1])

    @property
    def censored(self) -> bool:
        """Whether the kickstarted run never gets there."""
        return self.kickstarted.first_at_least(self.goal) is None

    def share(self, learner: LearnerName) -> float:
        """Returns the steps until the goal is reached, of the steps of learning from scratch."""
        curve: Curve = getattr(self, learner)
        reached = curve.first_at_least(self.goal)
        return 1.0 if reached is None else reached / float(self.scratch.steps[-1])


@dataclass(frozen=True, kw_only=True)
class Kickstarting:
    """PPO with a teacher's advice (Schmitt 2018): 50 runs, 50 minutes on two CPU cores.

    Steps until it is as good as PPO from scratch is at its end; five games, five seeds.
    """

    games: tuple[str, ...] = GAMES
    """The games."""
    distillation_weight: str = "2->0@0.5"
    """Weight of the teacher's advice over the run, or "lag"."""
    seeds: int = 5
    """Seeds of each, counted from 0."""
    steps: int = 1_000_000
    """Environment steps of each run."""
    episodes: int = 200
    """Episodes of each evaluation at the end."""
    jobs: int = 0
    """Trials at once; 0 means one for each core."""
    out: Path = Path("runs/kickstarting")
    """Folder of the runs."""
    results: Path | None = None
    """Folder for the page, its picture and its figures; that of the runs if not given."""

    def __post_init__(self) -> None:
        check_options(self)
        check_names("game", self.games, GAMES)

    def run(self) -> None:
        """Runs what has not been run yet, and writes the page."""
        folder = page_folder(self.results, self.out)
        found = run_trials(self.trials(), self.out, self.jobs)
        races = {
            game: [self._race(game, seed) for seed in range(self.seeds)] for game in self.games
        }
        self._write(folder, races, found)
        console().print(f"written: {folder / 'RESULTS.md'}", highlight=False)

    def trials(self) -> list[Trial]:
        """Returns every combination of seed, learner and game."""
        return [
            Trial(
                name=_name(game, learner, seed),
                method=self.method(learner),
                suite=task_of(game),
                options={
                    "total_steps": self.steps,
                    "seed": seed,
                    "episodes": self.episodes,
                    "evaluate_episodes": 0,
                    "checkpoint_every": self.steps,
                },
            )
            for seed in range(self.seeds)
            for learner in LEARNERS
            for game in self.games
        ]

    def method(self, learner: LearnerName) -> Method:
        """Returns how a learner learns."""
        network = Network(encoder="grid")
        if learner == "scratch":
            scratch: Method = PPO(network=network, **SETTINGS)
            return scratch
        kickstarted: Method = PolicyDistillation(
            teacher="zoo",
            student=network,
            objective="KL(temperature=1.0)",
            teacher_acts=0.0,
            distillation_weight=self.distillation_weight,
            reinforcement_weight=1.0,
            **SETTINGS,
        )
        return kickstarted

    def _race(self, game: str, seed: int) -> Race:
        """Returns the smoothed training returns of a game and seed.

        Raises:
            InputError: A run was too short for an episode to end.
        """
        curves = []
        for learner in ("scratch", "kickstarted"):
            run_dir = self.out / _name(game, learner, seed)
            curves.append(training_curve(run_dir, task_of(game)).smoothed(WINDOW * self.steps))
        if not all(len(curve.steps) for curve in curves):
            raise InputError(
                f"No episode of {game} ended within {self.steps} steps of {SETTINGS['num_envs']} "
                "environments: the runs must be longer."
            )
        return Race(*curves)

    def _write(self, folder: Path, races: dict[str, list[Race]], found: dict[str, Any]) -> None:
        """Writes the page, the picture and the figures.

        Args:
            folder: Where to.
            races: Those of each game, by seed.
            found: The runs' results, by name.
        """
        shares = {
            learner: {game: [race.share(learner) for race in races[game]] for game in self.games}
            for learner in LEARNERS
        }
        kept = {
            learner: {
                game: [self._kept(found, game, learner, seed) for seed in range(self.seeds)]
                for game in self.games
            }
            for learner in LEARNERS
        }
        table = {learner: geometric_mean_interval(by_game) for learner, by_game in shares.items()}
        text = self._page(table, shares, kept, races, found)
        write_results(folder, text, self._data(table, shares, kept, races, found))
        curve_picture(folder / "picture.png", races)

    def _kept(self, found: dict[str, Any], game: str, learner: LearnerName, seed: int) -> float:
        """Returns which share of the teacher's return a learner's policy has at the end."""
        taught = found[_name(game, "kickstarted", seed)]
        share: float = kept_share(found[_name(game, learner, seed)], taught=taught)
        return share

    def _page(
        self,
        table: Mapping[LearnerName, Interval],
        shares: Shares,
        kept: Shares,
        races: Mapping[str, list[Race]],
        found: Mapping[str, Any],
    ) -> str:
        """Returns the page."""
        rows = [
            [
                game,
                _percent(shares["kickstarted"][game]),
                _percent(shares["scratch"][game]),
                f"{sum(race.censored for race in raced)} of {len(raced)}",
                f"{np.mean([race.goal for race in raced]):.1f}",
                f"{np.mean([race.kickstarted.returns[-1] for race in raced]):.1f}",
                _percent(kept["scratch"][game]),
                _percent(kept["kickstarted"][game]),
            ]
            for game, raced in races.items()
        ]
        head = [
            "game", "kickstarted gets there after, %", "scratch itself after, %", "never got there",
            "scratch ends with", "kickstarted ends with", "scratch of teacher, %",
            "kickstarted of teacher, %",
        ]  # fmt: skip
        lost = sum(race.censored for raced in races.values() for race in raced)
        return f"""# Kickstarting

Kickstarted PPO has the training return that PPO from scratch ends with after
**{table["kickstarted"].percent()} %** of the steps: geometric mean over {len(self.games)} MinAtar
games, with its 95 % interval over {self.seeds} seeds. {_told_censored(lost, len(found) // 2)}

![training returns](picture.png)

{markdown_table(head, rows)}

Means over seeds. "Gets there": to the training return that learning from scratch ends with, for the
first time, in per cent of its {self.steps:,} steps; "scratch itself": when that run first had it.
Training returns are means over {100 * WINDOW:.0f} % of the run, so that no share is below that.
"Of teacher": the policy at the end, greedy, over {self.episodes} whole episodes.

{footer("kickstarting", self, found.values())}

The paper (Schmitt 2018, 30 tasks of DMLab): about a tenth of the steps. What differs stands in the
module's docstring.
"""

    def _data(
        self,
        table: Mapping[LearnerName, Interval],
        shares: Shares,
        kept: Shares,
        races: Mapping[str, list[Race]],
        found: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Returns everything that the page was made from."""
        return {
            "steps": self.steps,
            "seeds": self.seeds,
            "episodes": self.episodes,
            "distillation_weight": self.distillation_weight,
            "hardware": format_hardware(found.values()),
            "table": {learner: interval_json(interval) for learner, interval in table.items()},
            "races": {
                f"{game}-{seed}": {
                    "goal": race.goal,
                    "share": shares["kickstarted"][game][seed],
                    "censored": race.censored,
                    "scratch_share": shares["scratch"][game][seed],
                    "kickstarted_ends_with": float(race.kickstarted.returns[-1]),
                    "kept": {learner: kept[learner][game][seed] for learner in LEARNERS},
                }
                for game, raced in races.items()
                for seed, race in enumerate(raced)
            },
            "wall_seconds": {name: result["wall_seconds"] for name, result in found.items()},
        }


def _name(game: str, learner: str, seed: int) -> str:
    return f"{game}-{learner}-{seed}"


def _percent(shares: Sequence[float]) -> str:
    return f"{100 * np.mean(shares):.0f}"


def _told_censored(lost: int, races: int) -> str:
    """Returns what is to be said of runs that never got there."""
    if not lost:
        return f"All {races} kickstarted runs got there."
    return (
        f"{lost} of {races} kickstarted runs never got there and count as 100 %: the true figure "
        "is higher."
    )


def curve_picture(path: Path, races: Mapping[str, Sequence[Race]]) -> None:
    """Draws the training returns of each game: the mean over seeds, and their range.

    Args:
        path: The PNG file.
        races: Those of each game, by seed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    columns = min(len(races), 3)
    rows = math.ceil(len(races) / columns)
    figure, grid = plt.subplots(rows, columns, figsize=(3 * columns, 2.4 * rows), squeeze=False)
    for axes in grid.flat[len(races) :]:
        axes.set_axis_off()
    for axes, (game, raced) in zip(grid.flat, races.items(), strict=False):
        for learner, color in zip(("scratch", "kickstarted"), ("C1", "C0"), strict=True):
            steps, returns = _together([getattr(race, learner) for race in raced])
            axes.plot(steps / 1e6, returns.mean(0), color, label=learner)
            axes.fill_between(
                steps / 1e6, returns.min(0), returns.max(0), color=color, alpha=0.2, linewidth=0
            )
        goal = float(np.mean([race.goal for race in raced]))
        axes.axhline(goal, color="gray", linewidth=0.8, linestyle="--")
        axes.set_title(game)
    # In the place that no game fills, if there is one.
    grid.flat[-1].legend(*grid[0, 0].get_legend_handles_labels(), frameon=False, loc="center")
    figure.supxlabel("million environment steps")
    figure.supylabel("training return")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _together(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Returns curves at the same steps, where all of them are known.

    Returns:
        Steps (points,) and returns (curves, points).
    """
    first = max(curve.steps[0] for curve in curves)
    last = min(curve.steps[-1] for curve in curves)
    steps = np.linspace(first, last, 200)
    return steps, np.stack([np.interp(steps, curve.steps, curve.returns) for curve in curves])
