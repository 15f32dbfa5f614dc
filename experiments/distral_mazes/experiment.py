"""Distral on mazes: the paper's seven variants, nine settings of each, and its claims put to test.

    rltransfer experiment run distral-mazes

Teh 2017 (arXiv 1707.04175), section 4.2, on eight mazes of `envs/gridworld` that a network learns
together. The paper says that Distral learns faster than its three baselines and ends higher; that
two columns are faster than one; that the divergence alone (KL) is faster early and ends lower than
divergence and entropy (KL+ent); and that the baselines which share a network are unstable: of that
the page shows how far each variant's results spread over the grid, and says no more.

Every variant runs with every beta and learning rate, on the grid's seeds. The setting of each with
the largest area under its learning curve runs once more, on seeds that the grid did not have: what
the page compares owes nothing to the choice. Differences are taken between runs of the same seed.
Where the paper speaks of Distral, the mean of its four variants counts: nothing is picked.

Differs from the paper: gridworlds, seen from above and in part, for the mazes of DMLab; A2C, Adam
and no LSTM, as `agents/distral.py` says; settings are chosen on seeds of their own; rewards are
not scaled, and betas fit this environment's, where a goal is worth 1. The grid was moved once, as
most of the best settings lay at the edge of the first one; the page says how many still do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from rltransfer.agents import Distral
from rltransfer.envs.gridworld import family
from rltransfer.envs.gridworld.planning import Planner
from rltransfer.envs.gridworld.vector_env import GridworldVectorEnv
from rltransfer.experiments.common.checks import check_options, page_folder
from rltransfer.experiments.common.distral_curves import (
    VARIANTS,
    Array,
    area,
    curve_picture,
    early,
    final,
    run_curves,
    run_options,
)
from rltransfer.experiments.common.intervals import Interval, interval_json, mean_interval
from rltransfer.experiments.common.page import (
    footer,
    format_command,
    format_hardware,
    markdown_table,
    write_results,
)
from rltransfer.experiments.common.trials import Trial, run_trials
from rltransfer.machine.terminal import console
from rltransfer.policies.network import Network
from rltransfer.tasks.task import Suite

BASELINES = ("A2C", "A2C multitask", "A2C 2col")
DISTRAL = ("KL 1col", "KL 2col", "KL+ent 1col", "KL+ent 2col")
ONE_COLUMN, TWO_COLUMNS = ("KL 1col", "KL+ent 1col"), ("KL 2col", "KL+ent 2col")
KL, KL_AND_ENTROPY = ("KL 1col", "KL 2col"), ("KL+ent 1col", "KL+ent 2col")

MEASURES = {"area": area, "early": early, "final": final}
"""What is read off a curve."""


class Setting(NamedTuple):
    """What the grid varies."""

    beta: float
    learning_rate: float


@dataclass(frozen=True)
class Claim:
    """That some variants have more of something than others: the means over each are compared."""

    text: str
    """What the paper says."""
    measure: Literal["area", "early", "final"]
    """What is compared."""
    more: tuple[str, ...]
    """The variants that have more of it."""
    less: tuple[str, ...]
    """The variants that have less."""

    def difference(self, curves: Mapping[str, Array]) -> Interval:
        """Returns how much more it is, over pairs of the same seed.

        Args:
            curves: Of each variant, by seed.    (seeds, PARTS)
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
"""The paper's, but for that of stability: nine settings are chosen, and no sample of any."""


def best_setting(areas: Array) -> int:
    """Returns the number of the setting with the largest mean; of equals the first.

    Args:
        areas: The area under the curve of each run.    (settings, seeds)
    """
    return int(areas.mean(1).argmax())


def robustness(finals: Array) -> Array:
    """Returns the final returns of all settings and seeds, the highest first.    (runs,)

    Args:
        finals: Of each run.    (settings, seeds)
    """
    return np.sort(finals, axis=None)[::-1]


def spread(finals: Array) -> float:
    """Returns how far a grid's runs lie from their median, on average.

    Args:
        finals: The final return of each run.    (settings, seeds)
    """
    return float(np.abs(finals - np.median(finals)).mean())


def verdict(difference: Interval) -> str:
    """Returns whether a claim held: it says that the difference is above 0."""
    word: str = difference.against(0, "held", "did not hold")
    return word


def optimal_returns(suite: Suite) -> Array:
    """Returns the mean return of the best policy of each maze.    (tasks,)"""
    best = []
    for task in suite.tasks:
        env = family.FAMILY.make(task, 1, torch.device("cpu"))
        assert isinstance(env, GridworldVectorEnv)
        best.append(Planner(env.rules).optimal_return(env.time_limit))
    return np.array(best)


