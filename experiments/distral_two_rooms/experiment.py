"""Distral in two rooms: how much sooner tasks are learned with the distilled policy.

    rltransfer experiment run distral-two-rooms

The first experiment of Teh 2017 (arXiv 1707.04175, section 4.1): two rooms joined by a corridor,
one goal per task, tables, soft Q-learning alternating with distillation, KL alone (alpha = 1).
Without the distilled policy pi_0 stays uniform, and each task is learned separately. There are two
phases:

    together    many goals are learned at once, while what they have in common is distilled;
    new goals   other goals are learned, with the policy distilled in the first phase, which is then
                frozen, or without it.

The measure is the number of steps per task until the mean return first reaches 90 % of the optimum
that value iteration computes. The return is that of the stochastic policies that act, smoothed over
a twentieth of the run. Runs that do not reach the level count with all of their steps, and the page
reports their number. Both learners have the same step sizes. Each learner runs with several betas,
as a good beta with a distilled policy need not be good without one. The page shows the ratios at
equal beta, and the ratio with each learner at its best beta.

Differs from the paper: the paper does not print rooms, goals, step sizes, discount and beta, and
has no experiment on new goals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rltransfer.agents import SoftQ
from rltransfer.agents.distral_policy import DistralPolicy
from rltransfer.envs.gridworld.family import TWO_ROOMS
from rltransfer.envs.gridworld.layouts import FREE, make_layout
from rltransfer.envs.gridworld.planning import Planner
from rltransfer.envs.gridworld.rules import MOVES, STATES_PER_CELL, make_rules
from rltransfer.errors import InputError
from rltransfer.experiments.common.experiment import PaperExperiment
from rltransfer.experiments.common.intervals import interval_json
from rltransfer.experiments.common.page import Page, format_hardware, markdown_table
from rltransfer.experiments.common.pictures import new_figure
from rltransfer.experiments.common.training_curve import training_curves
from rltransfer.experiments.common.trials import Trial, run_options
from rltransfer.metrics.curves import Curve
from rltransfer.metrics.intervals import Interval, geometric_mean_interval, mean_interval
from rltransfer.runs.folder import load_run_policy
from rltransfer.tasks.task import Suite, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

PhaseName = Literal["together", "new goals"]
LearnerName = Literal["with", "without"]

PHASES: tuple[PhaseName, ...] = ("together", "new goals")
LEARNERS: tuple[LearnerName, ...] = ("with", "without")
"""With the distilled policy, and without it."""

LEVEL = 0.9
"""The fraction of the optimal return that a run should reach."""

WINDOW = 0.05
"""Returns are smoothed over this fraction of a run's steps."""

TIME_LIMIT = 100
"""Steps of an episode."""


