"""Distral in two rooms: how much sooner tasks are learned with the distilled policy.

    rltransfer experiment run distral-two-rooms

The first experiment of Teh 2017 (arXiv 1707.04175, section 4.1): two rooms joined by a corridor, a
goal for each task, tables, soft Q-learning and distillation in turn, with KL alone (alpha = 1).
Without the distilled policy pi_0 stays uniform, and each task is learned by itself. Two courses:

    together    many goals are learned at once, and what they have in common is distilled meanwhile;
    new goals   others are learned then, with what the first ones distilled, which no longer
                changes, or without.

What counts is the number of steps of each task after which the mean return is 90 % of the best
policy's for the first time. It is that of the policies as they act, smoothed over a twentieth of
the run, in shares of what value iteration says is the best. Runs that do not get there count with
all of their steps, and the page says how many they are. Both learners have the same step sizes.
Each of them is tried with several beta, as a beta that is good with a distilled policy need not be
good without one: the ratios are those at the same beta, and those of each learner at its best.

Differs from the paper: rooms, goals, step sizes, discount and beta are not printed there; new goals
are not among its experiments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
from rltransfer.experiments.common.checks import check_options, page_folder
from rltransfer.experiments.common.distral_curves import run_options
from rltransfer.experiments.common.intervals import (
    Interval,
    geometric_mean_interval,
    interval_json,
    mean_interval,
)
from rltransfer.experiments.common.page import (
    footer,
    format_hardware,
    markdown_table,
    write_results,
)
from rltransfer.experiments.common.training_curve import Curve, training_curves
from rltransfer.experiments.common.trials import Trial, run_trials
from rltransfer.machine.terminal import console
from rltransfer.runs.folder import load_run_policy
from rltransfer.tasks.task import Suite, Task

Array = NDArray[np.float64]

CourseName = Literal["together", "new goals"]
LearnerName = Literal["with", "without"]

COURSES: tuple[CourseName, ...] = ("together", "new goals")
LEARNERS: tuple[LearnerName, ...] = ("with", "without")
"""With the distilled policy, and without it."""

LEVEL = 0.9
"""The share of the best return that is to be reached."""

WINDOW = 0.05
"""Share of a run's steps that returns are smoothed over."""

TIME_LIMIT = 100
"""Steps of an episode."""