@dataclass(frozen=True)
class Findings:
    """The curves of all runs, and what they say of each variant."""

    grid: Mapping[str, Array]
    """Of each variant, means over tasks.                     (settings, seeds, PARTS)"""
    chosen: Mapping[str, Array]
    """Of each variant's best setting, on fresh seeds.        (seeds, tasks, PARTS)"""
    best: Mapping[str, Setting]
    """Each variant's best setting."""
    optimal: Array
    """The mean return of the best policy of each maze.       (tasks,)"""

    @property
    def curves(self) -> dict[str, Array]:
        """Each variant's learning curves on fresh seeds, means over tasks.    (seeds, PARTS)"""
        return {variant: curves.mean(1) for variant, curves in self.chosen.items()}

    @property
    def finals(self) -> dict[str, Array]:
        """The final return of each run of the grid.    (settings, seeds)"""
        return {variant: final(curves) for variant, curves in self.grid.items()}

    def table(self) -> dict[str, dict[str, Interval]]:
        """Returns each variant's area, final return and share of the mazes' optimum."""
        return {
            variant: {
                "area": mean_interval(area(curves.mean(1)).tolist()),
                "final": mean_interval(final(curves.mean(1)).tolist()),
                "share": mean_interval((final(curves) / self.optimal).mean(1).tolist()),
            }
            for variant, curves in self.chosen.items()
        }

    def differences(self) -> dict[str, Interval]:
        """Returns what each of the paper's claims says is above 0."""
        curves = self.curves
        return {claim.text: claim.difference(curves) for claim in CLAIMS}

    def at_the_edge(self, *axes: Sequence[float]) -> list[str]:
        """Returns the variants whose best setting is the smallest or largest on an axis.

        Args:
            axes: The grid's values, in the order of `Setting`.
        """
        return [
            variant
            for variant, setting in self.best.items()
            if any(
                value in (min(axis), max(axis)) for value, axis in zip(setting, axes, strict=True)
            )
        ]