@dataclass(frozen=True, kw_only=True)
class DistralTwoRooms(PaperExperiment):
    """Soft Q-learning in two rooms (Teh 2017): 60 runs, 47 minutes on two CPU cores.

    With and without a distilled policy; two phases, three betas, five seeds.
    """

    goals: int = 16
    """Number of goals that are learned together."""
    new_goals: int = 8
    """Number of goals that are learned afterwards."""
    room: int = 4
    """Height and width of each room, in cells."""
    corridor: int = 6
    """Length of the corridor, in cells."""
    betas: tuple[float, ...] = (20.0, 40.0, 80.0)
    """Inverse temperatures to compare."""
    learning_rate: float = 0.1
    """Step size of Q."""
    distillation_rate: float = 0.02
    """Step size of the distilled policy."""
    steps: int = 60_000
    """Environment steps per task."""
    out: Path = Path("runs/distral-two-rooms")

    def __post_init__(self) -> None:
        super().__post_init__()
        # The last goal has a cell only if all goals have one and the rooms are valid.
        make_layout("two-rooms", self._map(self.goals + self.new_goals - 1))

    def make_page(self) -> Page:
        """Trains both phases, one after the other, and builds the page."""
        found: dict[str, Any] = {}
        for phase in PHASES:  # new goals need the policies distilled in the first phase
            found |= self.run_trials(self.trials(phase))
        curves = {
            phase: {
                learner: [
                    [self._curve(phase, learner, beta, seed) for seed in range(self.seeds)]
                    for beta in self.betas
                ]
                for learner in LEARNERS
            }
            for phase in PHASES
        }
        findings = Findings(self.betas, self.steps, curves)
        best = self.betas[findings.best("together", "with")]
        return Page(
            text=self._text(findings, found),
            data={
                **self.option_values("steps", "seeds", "betas"),
                "hardware": format_hardware(found.values()),
                "reached": {
                    phase: {one: findings.reached(phase, one).tolist() for one in LEARNERS}
                    for phase in PHASES
                },
                "ratio_of_the_best": {
                    phase: interval_json(findings.ratio_of_the_best(phase)) for phase in PHASES
                },
                "wall_seconds": {name: result["wall_seconds"] for name, result in found.items()},
            },
            pictures={
                "curves.png": curve_picture(findings),
                "arrows.png": self._distilled_picture(best),
            },
        )

    def suite(self, phase: PhaseName) -> Suite:
        """The tasks of a phase."""
        counts: dict[PhaseName, range] = {
            "together": range(self.goals),
            "new goals": range(self.goals, self.goals + self.new_goals),
        }
        return Suite(
            phase,
            tuple(
                Task(
                    TWO_ROOMS,
                    {**self._map(goal), "observation": "one-hot", "time_limit": TIME_LIMIT},
                )
                for goal in counts[phase]
            ),
        )

    def _map(self, goal: int) -> dict[str, int]:
        return {"goal": goal, "room": self.room, "corridor": self.corridor}

    def trials(self, phase: PhaseName) -> list[Trial]:
        """One run per seed, beta and learner."""
        return [
            Trial(
                name=_name(phase, learner, beta, seed),
                method=self._method(phase, learner, beta, seed),
                suite=self.suite(phase),
                options=run_options(self.steps * len(self.suite(phase)), seed),
            )
            for seed in range(self.seeds)
            for beta in self.betas
            for learner in LEARNERS
        ]

    def _method(self, phase: PhaseName, learner: LearnerName, beta: float, seed: int) -> SoftQ:
        distilling = phase == "together" and learner == "with"
        known = phase == "new goals" and learner == "with"
        source = self.out / _name("together", "with", beta, seed)
        return SoftQ(
            alpha=1.0,
            beta=beta,
            learning_rate=self.learning_rate,
            distillation_rate=self.distillation_rate if distilling else 0.0,
            distilled=str(source) if known else "",
        )

    def _planners(self, phase: PhaseName) -> list[Planner]:
        goals = [task.kwargs["goal"] for task in self.suite(phase)]
        return [Planner(make_rules(make_layout("two-rooms", self._map(goal)))) for goal in goals]

    def _curve(self, phase: PhaseName, learner: LearnerName, beta: float, seed: int) -> Curve:
        """A run's mean return relative to the optimum, over steps per task.

        Raises:
            InputError: No episode ended.
        """
        suite = self.suite(phase)
        best = [planner.optimal_return(TIME_LIMIT) for planner in self._planners(phase)]
        curves = training_curves(self.out / _name(phase, learner, beta, seed), suite.names())
        if not len(curves[0].steps):
            raise InputError(
                f"No episode ended within {self.steps} steps of each task: use more --steps."
            )
        # All episodes end at the same steps, as only the time limit ends them.
        ratios = np.mean([one.returns / top for one, top in zip(curves, best, strict=True)], axis=0)
        return Curve(curves[0].steps / len(suite), ratios).smoothed(WINDOW * self.steps)

    def _distilled_picture(self, beta: float) -> Figure:
        """The distilled policy of the run with this beta and seed 0, as arrows."""
        policy = load_run_policy(self.out / _name("together", "with", beta, 0))
        assert isinstance(policy, DistralPolicy)
        layout = make_layout("two-rooms", self._map(0))
        states = torch.eye(make_rules(layout).num_states)
        task = torch.zeros(len(states), dtype=torch.int64)
        with torch.no_grad():
            distilled, _ = policy.both({"policy": states}, task)
        return arrow_picture(layout.rows, distilled.log_probs().exp().double().numpy())

    def _text(self, findings: Findings, found: Mapping[str, Any]) -> str:
        texts = (f"## {phase.capitalize()}\n\n{findings.format(phase)}" for phase in PHASES)
        tables = "\n\n".join(texts)
        return f"""# Distral in two rooms

Steps per task until the mean return of the stochastic policies reaches {LEVEL:.0%} of the optimum,
with the distilled policy and without it: means over {self.seed_count} with 95 % intervals, and
geometric means of the ratios between runs of the same seed. "2 not" means that two runs did not
reach this level. Each of them counts as its {self.steps:,} steps, so that a mean or a ratio with
such runs is a bound and has no interval.

![mean return over the steps per task](curves.png)

{tables}

## The distilled policy

![the distilled policy](arrows.png)

The distilled policy's next action, after each of the four moves: in the corridor it continues in
the same direction. Seed 0.

{self.goals} goals together, then {self.new_goals} new goals, in rooms of {self.room} x {self.room}
cells with a corridor of {self.corridor}; step sizes {self.learning_rate:g} (Q) and
{self.distillation_rate:g} (distillation).

{self.footer(found.values())}

The paper shows a curve and the arrows, but no figures. The docstring of `experiment.py` lists the
differences from the paper.
"""


