"""Kickstarting: how much sooner PPO reaches a return when a teacher advises it.

    rltransfer experiment run kickstarting

On each of MinAtar's games PPO learns twice with the same network, seed and settings: once from
scratch, and once with the zoo's teacher. The teacher adds a loss, the KL to the teacher on what the
student observes; its weight decays to zero in the first half of the run (Schmitt 2018,
arXiv 1803.03835). The goal is the training return at the end of the run from scratch. The measure
is the number of steps until the goal is first reached, as a fraction of all steps. The paper, with
30 tasks of DMLab: about a tenth, and 42 % more at the end.

Training returns are means over the episodes that ended in a rollout, smoothed over a twentieth of
the run; shorter times cannot be distinguished. Runs that do not reach the goal count with all of
their steps, and the page reports their number. The teacher's own training steps are not counted.

Differs from the paper:

- PPO instead of IMPALA.
- MinAtar instead of DMLab; each game is learned separately, with its own teacher.
- The weight of the advice follows a schedule. The paper tunes it during training, with
  population-based training.
- KL instead of the cross-entropy, which has the same gradient.
- Adam's epsilon is 1e-8 with a teacher and 1e-5 without, as in the two methods' defaults here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rltransfer.agents import PPO, PolicyDistillation
from rltransfer.errors import InputError
from rltransfer.experiments.common.checks import choice
from rltransfer.experiments.common.experiment import PaperExperiment
from rltransfer.experiments.common.intervals import interval_json, mean_percent, run_return_ratio
from rltransfer.experiments.common.page import Page, format_hardware, markdown_table
from rltransfer.experiments.common.pictures import panel_figure
from rltransfer.experiments.common.training_curve import training_curve
from rltransfer.experiments.common.trials import Trial, run_options
from rltransfer.experiments.zoo.experiment import GAMES, task_of
from rltransfer.learning.agent import Method
from rltransfer.metrics.curves import Curve
from rltransfer.metrics.intervals import geometric_mean_interval
from rltransfer.policies.network import Network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LearnerName = Literal["scratch", "kickstarted"]

LEARNERS: tuple[LearnerName, ...] = ("kickstarted", "scratch")
"""The slower one first, so that no long run is alone at the end."""

SETTINGS: dict[str, Any] = {
    "num_envs": 16,
    "rollout_length": 128,
    "batch_size": 256,
    "epochs": 3,
    "learning_rate": 2e-3,
    "max_grad_norm": 0.5,
}
"""Shared by both. With few environments rollouts are short, and returns are known early."""

WINDOW = 0.05
"""Training returns are smoothed over this fraction of a run's steps."""


@dataclass(frozen=True)
class Race:
    """A run from scratch and a kickstarted run of the same game and seed."""

    scratch: Curve
    """Smoothed training returns."""
    kickstarted: Curve
    """Smoothed training returns."""

    @property
    def goal(self) -> float:
        """The return at the end of the run from scratch."""
        return float(self.scratch.returns[-1])

    @property
    def censored(self) -> bool:
        """Whether the kickstarted run never reaches the goal."""
        return self.kickstarted.first_at_least(self.goal) is None

    def step_fraction(self, learner: LearnerName) -> float:
        """The steps until the goal, relative to all steps of the run from scratch."""
        curve: Curve = getattr(self, learner)
        reached = curve.first_at_least(self.goal)
        return 1.0 if reached is None else reached / float(self.scratch.steps[-1])