@dataclass(frozen=True, kw_only=True)
class DistralTwoRooms:
    """Soft Q-learning in two rooms (Teh 2017): 60 runs, 47 minutes on two CPU cores.

    With and without a distilled policy; two courses, three betas, five seeds.
    """

    goals: int = 16
    """Goals that are learned together."""
    new_goals: int = 8
    """Goals that are learned after them."""
    room: int = 4
    """Height and width of each room."""
    corridor: int = 6
    """Length of the corridor."""
    betas: tuple[float, ...] = (20.0, 40.0, 80.0)
    """Inverse temperatures."""
    learning_rate: float = 0.1
    """Step size of Q."""
    distillation_rate: float = 0.02
    """Step size of the distilled policy."""
    seeds: int = 5
    """Seeds of each run, counted from 0."""
    steps: int = 60_000
    """Environment steps of each task."""
    jobs: int = 0
    """Trials at once; 0 means one for each core."""
    out: Path = Path("runs/distral-two-rooms")
    """Folder of the runs."""
    results: Path | None = None
    """Folder for the page, its pictures and its figures; that of the runs if not given."""

    def __post_init__(self) -> None:
        check_options(self)
        # The last goal has a place only if all have, in rooms that there can be.
        make_layout("two-rooms", self._map(self.goals + self.new_goals - 1))

    def run(self) -> None:
        """Runs what has not been run yet, and writes the page."""
        folder = page_folder(self.results, self.out)
        found: dict[str, Any] = {}
        for course in COURSES:  # new goals need what was distilled before
            found |= run_trials(self.trials(course), self.out, self.jobs)
        curves = {
            course: {
                learner: [
                    [self._curve(course, learner, beta, seed) for seed in range(self.seeds)]
                    for beta in self.betas
                ]
                for learner in LEARNERS
            }
            for course in COURSES
        }
        self._write(folder, Findings(self.betas, self.steps, curves), found)
        console().print(f"written: {folder / 'RESULTS.md'}", highlight=False)

    def suite(self, course: CourseName) -> Suite:
        """Returns a course's tasks."""
        counts: dict[CourseName, range] = {
            "together": range(self.goals),
            "new goals": range(self.goals, self.goals + self.new_goals),
        }
        return Suite(
            course,
            tuple(
                Task(
                    TWO_ROOMS,
                    {**self._map(goal), "observation": "one-hot", "time_limit": TIME_LIMIT},
                )
                for goal in counts[course]
            ),
        )

    def _map(self, goal: int) -> dict[str, int]:
        return {"goal": goal, "room": self.room, "corridor": self.corridor}

    def trials(self, course: CourseName) -> list[Trial]:
        """Returns every combination of seed, beta and learner."""
        return [
            Trial(
                name=_name(course, learner, beta, seed),
                method=self._method(course, learner, beta, seed),
                suite=self.suite(course),
                options=run_options(self.steps * len(self.suite(course)), seed),
            )
            for seed in range(self.seeds)
            for beta in self.betas
            for learner in LEARNERS
        ]

    def _method(self, course: CourseName, learner: LearnerName, beta: float, seed: int) -> SoftQ:
        """Returns how a learner learns."""
        distilling = course == "together" and learner == "with"
        known = course == "new goals" and learner == "with"
        source = self.out / _name("together", "with", beta, seed)
        return SoftQ(
            alpha=1.0,
            beta=beta,
            learning_rate=self.learning_rate,
            distillation_rate=self.distillation_rate if distilling else 0.0,
            distilled=str(source) if known else "",
        )

    def _planners(self, course: CourseName) -> list[Planner]:
        goals = [task.kwargs["goal"] for task in self.suite(course)]
        return [Planner(make_rules(make_layout("two-rooms", self._map(goal)))) for goal in goals]

    def _curve(self, course: CourseName, learner: LearnerName, beta: float, seed: int) -> Curve:
        """Returns a run's mean return in shares of the best, over steps of each task.

        Raises:
            InputError: The run was too short for an episode to end.
        """
        suite = self.suite(course)
        best = [planner.optimal_return(TIME_LIMIT) for planner in self._planners(course)]
        curves = training_curves(self.out / _name(course, learner, beta, seed), suite.names())
        if not len(curves[0].steps):
            raise InputError(
                f"No episode ended within {self.steps} steps of each task: the runs must be longer."
            )
        # All episodes end at the same steps: nothing but the time limit ends one.
        shares = np.mean([one.returns / top for one, top in zip(curves, best, strict=True)], axis=0)
        return Curve(curves[0].steps / len(suite), shares).smoothed(WINDOW * self.steps)

    def _write(self, folder: Path, findings: Findings, found: Mapping[str, Any]) -> None:
        """Writes the page, the pictures and the figures."""
        write_results(folder, self._page(findings, found), self._data(findings, found))
        curve_picture(folder / "curves.png", findings)
        beta = self.betas[findings.best("together", "with")]
        policy = load_run_policy(self.out / _name("together", "with", beta, 0))
        assert isinstance(policy, DistralPolicy)
        layout = make_layout("two-rooms", self._map(0))
        states = torch.eye(make_rules(layout).num_states)
        with torch.no_grad():
            distilled, _ = policy.both(
                {"policy": states}, torch.zeros(len(states), dtype=torch.int64)
            )
        arrow_picture(
            folder / "arrows.png", layout.rows, distilled.log_probs().exp().double().numpy()
        )

    def _page(self, findings: Findings, found: Mapping[str, Any]) -> str:
        """Returns RESULTS.md."""
        tables = "\n\n".join(
            f"## {course.capitalize()}\n\n{findings.told(course)}" for course in COURSES
        )
        return f"""# Distral in two rooms

Steps of each task until the policies, as they act, earn {LEVEL:.0%} of the best return: with the
distilled policy and without it, means over {self.seeds} seeds with their 95 % intervals, and ratios
between runs of the same seed, geometric means. "2 not": so many runs did not get there; each counts
as its {self.steps:,} steps: a mean or a ratio with such runs is a bound, and has no interval.

![mean return over the steps of each task](curves.png)

{tables}

## What is distilled

![the distilled policy](arrows.png)

What the distilled policy does next, after each of the four moves: in the corridor it goes on in the
direction in which it came. Seed 0.

{self.goals} goals together, then {self.new_goals} new ones, in rooms of {self.room} x {self.room}
with a corridor of {self.corridor}; step sizes {self.learning_rate:g} (Q) and
{self.distillation_rate:g} (distillation).

{footer("distral-two-rooms", self, found.values())}

The paper shows a curve and the arrows, and no figures. What differs stands in the module's
docstring.
"""

    def _data(self, findings: Findings, found: Mapping[str, Any]) -> dict[str, Any]:
        """Returns results.json."""
        return {
            "steps": self.steps,
            "seeds": self.seeds,
            "betas": self.betas,
            "hardware": format_hardware(found.values()),
            "reached": {
                course: {
                    learner: findings.reached(course, learner).tolist() for learner in LEARNERS
                }
                for course in COURSES
            },
            "ratio_of_the_best": {
                course: interval_json(findings.ratio_of_the_best(course)) for course in COURSES
            },
            "wall_seconds": {name: result["wall_seconds"] for name, result in found.items()},
        }