@dataclass(frozen=True)
class Findings:
    """The curves of all runs, and the steps until they reach `LEVEL`."""

    betas: Sequence[float]
    steps: int
    """Environment steps per task."""
    curves: Mapping[PhaseName, Mapping[LearnerName, Sequence[Sequence[Curve]]]]
    """Smoothed returns relative to the optimum, for each beta and seed."""

    def reached(self, phase: PhaseName, learner: LearnerName) -> Array:
        """The steps until `LEVEL`, all of them if it is not reached.    (betas, seeds)"""
        return np.array(
            [
                [curve.first_at_least(LEVEL) or self.steps for curve in seeds]
                for seeds in self.curves[phase][learner]
            ],
            dtype=np.float64,
        )

    def censored(self, phase: PhaseName, learner: LearnerName) -> list[int]:
        """The number of runs that do not reach `LEVEL`, for each beta."""
        return [
            sum(curve.first_at_least(LEVEL) is None for curve in seeds)
            for seeds in self.curves[phase][learner]
        ]

    def best(self, phase: PhaseName, learner: LearnerName) -> int:
        """The index of the beta with which a learner reaches `LEVEL` first."""
        return int(np.log(self.reached(phase, learner)).mean(1).argmin())

    def ratio(self, phase: PhaseName, with_beta: int, without_beta: int) -> Interval:
        """The ratio of the steps with the distilled policy to those without, over seeds."""
        with_, without = (self.reached(phase, learner) for learner in LEARNERS)
        return geometric_mean_interval({phase: with_[with_beta] / without[without_beta]})

    def ratio_of_the_best(self, phase: PhaseName) -> Interval:
        """The ratio with each learner at its best beta."""
        return self.ratio(phase, *(self.best(phase, learner) for learner in LEARNERS))

    def format(self, phase: PhaseName) -> str:
        """A phase's table and its conclusion."""
        with_, without = (self._cells(phase, learner) for learner in LEARNERS)
        rows = [
            [f"{beta:g}", with_[index], without[index], self._format_ratio(phase, index, index)]
            for index, beta in enumerate(self.betas)
        ]
        best = [self.best(phase, learner) for learner in LEARNERS]
        betas = " and ".join(f"{self.betas[index]:g}" for index in best)
        verdict = self.ratio_of_the_best(phase).against(1, "more", "fewer")
        if any(self.censored(phase, name)[at] for name, at in zip(LEARNERS, best, strict=True)):
            verdict = f"undecided: some runs did not reach {LEVEL:.0%}"
        head = ("beta", "with", "without", "ratio")
        text = (
            f"{markdown_table(head, rows)}\n\n"
            f"Each learner at its best beta ({betas}), chosen on these seeds: "
            f"{self._format_ratio(phase, *best)} of the steps ({verdict})."
        )
        at_the_edge = sum(index in (0, len(self.betas) - 1) for index in best)
        if at_the_edge:
            which = "Both are" if at_the_edge == 2 else "One is"
            text += (
                f"\n{which} at the edge of the tested values: there may be better ones beyond it."
            )
        return text

    def _format_ratio(self, phase: PhaseName, with_beta: int, without_beta: int) -> str:
        """A ratio as text; a bound if some runs of one learner did not reach `LEVEL`."""
        ratio = self.ratio(phase, with_beta, without_beta)
        with_, without = (self.censored(phase, learner) for learner in LEARNERS)
        late = (with_[with_beta] > 0, without[without_beta] > 0)
        if late == (True, True):
            return "not known"
        bound = {(True, False): "at least ", (False, True): "at most "}.get(late)
        return f"{bound}{ratio.estimate:.2f}" if bound else ratio.format(2)

    def _cells(self, phase: PhaseName, learner: LearnerName) -> list[str]:
        cells = []
        by_beta = zip(self.reached(phase, learner), self.censored(phase, learner), strict=True)
        for seeds, late in by_beta:
            steps = mean_interval(seeds.tolist())
            cells.append(f"at least {steps.estimate:.0f}, {late} not" if late else steps.format(0))
        return cells


