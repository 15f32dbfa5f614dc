"""Progressive networks on a soup of tasks: what columns gain over the paper's baselines.

    rltransfer experiment run progressive-minatar-soup

The tasks are MinAtar's Breakout, seen in different ways. For each pair of a source and a target,
PPO learns the target with the same settings and seeds in six ways (Rusu 2016, section 5.1):

- B1: one network from scratch.
- B2: the source's network, of which only the heads train.
- B3: the source's network, of which all layers train.
- B4: a new column on a frozen one with random weights.
- 2 columns: a new column on the source's.
- 3 columns: a new column on two: all sources, learned one after the other.

The transfer is the area under the curve of training returns, relative to the mean area of B1 on the
same target. The steps of the sources are not counted.

Differs from the paper:

- Breakout of MinAtar instead of Pong of Atari; PPO instead of A3C.
- All seeds count, one setting; the paper takes the mean of the best 3 of 25 jobs with different
  settings. The page shows the best 3 of all seeds as well.
- The sources are trained for as long as the option says, not until they no longer improve.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rltransfer.agents import PPO, Progressive
from rltransfer.errors import InputError
from rltransfer.experiments.common.checks import choice
from rltransfer.experiments.common.experiment import PaperExperiment
from rltransfer.experiments.common.intervals import interval_json
from rltransfer.experiments.common.page import Page, format_hardware, markdown_table
from rltransfer.experiments.common.pictures import curve_panels
from rltransfer.experiments.common.training_curve import smooth_curves
from rltransfer.experiments.common.trials import Trial, run_options
from rltransfer.metrics.curves import Curve, common_span
from rltransfer.metrics.intervals import Interval, mean_interval
from rltransfer.runs.curves import curves
from rltransfer.tasks.families import find_suite
from rltransfer.tasks.task import OBSERVATION_TRANSFORM, Suite, Task

PLAIN = "plain"
"""The name of the task as it is."""

PAPER = {"B1": 100, "B2": 35, "B3": 181, "B4": 134, "2 columns": 209, "3 columns": 222}
"""The transfer on the paper's Pong Soup, in per cent: the mean of its table 1."""

WITHOUT_SOURCE = ("B1", "B4")
BEST = 3
"""Seeds of the mean that the paper reports."""

PICTURE = "picture.png"

WINDOW = 0.05
"""Training returns are smoothed over this fraction of a run's steps."""

Pair = tuple[str, str]
"""A source and a target."""
Curves = Mapping[tuple[str, str, str], Sequence[Curve]]
"""The smoothed training returns, one per seed: by way, source ("" for none) and target."""


def views_of(soup: str) -> tuple[str, ...]:
    """The ways to see the task of a soup, a suite."""
    return tuple(task.kwargs.get(OBSERVATION_TRANSFORM, PLAIN) for task in find_suite(soup))