@dataclass(frozen=True, kw_only=True)
class DistralMazes:
    """Distral's variants on mazes (Teh 2017): 161 runs, half an hour on two CPU cores.

    Seven variants in nine settings with two seeds, and the best of each with five others.
    """

    mazes: int = 8
    """How many mazes are learned together."""
    betas: tuple[float, ...] = (10.0, 30.0, 100.0)
    """The grid's; a nat is worth 1 / beta, a goal 1."""
    learning_rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    """The grid's."""
    grid_seeds: int = 2
    """Seeds of each of the grid's settings, counted from 0."""
    seeds: int = 5
    """Seeds of each variant's best setting, counted from `grid_seeds`."""
    steps: int = 1_000_000
    """Environment steps of each run, over all mazes."""
    jobs: int = 0
    """Trials at once; 0 means one for each core."""
    out: Path = Path("runs/distral-mazes")
    """Folder of the runs."""
    results: Path | None = None
    """Folder for the page, its pictures and its figures; that of the runs if not given."""

    def __post_init__(self) -> None:
        check_options(self)

    def run(self) -> None:
        """Runs what has not been run yet, and writes the page."""
        folder = page_folder(self.results, self.out)
        found = run_trials(self.grid_trials(), self.out, self.jobs)
        grid = {variant: self._grid_curves(variant) for variant in VARIANTS}
        best = {
            variant: self.settings[best_setting(area(curves))] for variant, curves in grid.items()
        }
        found |= run_trials(self.best_trials(best), self.out, self.jobs)
        chosen = {
            variant: np.stack([self._curves(variant, setting, seed) for seed in self.fresh_seeds])
            for variant, setting in best.items()
        }
        self._write(folder, Findings(grid, chosen, best, optimal_returns(self.suite)), found)
        console().print(f"written: {folder / 'RESULTS.md'}", highlight=False)

    @property
    def suite(self) -> Suite:
        """The mazes."""
        suite: Suite = family.mazes(self.mazes)
        return suite

    @property
    def settings(self) -> list[Setting]:
        """The grid."""
        return [Setting(*pair) for pair in product(self.betas, self.learning_rates)]

    @property
    def fresh_seeds(self) -> range:
        """Seeds by which no setting was chosen."""
        return range(self.grid_seeds, self.grid_seeds + self.seeds)

    def grid_trials(self) -> list[Trial]:
        """Returns every combination of the grid's seeds, settings and variants."""
        return [
            self._trial(variant, setting, seed)
            for seed in range(self.grid_seeds)
            for setting in self.settings
            for variant in VARIANTS
        ]

    def best_trials(self, best: Mapping[str, Setting]) -> list[Trial]:
        """Returns every variant in its best setting, on each of the fresh seeds."""
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
        name = trial_name(variant, setting, seed)
        options = run_options(self.steps, seed)
        return Trial(name=name, method=method, suite=self.suite, options=options)

    def _curves(self, variant: str, setting: Setting, seed: int) -> Array:
        """Returns the training returns of a run.    (tasks, PARTS)"""
        run_dir = self.out / trial_name(variant, setting, seed)
        return run_curves(run_dir, self.suite.names(), self.steps)

    def _grid_curves(self, variant: str) -> Array:
        """Returns the grid's learning curves, means over tasks.    (settings, seeds, PARTS)"""
        return np.stack(
            [
                [self._curves(variant, setting, seed).mean(0) for seed in range(self.grid_seeds)]
                for setting in self.settings
            ]
        )

    def _write(self, folder: Path, findings: Findings, found: Mapping[str, Any]) -> None:
        """Writes the page, the pictures and the figures.

        Args:
            folder: Where to.
            findings: What the runs' curves say.
            found: The runs' results, by name.
        """
        write_results(folder, self._page(findings, found), self._data(findings, found))
        curve_picture(folder / "curves.png", {"": findings.curves}, self.steps)
        robustness_picture(folder / "robustness.png", findings.finals)

    def _page(self, findings: Findings, found: Mapping[str, Any]) -> str:
        """Returns the page."""
        rows = [
            [
                variant,
                f"{findings.best[variant].beta:g}",
                f"{findings.best[variant].learning_rate:g}",
                row["area"].told(2),
                row["final"].told(2),
                row["share"].percent(),
            ]
            for variant, row in findings.table().items()
        ]
        head = ["variant", "beta", "learning rate", "area", "final return", "of the optimum, %"]
        claims = [
            [text, difference.told(2), verdict(difference)]
            for text, difference in findings.differences().items()
        ]
        spreads = [
            [variant, f"{spread(finals):.2f}"] for variant, finals in findings.finals.items()
        ]
        edge = findings.at_the_edge(self.betas, self.learning_rates)
        return f"""# Distral on mazes

Seven variants of Distral learn {self.mazes} mazes together, {self.steps:,} environment steps in
all. Returns are those of training, means over the mazes; the best policy has
{findings.optimal.mean():.2f}. Area: mean return over the run. Final return: over its last tenth.
Means over {self.seeds} seeds with their 95 % intervals.

{markdown_table(head, rows)}

Each variant has {len(self.settings)} settings, of {_listed(self.betas)} for beta and
{_listed(self.learning_rates)} for the learning rate. Each setting ran with {self.grid_seeds} seeds;
the one with the largest area, which the table names, then ran with {self.seeds} others: the
table, the curves and all claims are of these alone, so that choosing did not raise them. The best
settings at the grid's edge, {len(edge)} of {len(findings.best)} ({", ".join(edge) or "none"}), may
have better ones beyond it. With alpha = 0, in the three A2C, 1 / beta is the weight of the entropy.

![learning curves](curves.png)

Learning curves of each variant's best setting, with 95 % bands.

![final returns of all settings](robustness.png)

Final returns of all settings and seeds of the grid, sorted. How far they lie from their median, on
average:

{markdown_table(["variant", "distance"], spreads)}

## What the paper says, and what came out here

{markdown_table(["claim", "difference", "verdict"], claims)}

"Faster" compares areas, "early" those of the first quarter, "ends" final returns: differences
between runs of the same seed, with their 95 % intervals. Distral is the mean of its four variants,
KL and KL+ent are means of one column and two, one column and two are means of KL and KL+ent. A
claim held if all of its interval is above 0, and did not hold if all of it is below; one interval
in twenty misses the truth by chance.

{footer("distral-mazes", self, found.values())}

What differs from the paper (Teh 2017) stands in the module's docstring.
"""

    def _data(self, findings: Findings, found: Mapping[str, Any]) -> dict[str, Any]:
        """Returns everything that the page was made from."""
        return {
            "command": format_command("distral-mazes", self),
            "hardware": format_hardware(found.values()),
            "optimal_returns": findings.optimal.tolist(),
            "best": {variant: setting._asdict() for variant, setting in findings.best.items()},
            "table": {
                variant: {name: interval_json(interval) for name, interval in row.items()}
                for variant, row in findings.table().items()
            },
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


def trial_name(variant: str, setting: Setting, seed: int) -> str:
    """Returns the name of a run's folder."""
    return f"{variant.replace(' ', '-')}-{setting.beta:g}-{setting.learning_rate:g}-{seed}"


def _listed(values: Sequence[float], between: str = ", ") -> str:
    return between.join(f"{value:g}" for value in values)


def robustness_picture(path: Path, finals: Mapping[str, Array]) -> None:
    """Draws the sorted final returns of each variant's grid.

    Args:
        path: The PNG file.
        finals: Of each variant.    (settings, seeds)
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axes = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
    for variant, returns in finals.items():
        ordered = robustness(returns)
        axes.plot(np.arange(1, len(ordered) + 1), ordered, marker=".", label=variant)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("settings and seeds, the best first")
    axes.set_ylabel("final return")
    figure.legend(frameon=False, loc="outside upper center", ncols=4)
    figure.savefig(path, dpi=120)
    plt.close(figure)
