"""Distral on mazes: the paper's seven variants, nine settings of each, and a test of its claims.

    rltransfer experiment run distral-mazes

Teh 2017 (arXiv 1707.04175), section 4.2, on eight mazes of `envs/gridworld` that one network learns
together. The paper claims:

- Distral learns faster than its three baselines and ends higher.
- Two columns are faster than one.
- The KL regulariser alone (KL) is faster early and ends lower than KL and entropy (KL+ent).
- Baselines that share a network are unstable. The page shows how far each variant's results spread
  over the grid, and draws no conclusion from it.

Every variant runs with every beta and learning rate, on the grid's seeds. For each variant, the
setting with the largest area under its learning curve runs again on fresh seeds, so that the
comparisons are not biased by this choice. Differences are taken between runs of the same seed.
Where the paper speaks of Distral, the mean of its four variants is used: none is selected.

Differs from the paper:

- Partially observed gridworlds, seen from above, instead of the mazes of DMLab.
- A2C, Adam and no LSTM; see `agents/distral.py`.
- Settings are chosen on separate seeds.
- Rewards are not scaled. The betas fit this environment, where a goal is worth 1. The grid was
  moved once, as most of the best settings were at the edge of the first grid; the page reports how
  many still are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from rltransfer.agents import Distral
from rltransfer.envs.gridworld import family
from rltransfer.envs.gridworld.planning import Planner
from rltransfer.envs.gridworld.vector_env import GridworldVectorEnv
from rltransfer.experiments.common.distral_curves import (
    VARIANTS,
    Array,
    area,
    curve_picture,
    early,
    final,
    run_curves,
)
from rltransfer.experiments.common.experiment import PaperExperiment
from rltransfer.experiments.common.intervals import interval_json, table_json
from rltransfer.experiments.common.page import Page, format_hardware, markdown_table
from rltransfer.experiments.common.pictures import new_figure
from rltransfer.experiments.common.trials import Trial, run_options
from rltransfer.metrics.intervals import Interval, mean_interval
from rltransfer.policies.network import Network
from rltransfer.tasks.task import Suite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINES = ("A2C", "A2C multitask", "A2C 2col")
DISTRAL = ("KL 1col", "KL 2col", "KL+ent 1col", "KL+ent 2col")
ONE_COLUMN, TWO_COLUMNS = ("KL 1col", "KL+ent 1col"), ("KL 2col", "KL+ent 2col")
KL, KL_AND_ENTROPY = ("KL 1col", "KL 2col"), ("KL+ent 1col", "KL+ent 2col")

MEASURES = {"area": area, "early": early, "final": final}
"""Measures of a learning curve."""


class Setting(NamedTuple):
    """A point of the grid."""

    beta: float
    learning_rate: float


@dataclass(frozen=True)
class Claim:
    """A claim that some variants exceed others in a measure; means over variants are compared."""

    text: str
    """The paper's claim."""
    measure: Literal["area", "early", "final"]
    """The measure that is compared."""
    more: tuple[str, ...]
    """Variants for which the measure is larger."""
    less: tuple[str, ...]
    """Variants for which it is smaller."""

    def difference(self, curves: Mapping[str, Array]) -> Interval:
        """The difference of the means, over pairs of the same seed.

        Args:
            curves: The learning curves of each variant.    (seeds, PARTS)
        """
        measure = MEASURES[self.measure]
        more, less = (
            np.mean([measure(curves[variant]) for variant in variants], axis=0)
            for variants in (self.more, self.less)
        )
        return mean_interval((more - less).tolist())


CLAIMS = (
    *(Claim(f"Distral is faster than {one}", "area", DISTRAL, (one,)) for one in BASELINES),
    *(Claim(f"Distral ends higher than {one}", "final", DISTRAL, (one,)) for one in BASELINES),
    Claim("two columns are faster than one", "area", TWO_COLUMNS, ONE_COLUMN),
    Claim("KL is faster early than KL+ent", "early", KL, KL_AND_ENTROPY),
    Claim("KL ends lower than KL+ent", "final", KL_AND_ENTROPY, KL),
)
"""The paper's, except for stability: the nine settings were selected, they are not a sample."""


def best_setting(areas: Array) -> int:
    """The index of the setting with the largest mean area; the first of equal ones.

    Args:
        areas: The area under the curve of each run.    (settings, seeds)
    """
    return int(areas.mean(1).argmax())


def robustness(finals: Array) -> Array:
    """The final returns of all settings and seeds, the highest first.    (runs,)

    Args:
        finals: The final return of each run.    (settings, seeds)
    """
    return np.sort(finals, axis=None)[::-1]


def spread(finals: Array) -> float:
    """The mean distance of a grid's runs from their median.

    Args:
        finals: The final return of each run.    (settings, seeds)
    """
    return float(np.abs(finals - np.median(finals)).mean())


def verdict(difference: Interval) -> str:
    """Whether a claim held, i.e. the whole interval is above 0."""
    return difference.against(0, "held", "did not hold")