def _name(phase: PhaseName, learner: LearnerName, beta: float, seed: int) -> str:
    return f"{phase.replace(' ', '-')}-{learner}-{beta:g}-{seed}"


def curve_picture(findings: Findings) -> Figure:
    """Each learner's mean over seeds at each beta, in both phases."""
    figure, (both,) = new_figure(1, len(PHASES), (9, 3.5), sharey=True)
    points = np.linspace(0, findings.steps, 200)
    for axes, phase in zip(both, PHASES, strict=True):
        for learner, colour in zip(LEARNERS, ("tab:blue", "tab:orange"), strict=True):
            best = findings.best(phase, learner)
            for index, seeds in enumerate(findings.curves[phase][learner]):
                drawn = [np.interp(points, run.steps, run.returns, left=np.nan) for run in seeds]
                axes.plot(
                    points / 1000,
                    np.mean(drawn, axis=0),
                    color=colour,
                    alpha=1.0 if index == best else 0.3,
                    label=f"{learner} pi_0, beta {findings.betas[index]:g}"
                    if index == best
                    else None,
                )
        axes.axhline(LEVEL, color="gray", linewidth=0.8)
        axes.set_title(phase)
        axes.set_xlabel("thousand steps per task")
        axes.legend(frameon=False, loc="lower right")
    both[0].set_ylabel("return / optimum")
    return figure


def arrow_picture(rows: Sequence[str], probability: Array) -> Figure:
    """A policy's actions in every cell after each move; an arrow's length is the probability.

    Args:
        rows: The map.
        probability: Action probabilities in every state, without a reward in the step before.
            (num_states, 4)
    """
    names = ("up", "right", "down", "left")
    figure, panels = new_figure(2, 2, (9, 4.6))
    walls = np.array([[cell != FREE for cell in row] for row in rows])
    for move, axes in enumerate(panels.flat):
        axes.imshow(walls, cmap="Greys", vmax=2)
        for row, column in np.argwhere(~walls):
            state = (row * walls.shape[1] + column) * STATES_PER_CELL + move * 2
            for (down, right), length in zip(MOVES, probability[state], strict=True):
                axes.arrow(
                    column,
                    row,
                    0.45 * length * right,
                    0.45 * length * down,
                    width=0.02,
                    head_width=0.16 * length,
                    length_includes_head=True,
                    color="tab:blue",
                )
        axes.set_title(f"after {names[move]}")
        axes.set_xticks([])
        axes.set_yticks([])
    return figure