@dataclass(frozen=True, kw_only=True)
class Kickstarting(PaperExperiment):
    """PPO with a teacher's advice (Schmitt 2018): 50 runs, 50 minutes on two CPU cores.

    Steps until it is as good as PPO from scratch at its end; five games, five seeds.
    """

    games: tuple[str, ...] = choice("game", GAMES)
    """Games to play."""
    distillation_weight: str = "2->0@0.5"
    """Weight of the teacher's advice, a schedule over the run or "lag"."""
    steps: int = 1_000_000
    """Environment steps of each run."""
    episodes: int = 200
    """Episodes of the evaluation at the end of each run."""
    out: Path = Path("runs/kickstarting")

    def make_page(self) -> Page:
        """Trains all learners and builds the page."""
        found = self.run_trials(self.trials())
        return self.page(
            {game: [self._race(game, seed) for seed in range(self.seeds)] for game in self.games},
            found,
        )

    def trials(self) -> list[Trial]:
        """One run per seed, learner and game."""
        return [
            Trial(
                name=_name(game, learner, seed),
                method=self.method(learner),
                suite=task_of(game),
                options=run_options(self.steps, seed, self.episodes),
            )
            for seed in range(self.seeds)
            for learner in LEARNERS
            for game in self.games
        ]

    def method(self, learner: LearnerName) -> Method:
        """The training method of a learner."""
        network = Network(encoder="grid")
        if learner == "scratch":
            return PPO(network=network, **SETTINGS)
        return PolicyDistillation(
            teacher="zoo",
            student=network,
            objective="KL(temperature=1.0)",
            teacher_acts=0.0,
            distillation_weight=self.distillation_weight,
            reinforcement_weight=1.0,
            **SETTINGS,
        )

    def _race(self, game: str, seed: int) -> Race:
        """The smoothed training returns of a game and seed.

        Raises:
            InputError: In one of the runs no episode ended.
        """
        curves = []
        for learner in ("scratch", "kickstarted"):
            run_dir = self.out / _name(game, learner, seed)
            curves.append(training_curve(run_dir, task_of(game)).smoothed(WINDOW * self.steps))
        if not all(len(curve.steps) for curve in curves):
            raise InputError(
                f"No episode of {game} ended within {self.steps} steps of {SETTINGS['num_envs']} "
                "environments: use more --steps."
            )
        return Race(*curves)

    def page(self, races: Mapping[str, list[Race]], found: Mapping[str, Any]) -> Page:
        """The page of each game's races, by seed, and of all runs' results, by name."""
        fractions = {
            learner: {game: [race.step_fraction(learner) for race in races[game]] for game in races}
            for learner in LEARNERS
        }
        ratios = {
            learner: {
                game: [_return_ratio(found, game, learner, seed) for seed in range(self.seeds)]
                for game in races
            }
            for learner in LEARNERS
        }
        table = {learner: geometric_mean_interval(of) for learner, of in fractions.items()}
        rows = [
            [
                game,
                mean_percent(fractions["kickstarted"][game]),
                mean_percent(fractions["scratch"][game]),
                f"{sum(race.censored for race in raced)} of {len(raced)}",
                f"{np.mean([race.goal for race in raced]):.1f}",
                f"{np.mean([race.kickstarted.returns[-1] for race in raced]):.1f}",
                mean_percent(ratios["scratch"][game]),
                mean_percent(ratios["kickstarted"][game]),
            ]
            for game, raced in races.items()
        ]
        censored = sum(race.censored for raced in races.values() for race in raced)
        return Page(
            text=self._text(table["kickstarted"].format_percent(), rows, censored, found),
            data={
                **self.option_values("steps", "seeds", "episodes", "distillation_weight"),
                "hardware": format_hardware(found.values()),
                "table": {learner: interval_json(interval) for learner, interval in table.items()},
                "races": {
                    f"{game}-{seed}": {
                        "goal": race.goal,
                        "share": fractions["kickstarted"][game][seed],
                        "censored": race.censored,
                        "scratch_share": fractions["scratch"][game][seed],
                        "kickstarted_ends_with": float(race.kickstarted.returns[-1]),
                        "kept": {learner: ratios[learner][game][seed] for learner in LEARNERS},
                    }
                    for game, raced in races.items()
                    for seed, race in enumerate(raced)
                },
                "wall_seconds": {name: result["wall_seconds"] for name, result in found.items()},
            },
            pictures={"picture.png": curve_picture(races)},
        )

    def _text(
        self, percent: str, rows: Sequence[list[str]], censored: int, found: Mapping[str, Any]
    ) -> str:
        head = [
            "game", "kickstarted: steps to goal, %", "scratch: steps to goal, %",
            "goal not reached", "scratch: final training return",
            "kickstarted: final training return", "scratch / teacher, %",
            "kickstarted / teacher, %",
        ]  # fmt: skip
        return f"""# Kickstarting

Kickstarted PPO reaches the final training return of PPO from scratch after **{percent} %** of the
steps: geometric mean over {len(self.games)} MinAtar games, with its 95 % interval over {self.seeds}
seeds. {_format_censored(censored, len(found) // 2)}

![training returns](picture.png)

{markdown_table(head, rows)}

Means over seeds.

- Goal: the training return at the end of the run from scratch.
- Steps to goal: the step at which a run first reaches the goal, in per cent of {self.steps:,}
  steps. The run from scratch may reach it before its end.
- Training returns are means over {100 * WINDOW:.0f} % of the run, so no run can need fewer steps.
- / teacher: the return of the final greedy policy relative to the teacher's, over {self.episodes}
  whole episodes.

{self.footer(found.values())}

The paper (Schmitt 2018, 30 tasks of DMLab): about a tenth of the steps. The docstring of
`experiment.py` lists the differences from the paper.
"""


def _name(game: str, learner: str, seed: int) -> str:
    return f"{game}-{learner}-{seed}"


def _return_ratio(found: Mapping[str, Any], game: str, learner: LearnerName, seed: int) -> float:
    with_teacher = found[_name(game, "kickstarted", seed)]
    return run_return_ratio(found[_name(game, learner, seed)], teacher_result=with_teacher)


def _format_censored(censored: int, races: int) -> str:
    if not censored:
        return f"All {races} kickstarted runs reached it."
    return (
        f"{censored} of {races} kickstarted runs did not reach it and count as 100 %: the true "
        "figure is higher."
    )


def curve_picture(races: Mapping[str, Sequence[Race]]) -> Figure:
    """The training returns of each game's races: the mean over seeds, and their range."""
    figure, grid = panel_figure(races)
    for axes, raced in zip(grid.flat, races.values(), strict=False):
        for learner, color in zip(("scratch", "kickstarted"), ("C1", "C0"), strict=True):
            steps, returns = _resampled([getattr(race, learner) for race in raced])
            axes.plot(steps / 1e6, returns.mean(0), color, label=learner)
            low, high = returns.min(0), returns.max(0)
            axes.fill_between(steps / 1e6, low, high, color=color, alpha=0.2, linewidth=0)
        goal = float(np.mean([race.goal for race in raced]))
        axes.axhline(goal, color="gray", linewidth=0.8, linestyle="--")
    # In the cell that no game fills, if there is one.
    grid.flat[-1].legend(*grid[0, 0].get_legend_handles_labels(), frameon=False, loc="center")
    figure.supxlabel("million environment steps")
    figure.supylabel("training return")
    return figure


def _resampled(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Curves interpolated at common steps, where all of them are defined.

    Returns:
        Steps (points,) and returns (curves, points).
    """
    first = max(curve.steps[0] for curve in curves)
    last = min(curve.steps[-1] for curve in curves)
    steps = np.linspace(first, last, 200)
    return steps, np.stack([np.interp(steps, curve.steps, curve.returns) for curve in curves])