@dataclass(frozen=True)
class Findings:
    """The curves of all runs, and how soon they get there."""

    betas: Sequence[float]
    steps: int
    """Environment steps of each task."""
    curves: Mapping[CourseName, Mapping[LearnerName, Sequence[Sequence[Curve]]]]
    """Smoothed shares of the best return, for each beta and seed."""

    def reached(self, course: CourseName, learner: LearnerName) -> Array:
        """Returns the steps until `LEVEL`, all of them if it is not reached.    (betas, seeds)"""
        return np.array(
            [
                [curve.first_at_least(LEVEL) or self.steps for curve in seeds]
                for seeds in self.curves[course][learner]
            ],
            dtype=np.float64,
        )

    def censored(self, course: CourseName, learner: LearnerName) -> list[int]:
        """Returns for each beta how many runs do not get there."""
        return [
            sum(curve.first_at_least(LEVEL) is None for curve in seeds)
            for seeds in self.curves[course][learner]
        ]

    def best(self, course: CourseName, learner: LearnerName) -> int:
        """Returns the index of the beta with which a learner is soonest there."""
        return int(np.log(self.reached(course, learner)).mean(1).argmin())

    def ratio(self, course: CourseName, with_beta: int, without_beta: int) -> Interval:
        """Returns the steps with the distilled policy by those without, over pairs of seeds."""
        with_, without = (self.reached(course, learner) for learner in LEARNERS)
        return geometric_mean_interval({course: with_[with_beta] / without[without_beta]})

    def ratio_of_the_best(self, course: CourseName) -> Interval:
        """Returns the ratio of each learner at its own best beta."""
        return self.ratio(course, *(self.best(course, learner) for learner in LEARNERS))

    def told(self, course: CourseName) -> str:
        """Returns a course's table and what it comes to."""
        with_, without = (self._cells(course, learner) for learner in LEARNERS)
        rows = [
            [f"{beta:g}", with_[index], without[index], self._told_ratio(course, index, index)]
            for index, beta in enumerate(self.betas)
        ]
        best = [self.best(course, learner) for learner in LEARNERS]
        betas = " and ".join(f"{self.betas[index]:g}" for index in best)
        verdict = self.ratio_of_the_best(course).against(1, "more", "fewer")
        if any(self.censored(course, who)[at] for who, at in zip(LEARNERS, best, strict=True)):
            verdict = "undecided: some runs did not get there"
        head = ("beta", "with", "without", "ratio")
        text = (
            f"{markdown_table(head, rows)}\n\n"
            f"Each at its best beta ({betas}), chosen on these seeds: "
            f"{self._told_ratio(course, *best)} of the steps ({verdict})."
        )
        at_the_edge = sum(index in (0, len(self.betas) - 1) for index in best)
        if at_the_edge:
            which = "Both lie" if at_the_edge == 2 else "One lies"
            text += f"\n{which} at the edge of those that were tried: beyond it may be better ones."
        return text

    def _told_ratio(self, course: CourseName, with_beta: int, without_beta: int) -> str:
        """Returns a ratio in words; a bound where runs of one learner were cut short."""
        ratio = self.ratio(course, with_beta, without_beta)
        with_, without = (self.censored(course, learner) for learner in LEARNERS)
        late = (with_[with_beta] > 0, without[without_beta] > 0)
        if late == (True, True):
            return "not known"
        bound = {(True, False): "at least ", (False, True): "at most "}.get(late)
        return f"{bound}{ratio.mean:.2f}" if bound else ratio.told(2)

    def _cells(self, course: CourseName, learner: LearnerName) -> list[str]:
        """Returns the steps at each beta, in words."""
        cells = []
        for seeds, late in zip(
            self.reached(course, learner), self.censored(course, learner), strict=True
        ):
            steps = mean_interval(seeds.tolist())
            cells.append(f"at least {steps.mean:.0f}, {late} not" if late else steps.told(0))
        return cells