@dataclass(frozen=True, kw_only=True)
class ProgressiveSoup(PaperExperiment):
    """The options of both soups, and their runs and page."""

    steps: int = 250_000
    """Environment steps of each run on a target."""
    source_steps: int = 500_000
    """Environment steps of each run on a source."""
    sources: tuple[str, ...] = ()
    """Ways to see the task that are learned first, in their order."""
    targets: tuple[str, ...] = ()
    """Ways to see the task that are learned then."""

    def __post_init__(self) -> None:
        super().__post_init__()
        both = [name for name in self.targets if name in self.sources]
        if both:
            raise InputError(f"{both[0]} is a source and a target: choose other targets.")

    @property
    @abc.abstractmethod
    def task_id(self) -> str:
        """The task of the soup."""

    @property
    @abc.abstractmethod
    def settings(self) -> dict[str, Any]:
        """The settings of PPO, in every way."""

    def make_page(self) -> Page:
        """Trains the sources, then everything on the targets, and builds the page."""
        found: dict[str, Any] = {}
        for trials in (self.source_trials(), self.chain_trials(), self.target_trials()):
            found |= self.run_trials(trials)
        return self.page(self._curves(), found)

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways to learn a target; three columns need a second source."""
        return tuple(PAPER)[: 6 if len(self.sources) > 1 else 5]

    @property
    def pairs(self) -> list[Pair]:
        """All pairs of a source and a target."""
        return [(source, target) for source in self.sources for target in self.targets]

    def source_trials(self) -> list[Trial]:
        """A network of each source, and one with random weights, for each seed."""
        random = PPO(**{**self.settings, "learning_rate": 0.0})
        one_rollout = random.num_envs * random.rollout_length
        return [
            *(
                self._trial(f"source-{source}-{seed}", source, seed, self.source_steps)
                for seed in range(self.seeds)
                for source in self.sources
            ),
            *(
                Trial(
                    name=f"random-{seed}",
                    method=random,
                    suite=self._suite(self.sources[0]),
                    options=run_options(one_rollout, seed),
                )
                for seed in range(self.seeds)
            ),
        ]

    def chain_trials(self) -> list[Trial]:
        """The second column of the three."""
        if len(self.sources) < 2:
            return []
        return [
            self._trial(
                f"chain-{seed}", self.sources[1], seed, self.source_steps,
                columns=f"source-{self.sources[0]}-{seed}",
            )
            for seed in range(self.seeds)
        ]  # fmt: skip

    def target_trials(self) -> list[Trial]:
        """One run per seed, way, source where the way needs one, and target; the longest first."""
        return [
            self._target_trial(way, source, target, seed)
            for seed in range(self.seeds)
            for way in reversed(self.ways)
            for source in self._sources_of(way)
            for target in self.targets
        ]

    def _target_trial(self, way: str, source: str, target: str, seed: int) -> Trial:
        make = functools.partial(
            self._trial, _name(way, source, target, seed), target, seed, self.steps
        )
        learned = f"source-{source}-{seed}"
        match way:
            case "B1":
                return make()
            case "B2":
                return make(init_from=str(self.out / learned), freeze="encoder")
            case "B3":
                return make(init_from=str(self.out / learned))
            case "B4":
                return make(columns=f"random-{seed}")
            case "2 columns":
                return make(columns=learned)
        return make(columns=f"chain-{seed}")

    def _trial(
        self, name: str, view: str, seed: int, steps: int, columns: str = "", **start: Any
    ) -> Trial:
        method: PPO = PPO(**self.settings)
        if columns:
            method = Progressive(columns=(str(self.out / columns),), **self.settings)
        options = {**run_options(steps, seed), **start}
        return Trial(name=name, method=method, suite=self._suite(view), options=options)

    def _suite(self, view: str) -> Suite:
        kwargs = {} if view == PLAIN else {OBSERVATION_TRANSFORM: view}
        return Suite.of(Task(self.task_id, kwargs))

    def _sources_of(self, way: str) -> tuple[str, ...]:
        return ("",) if way in (*WITHOUT_SOURCE, "3 columns") else self.sources

    def _curves(self) -> Curves:
        return {
            (way, source, target): smooth_curves(
                [self.out / _name(way, source, target, seed) for seed in range(self.seeds)],
                self.task_id,
                WINDOW * self.steps,
            )
            for way in self.ways
            for source in self._sources_of(way)
            for target in self.targets
        }

    def page(self, found: Curves, results: Mapping[str, Any]) -> Page:
        """The page of the curves and of all runs' results, by name."""
        areas = _areas(found)
        transfers = {way: self._transfer(areas, way) for way in self.ways}
        pairs = {
            way: {pair: self._pair_transfer(areas, way, pair) for pair in self.pairs}
            for way in self.ways
        }
        best = {
            way: float(np.mean([self._pair_transfer(areas, way, one, BEST) for one in self.pairs]))
            for way in self.ways
        }
        used = self._sensitivities()
        return Page(
            text=self._text(transfers, pairs, best, used, results),
            data={
                **self.option_values("steps", "source_steps", "seeds", "sources", "targets"),
                "hardware": format_hardware(results.values()),
                "transfer": {way: interval_json(one) for way, one in transfers.items()},
                "best_of_seeds": best,
                "pairs": {
                    way: {" to ".join(pair): one for pair, one in row.items()}
                    for way, row in pairs.items()
                },
                "fisher_sensitivity": used,
                "areas": {" ".join(filter(None, key)): row for key, row in areas.items()},
                "wall_seconds": {name: one["wall_seconds"] for name, one in results.items()},
            },
            pictures={"picture.png": self._picture(found)},
        )

    def _key(self, way: str, pair: Pair) -> tuple[str, str, str]:
        return way, (pair[0] if "" not in self._sources_of(way) else ""), pair[1]

    def _transfer(self, areas: Mapping[tuple[str, str, str], list[float]], way: str) -> Interval:
        """The mean transfer over all pairs, with the interval over seeds."""
        ratios = [
            np.array(areas[self._key(way, pair)]) / np.mean(areas["B1", "", pair[1]])
            for pair in self.pairs
        ]
        return mean_interval(np.mean(ratios, axis=0).tolist())

    def _pair_transfer(
        self, areas: Mapping[tuple[str, str, str], list[float]], way: str, pair: Pair, best: int = 0
    ) -> float:
        """The transfer of one pair: of all seeds, or of the best few in both groups."""
        groups = (areas[self._key(way, pair)], areas["B1", "", pair[1]])
        above, below = (np.mean(sorted(group)[-best:]) for group in groups)
        return float(above / below)

    def _sensitivities(self) -> dict[str, list[float]]:
        """The first column's Fisher sensitivity in each layer at the end of runs with two."""
        found = {}
        for way in ("B4", "2 columns"):
            layers: dict[str, list[float]] = {}
            for source in self._sources_of(way):
                for target in self.targets:
                    for seed in range(self.seeds):
                        run_dir = self.out / _name(way, source, target, seed)
                        points = curves(run_dir, "train/fisher_sensitivity/layer-*-column-1")
                        for tag, value in {one.tag: one.value for one in points}.items():
                            layers.setdefault(tag, []).append(value)
            found[way] = [float(np.mean(values)) for _, values in sorted(layers.items())]
        return found

    def _picture(self, found: Curves) -> Any:
        return curve_panels(
            {
                target: {
                    way: [
                        curve
                        for source in self._sources_of(way)
                        for curve in found[way, source, target]
                    ]
                    for way in self.ways
                }
                for target in self.targets
            }
        )

    def _text(
        self,
        transfers: Mapping[str, Interval],
        pairs: Mapping[str, Mapping[Pair, float]],
        best: Mapping[str, float],
        used: Mapping[str, Sequence[float]],
        results: Mapping[str, Any],
    ) -> str:
        rows = [
            [
                way,
                one.format_percent(),
                f"{100 * np.median(list(pairs[way].values())):.0f}",
                f"{100 * best[way]:.0f}",
                str(PAPER[way]),
            ]
            for way, one in transfers.items()
        ]
        head = ["", "mean over pairs", "median of pairs", f"mean, best {BEST} seeds", "paper, Pong"]
        matrix = [
            [way, *(f"{100 * value:.0f}" for value in row.values())] for way, row in pairs.items()
        ]
        layers = [[way, *(f"{value:.2f}" for value in values)] for way, values in used.items()]
        several = "" if self.seeds > BEST else f" With {self.seed_count}, these are all."
        return f"""# Progressive networks: {len(self.pairs)} pairs of a soup

The area under the curve of training returns on the target, relative to B1 (from scratch), in per
cent. Brackets are 95 % intervals over {self.seed_count}.{several}

{markdown_table(head, rows)}

- B2, B3: the source's network, of which the heads, or all layers, train. B4: a column on a frozen
  one with random weights.
- {self.steps:,} steps per run on a target; the {self.source_steps:,} of each source are not
  counted.

![training returns by target]({PICTURE})

Each pair, the mean over seeds:

{markdown_table(["", *map(" to ".join, self.pairs)], matrix)}

How much the actions depend on the first column at the end of the runs with two, by its average
Fisher sensitivity (the new column has the rest):

{markdown_table(["", *(f"layer {index}" for index in range(1, len(used["B4"]) + 1))], layers)}

{self.footer(results.values())}

The docstring of `experiment.py` lists the differences from the paper.
"""