def optimal_returns(suite: Suite) -> Array:
    """The mean return of the optimal policy in each maze.    (tasks,)"""
    best = []
    for task in suite.tasks:
        env = family.FAMILY.make(task, 1, torch.device("cpu"))
        assert isinstance(env, GridworldVectorEnv)
        best.append(Planner(env.rules).optimal_return(env.time_limit))
    return np.array(best)


@dataclass(frozen=True)
class Findings:
    """The curves of all runs, and measures of them."""

    grid: Mapping[str, Array]
    """Each variant's grid, means over tasks.               (settings, seeds, PARTS)"""
    chosen: Mapping[str, Array]
    """Each variant's best setting, on fresh seeds.         (seeds, tasks, PARTS)"""
    best: Mapping[str, Setting]
    """Each variant's best setting."""
    optimal: Array
    """The mean return of the optimal policy in each maze.  (tasks,)"""

    @property
    def curves(self) -> dict[str, Array]:
        """Each variant's learning curves on fresh seeds, means over tasks.    (seeds, PARTS)"""
        return {variant: curves.mean(1) for variant, curves in self.chosen.items()}

    @property
    def finals(self) -> dict[str, Array]:
        """The final return of each run of the grid.    (settings, seeds)"""
        return {variant: final(curves) for variant, curves in self.grid.items()}

    def table(self) -> dict[str, dict[str, Interval]]:
        """Each variant's area, final return and ratio to the mazes' optimum."""
        return {
            variant: {
                "area": mean_interval(area(curves.mean(1)).tolist()),
                "final": mean_interval(final(curves.mean(1)).tolist()),
                "share": mean_interval((final(curves) / self.optimal).mean(1).tolist()),
            }
            for variant, curves in self.chosen.items()
        }

    def differences(self) -> dict[str, Interval]:
        """For each of the paper's claims the difference that should be above 0."""
        curves = self.curves
        return {claim.text: claim.difference(curves) for claim in CLAIMS}

    def at_the_edge(self, *axes: Sequence[float]) -> list[str]:
        """The variants whose best setting is the smallest or largest value of an axis.

        Args:
            axes: The grid's values, in the order of `Setting`.
        """
        return [
            variant
            for variant, setting in self.best.items()
            if any(one in (min(axis), max(axis)) for one, axis in zip(setting, axes, strict=True))
        ]


