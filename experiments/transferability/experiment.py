"""How transferable the layers of a policy are (Yosinski 2014), for policies of MinAtar's games.

    rltransfer experiment run transferability

Base networks are trained by PPO on game B, on a near game A (B itself with its channels moved) and
on a far game A. Then PPO learns B anew with the first n layers of a base network and fresh layers
above them, for each n below the number of layers:

- AnB: the layers are A's and stay frozen. AnB+: they train on.
- BnB: the layers are B's own and stay frozen, which shows what splitting a network costs. BnB+:
  they train on.

Measured is the training return over the last tenth of the run, as Yosinski's figure 2 measures the
final accuracy, and the area ratio to the base network of B.

Differs from the paper:

- Games instead of halves of ImageNet; five layers instead of eight.
- The far game observes other channels: those of B that it lacks start with fresh weights, which
  AnB freezes too.
- The value head starts fresh in each run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rltransfer.agents import PPO
from rltransfer.errors import InputError, unknown
from rltransfer.experiments.common.checks import check_options
from rltransfer.experiments.common.experiment import PaperExperiment
from rltransfer.experiments.common.intervals import interval_json
from rltransfer.experiments.common.page import Page, format_hardware, markdown_table
from rltransfer.experiments.common.pictures import new_figure
from rltransfer.experiments.common.training_curve import smooth_curves
from rltransfer.experiments.common.trials import Trial, run_options
from rltransfer.experiments.zoo.experiment import GAMES, task_of
from rltransfer.metrics.curves import Curve
from rltransfer.metrics.intervals import Interval
from rltransfer.metrics.transfer import area_ratio, asymptotic_performance
from rltransfer.policies.network import Network
from rltransfer.tasks.task import Suite, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NETWORK = Network(
    encoder="grid", channels=(16,), hidden=(128, 128, 128), layer_norm=True, activation="relu"
)
LAYERS = 5
"""Layers of the network: a convolution, three fully connected ones, and the heads."""
DEPTHS = tuple(range(1, LAYERS))

WINDOW = 0.05
"""Training returns are smoothed over this fraction of a run's steps."""

SourceName = Literal["own", "near", "far"]
SOURCES: tuple[SourceName, ...] = ("own", "near", "far")

Treatment = tuple[SourceName, bool]
"""The source of the layers, and whether they stay frozen."""

NAMES: dict[Treatment, str] = {
    ("own", True): "BnB",
    ("own", False): "BnB+",
    ("near", True): "AnB, near",
    ("near", False): "AnB+, near",
    ("far", True): "AnB, far",
    ("far", False): "AnB+, far",
}

Curves = Mapping[tuple[Treatment, int], Sequence[Curve]]
"""The smoothed training returns on B, one per seed: by treatment and number of layers."""