PICTURE = "picture.png"

VIEWS = views_of("minatar-soup")


@dataclass(frozen=True, kw_only=True)
class ProgressiveMinAtarSoup(ProgressiveSoup):
    """Progressive networks on MinAtar's Breakout (Rusu 2016): 200 runs, two hours on two CPU cores.

    Two and three columns against the paper's baselines.
    """

    sources: tuple[str, ...] = choice("view", VIEWS, (PLAIN, "noise"))
    """Ways to see the task that are learned first, in their order."""
    targets: tuple[str, ...] = choice(
        "view", VIEWS, ("invert", "rotate_channels", "shift", "flip_vertical")
    )
    """Ways to see the task that are learned then."""
    out: Path = Path("runs/progressive-minatar-soup")

    @property
    def task_id(self) -> str:
        """MinAtar's Breakout."""
        return "rltransfer/MinAtar-Breakout-v0"

    @property
    def settings(self) -> dict[str, Any]:
        """As in the experiment actor-mimic."""
        return {"num_envs": 16, "rollout_length": 128, "batch_size": 256, "epochs": 3}


def _areas(found: Curves) -> dict[tuple[str, str, str], list[float]]:
    """The mean return of each run over the steps that all curves on its target cover."""
    areas = {}
    for key, group in found.items():
        same_target = [one for other, rest in found.items() if other[2] == key[2] for one in rest]
        span = common_span(same_target)
        areas[key] = [curve.mean_between(*span) for curve in group]
    return areas


def _name(way: str, source: str, target: str, seed: int) -> str:
    return "-".join(filter(None, (way.replace(" ", "-"), source, target, str(seed))))