@dataclass(frozen=True, kw_only=True)
class DistralMazes(PaperExperiment):
    """Distral's variants on mazes (Teh 2017): 161 runs, half an hour on two CPU cores.

    Seven variants in nine settings with two seeds, and the best setting of each with five others.
    """

    mazes: int = 8
    """Number of mazes that are learned together."""
    betas: tuple[float, ...] = (10.0, 30.0, 100.0)
    """Values of beta in the grid; one nat is worth 1 / beta, a goal 1."""
    learning_rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    """Learning rates in the grid."""
    grid_seeds: int = 2
    """Number of seeds per setting of the grid, counted from 0."""
    seeds: int = 5
    """Number of seeds for each variant's best setting, counted from --grid-seeds."""
    steps: int = 1_000_000
    """Environment steps of each run, over all mazes."""
    out: Path = Path("runs/distral-mazes")

    def make_page(self) -> Page:
        """Trains the grid, then the best setting of each variant, and builds the page."""
        found = self.run_trials(self.grid_trials())
        grid = {variant: self._grid_curves(variant) for variant in VARIANTS}
        best = {variant: self.settings[best_setting(area(runs))] for variant, runs in grid.items()}
        found |= self.run_trials(self.best_trials(best))
        chosen = {
            variant: np.stack([self._curves(variant, setting, seed) for seed in self.fresh_seeds])
            for variant, setting in best.items()
        }
        findings = Findings(grid, chosen, best, optimal_returns(self.suite))
        return Page(
            text=self._text(findings, found),
            data=self._data(findings, found),
            pictures={
                "curves.png": curve_picture({"": findings.curves}, self.steps),
                "robustness.png": robustness_picture(findings.finals),
            },
        )

    @property
    def suite(self) -> Suite:
        """The mazes."""
        return family.mazes(self.mazes)

    @property
    def settings(self) -> list[Setting]:
        """The grid."""
        return [Setting(*pair) for pair in product(self.betas, self.learning_rates)]

    @property
    def fresh_seeds(self) -> range:
        """Seeds on which no setting was chosen."""
        return range(self.grid_seeds, self.grid_seeds + self.seeds)

    def grid_trials(self) -> list[Trial]:
        """One run per seed, setting and variant of the grid."""
        return [
            self._trial(variant, setting, seed)
            for seed in range(self.grid_seeds)
            for setting in self.settings
            for variant in VARIANTS
        ]

    def best_trials(self, best: Mapping[str, Setting]) -> list[Trial]:
        """One run of each variant's best setting per fresh seed."""
        return [
            self._trial(variant, setting, seed)
            for seed in self.fresh_seeds
            for variant, setting in best.items()
        ]

    def _trial(self, variant: str, setting: Setting, seed: int) -> Trial:
        method = Distral(
            **VARIANTS[variant],
            **setting._asdict(),
            num_envs=8,
            rollout_length=16,
            network=Network(encoder="mlp"),
        )
        name = _name(variant, setting, seed)
        options = run_options(self.steps, seed)
        return Trial(name=name, method=method, suite=self.suite, options=options)

    def _curves(self, variant: str, setting: Setting, seed: int) -> Array:
        """The training returns of a run.    (tasks, PARTS)"""
        run_dir = self.out / _name(variant, setting, seed)
        return run_curves(run_dir, self.suite.names(), self.steps)

    def _grid_curves(self, variant: str) -> Array:
        """The grid's learning curves, means over tasks.    (settings, seeds, PARTS)"""
        return np.stack(
            [
                [self._curves(variant, setting, seed).mean(0) for seed in range(self.grid_seeds)]
                for setting in self.settings
            ]
        )

    def _text(self, findings: Findings, found: Mapping[str, Any]) -> str:
        rows = [
            [
                variant,
                f"{findings.best[variant].beta:g}",
                f"{findings.best[variant].learning_rate:g}",
                row["area"].format(2),
                row["final"].format(2),
                row["share"].format_percent(),
            ]
            for variant, row in findings.table().items()
        ]
        head = ["variant", "beta", "learning rate", "area", "final return", "of the optimum, %"]
        claims = [
            [text, difference.format(2), verdict(difference)]
            for text, difference in findings.differences().items()
        ]
        spreads = [[variant, f"{spread(runs):.2f}"] for variant, runs in findings.finals.items()]
        edge = findings.at_the_edge(self.betas, self.learning_rates)
        return f"""# Distral on mazes

Seven variants of Distral learn {self.mazes} mazes together, {self.steps:,} environment steps in
all. Returns are training returns, means over the mazes; the optimal policy has
{findings.optimal.mean():.2f}. The area is the mean return over the run, the final return the mean
over its last tenth. Means over {self.seed_count} with their 95 % intervals.

{markdown_table(head, rows)}

Each variant was tried with {len(self.settings)} settings: beta {_join(self.betas)} and learning
rate {_join(self.learning_rates)}, with {self.grid_seeds} seeds each. The setting with the largest
area, shown in the table, then ran with {self.seeds} other seeds. The table, the curves and all
claims use these seeds alone, so the choice of the setting did not raise them. For {len(edge)} of
{len(findings.best)} variants ({", ".join(edge) or "none"}) the best setting is at the edge of the
grid, and there may be better ones beyond it. In the three A2C variants alpha is 0, and 1 / beta is
the weight of the entropy.

![learning curves](curves.png)

Learning curves of each variant's best setting, with 95 % bands.

![final returns of all settings](robustness.png)

Final returns of all settings and seeds of the grid, sorted. Their mean distance from the median:

{markdown_table(["variant", "distance"], spreads)}

## The paper's claims, and the results here

{markdown_table(["claim", "difference", "verdict"], claims)}

Differences are between runs of the same seed, with their 95 % intervals.

- "Faster" compares areas, "early" the areas of the first quarter, "ends" final returns.
- Distral is the mean of its four variants. KL and KL+ent are means over one and two columns; one
  column and two columns are means over KL and KL+ent.
- A claim held if the whole interval is above 0, and did not hold if the whole interval is below.
  One interval in twenty misses the true value by chance.

{self.footer(found.values())}

The docstring of `experiment.py` lists the differences from the paper (Teh 2017).
"""

    def _data(self, findings: Findings, found: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "command": self.command(),
            "hardware": format_hardware(found.values()),
            "optimal_returns": findings.optimal.tolist(),
            "best": {variant: setting._asdict() for variant, setting in findings.best.items()},
            "table": table_json(findings.table()),
            "claims": {
                text: {"verdict": verdict(difference), **interval_json(difference)}
                for text, difference in findings.differences().items()
            },
            "settings": [setting._asdict() for setting in self.settings],
            "grid": {
                variant: {"area": area(curves).tolist(), "final": final(curves).tolist()}
                for variant, curves in findings.grid.items()
            },
            "chosen": {
                variant: {name: of(curves).tolist() for name, of in MEASURES.items()}
                for variant, curves in findings.curves.items()
            },
            "final_by_maze": {
                variant: final(curves).tolist() for variant, curves in findings.chosen.items()
            },
            "wall_seconds": {name: result["wall_seconds"] for name, result in found.items()},
        }


def _name(variant: str, setting: Setting, seed: int) -> str:
    return f"{variant.replace(' ', '-')}-{setting.beta:g}-{setting.learning_rate:g}-{seed}"


def _join(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def robustness_picture(finals: Mapping[str, Array]) -> Figure:
    """The sorted final returns of each variant's grid.

    Args:
        finals: The final returns of each variant.    (settings, seeds)
    """
    from matplotlib.ticker import MaxNLocator

    figure, ((axes,),) = new_figure(1, 1, (6.5, 4.5))
    for variant, returns in finals.items():
        ordered = robustness(returns)
        axes.plot(np.arange(1, len(ordered) + 1), ordered, marker=".", label=variant)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("settings and seeds, the best first")
    axes.set_ylabel("final return")
    figure.legend(frameon=False, loc="outside upper center", ncols=4)
    return figure