def _name(course: CourseName, learner: LearnerName, beta: float, seed: int) -> str:
    return f"{course.replace(' ', '-')}-{learner}-{beta:g}-{seed}"


def curve_picture(path: Path, findings: Findings) -> None:
    """Draws both courses: each learner's mean over seeds at each beta.

    Args:
        path: The PNG file.
        findings: The curves.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, both = plt.subplots(
        1, len(COURSES), figsize=(9, 3.5), sharey=True, layout="constrained"
    )
    points = np.linspace(0, findings.steps, 200)
    for axes, course in zip(both, COURSES, strict=True):
        for learner, colour in zip(LEARNERS, ("tab:blue", "tab:orange"), strict=True):
            best = findings.best(course, learner)
            for index, seeds in enumerate(findings.curves[course][learner]):
                drawn = [
                    np.interp(points, curve.steps, curve.returns, left=np.nan) for curve in seeds
                ]
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
        axes.set_title(course)
        axes.set_xlabel("thousand steps of each task")
        axes.legend(frameon=False, loc="lower right")
    both[0].set_ylabel("share of the best return")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def arrow_picture(path: Path, rows: Sequence[str], probability: Array) -> None:
    """Draws what a policy does in every cell after each move, as arrows as long as it is likely.

    Args:
        path: The PNG file.
        rows: The map.
        probability: Of every action in every state, without a reward the step before.
            (num_states, 4)
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = ("up", "right", "down", "left")
    figure, panels = plt.subplots(2, 2, figsize=(9, 4.6), layout="constrained")
    walls = np.array([[cell != FREE for cell in row] for row in rows])
    for move, axes in enumerate(panels.flat):
        axes.imshow(walls, cmap="Greys", vmax=2)
        for row, column in np.argwhere(~walls):
            state = (row * walls.shape[1] + column) * STATES_PER_CELL + move * 2
            for (down, right), share in zip(MOVES, probability[state], strict=True):
                axes.arrow(
                    column,
                    row,
                    0.45 * share * right,
                    0.45 * share * down,
                    width=0.02,
                    head_width=0.16 * share,
                    length_includes_head=True,
                    color="tab:blue",
                )
        axes.set_title(f"after {names[move]}")
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(path, dpi=120)
    plt.close(figure)