@dataclass(frozen=True, kw_only=True)
class Transferability(PaperExperiment):
    """Which layers transfer (Yosinski 2014): 135 runs, hours on two CPU cores.

    AnB and AnB+ from a near and a far game, for each number of layers.
    """

    game: str = "SpaceInvaders"
    """Game B, which is learned anew; the near game is the same one with its channels moved."""
    far: str = "Asterix"
    """The far game."""
    steps: int = 500_000
    """Environment steps of each run, base networks included."""
    out: Path = Path("runs/transferability")

    def __post_init__(self) -> None:
        check_options(self)
        for name in (self.game, self.far):
            if name not in GAMES:
                raise unknown("game", name, GAMES)
        if self.game == self.far:
            raise InputError(f"game and far are both {self.game!r}: choose two games.")

    def make_page(self) -> Page:
        """Trains the base networks, then all others, and builds the page."""
        bases = self.run_trials(self.bases())
        others = self.run_trials(self.trials())
        base = self._smooth([_base_name("own", seed) for seed in range(self.seeds)])
        curves = {
            (treatment, depth): self._smooth(
                [_name(treatment, depth, seed) for seed in range(self.seeds)]
            )
            for treatment in NAMES
            for depth in DEPTHS
        }
        return self.page(base, curves, {**bases, **others})

    def bases(self) -> list[Trial]:
        """The base networks of each seed."""
        return [
            self._trial(_base_name(source, seed), self._task(source), seed)
            for seed in range(self.seeds)
            for source in SOURCES
        ]

    def trials(self) -> list[Trial]:
        """The runs on B from a base network of the same seed, by treatment and depth."""
        return [
            self._trial(
                _name((source, frozen), depth, seed),
                self._task("own"),
                seed,
                init_from=str(self.out / _base_name(source, seed)),
                init_match="inputs",
                init_layers=depth,
                freeze=f"layers:{depth}" if frozen else "",
            )
            for seed in range(self.seeds)
            for source, frozen in NAMES
            for depth in DEPTHS
        ]

    def _trial(self, name: str, task: Task, seed: int, **start: Any) -> Trial:
        method = PPO(network=NETWORK, num_envs=16, rollout_length=128, batch_size=256, epochs=3)
        options = {**run_options(self.steps, seed), **start}
        return Trial(name=name, method=method, suite=Suite.of(task), options=options)

    def _task(self, source: SourceName) -> Task:
        if source == "near":
            return Task(task_of(self.game), {"observation_transform": "rotate_channels"})
        return Task(task_of(self.far if source == "far" else self.game))

    def _smooth(self, names: Sequence[str]) -> list[Curve]:
        run_dirs = [self.out / name for name in names]
        return smooth_curves(run_dirs, task_of(self.game), WINDOW * self.steps)

    def page(self, base: Sequence[Curve], curves: Curves, results: Mapping[str, Any]) -> Page:
        """The page of the curves and of all runs' results, by name."""
        base_return = asymptotic_performance(base)
        returns = {key: asymptotic_performance(group) for key, group in curves.items()}
        areas = {key: area_ratio(group, base) for key, group in curves.items()}
        return Page(
            text=self._text(base_return, returns, areas, results),
            data={
                **self.option_values("game", "far", "steps", "seeds"),
                "hardware": format_hardware(results.values()),
                "base_return": interval_json(base_return),
                "final_return": _json(returns),
                "area_ratio": _json(areas),
                "wall_seconds": {name: one["wall_seconds"] for name, one in results.items()},
            },
            pictures={"picture.png": _picture(base_return, returns)},
        )

    def _text(
        self,
        base_return: Interval,
        returns: Mapping[tuple[Treatment, int], Interval],
        areas: Mapping[tuple[Treatment, int], Interval],
        results: Mapping[str, Any],
    ) -> str:
        def table(cells: Mapping[tuple[Treatment, int], Interval], digits: int) -> str:
            rows = [
                [name, *(cells[treatment, depth].format(digits) for depth in DEPTHS)]
                for treatment, name in NAMES.items()
            ]
            return markdown_table(["layers n", *map(str, DEPTHS)], rows)

        return f"""# How far up the layers of one game serve another

The training return on {self.game} over the last tenth of each run. The base network, with no layer
from elsewhere, ends at **{base_return.format(1)}**.

{table(returns, 1)}

![final returns by number of layers](picture.png)

The area under the curve of training returns, relative to the base network:

{table(areas, 2)}

- AnB: the first n of {LAYERS} layers are those of another game's network and stay frozen. AnB+:
  they train on. BnB and BnB+: the same with the network of {self.game} itself.
- near: {self.game} with its channels moved by one place; far: {self.far}.
- Intervals over {self.seed_count}: Student's for returns, Fieller's for ratios. {self.steps:,}
  steps per run; those of the source are not counted.

{self.footer(results.values())}

The docstring of `experiment.py` lists the differences from the paper.
"""


def _base_name(source: SourceName, seed: int) -> str:
    return f"base-{source}-{seed}"


def _name(treatment: Treatment, depth: int, seed: int) -> str:
    source, frozen = treatment
    return f"{source}-{depth}-{'frozen' if frozen else 'trained'}-{seed}"


def _json(cells: Mapping[tuple[Treatment, int], Interval]) -> dict[str, dict[str, Any]]:
    """The intervals by treatment, then by number of layers."""
    return {
        name: {str(depth): interval_json(cells[treatment, depth]) for depth in DEPTHS}
        for treatment, name in NAMES.items()
    }


def _picture(base: Interval, returns: Mapping[tuple[Treatment, int], Interval]) -> Figure:
    """Yosinski's figure 2: the final return over the number of layers, with intervals."""
    figure, ((axes,),) = new_figure(1, 1, (6.5, 4.0))
    axes.axhline(base.estimate, color="gray", linewidth=0.8, label="base network")
    for index, (treatment, name) in enumerate(NAMES.items()):
        row = [returns[treatment, depth] for depth in DEPTHS]
        ends = [(one.low, one.high) if one.is_known else (one.estimate,) * 2 for one in row]
        heights = np.array([one.estimate for one in row])
        # Beside each other, so that their intervals can be told apart.
        places = np.array(DEPTHS) + 0.06 * (index - (len(NAMES) - 1) / 2)
        style = "--" if treatment[1] else "-"
        errors = np.abs(np.array(ends).T - heights)
        axes.errorbar(
            places, heights, errors, color=f"C{index // 2}", linestyle=style, marker="o",
            markersize=3, capsize=2, label=name,
        )  # fmt: skip
    axes.set_xticks(DEPTHS)
    axes.set_xlabel("layers from the source")
    axes.set_ylabel("final training return")
    axes.legend(frameon=False, fontsize="small")
    return figure
