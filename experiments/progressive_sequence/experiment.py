"""A sequence of five tasks: what is forgotten, what is transferred, and what it costs.

    rltransfer experiment run progressive-sequence

Five views of MinAtar's Breakout are learned one after the other by PPO:

- finetuning: one network, each task begins with the weights of the last one;
- ewc: the same with elastic weight consolidation (Kirkpatrick 2017);
- progressive: a new column for each task (Rusu 2016);
- compress: progressive networks of two columns, of which the second is distilled into the first
  after each task, with elastic weight consolidation (Progress & Compress, Schwarz 2018).

Measured after the last task, relative to the returns of networks that learned one task alone:

- return: the mean over all five tasks;
- forgetting: how far the returns on the first four are below their best (Chaudhry 2018);
- transfer: the area under the curves of training returns on the last four, relative to alone.

The learners get no sign of a task's end or name, but for the start of a new run. Columns are chosen
by the task in an evaluation, as in the paper; the other methods have one network for all tasks.
"""

from __future__ import annotations

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
from rltransfer.experiments.progressive_minatar_soup.experiment import (
    PLAIN,
    VIEWS,
    WINDOW,
    ProgressiveMinAtarSoup,
)
from rltransfer.files.checkpoint import column_folder, task_folder
from rltransfer.metrics.continual import forgetting
from rltransfer.metrics.curves import Curve, common_span
from rltransfer.metrics.intervals import Interval, mean_interval
from rltransfer.runs.sequence import evaluations, returns_matrix
from rltransfer.tasks.task import Suite, transformed_suite

METHODS = ("finetuning", "ewc", "progressive", "compress")
PICTURE = "picture.png"


@dataclass(frozen=True, kw_only=True)
class ProgressiveSequence(PaperExperiment):
    """Forgetting and transfer over five views of Breakout: 45 runs, four hours on two CPU cores.

    Finetuning, EWC, progressive networks, Progress & Compress.
    """

    views: tuple[str, ...] = choice(
        "view", VIEWS, (PLAIN, "noise", "invert", "rotate_channels", "flip_vertical")
    )
    """Ways to see the task, in the order of the sequence."""
    methods: tuple[str, ...] = choice("method", METHODS)
    """Methods that learn the sequence."""
    steps: int = 250_000
    """Environment steps of each task."""
    compress_steps: int = 250_000
    """Environment steps of each distillation of compress."""
    ewc_weight: float = 1000.0
    """Weight of the pull of elastic weight consolidation."""
    episodes: int = 100
    """Episodes of each evaluation."""
    out: Path = Path("runs/progressive-sequence")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.views) < 2:
            raise InputError("views has a single view: a sequence needs at least two.")

    def make_page(self) -> Page:
        """Learns each task alone and all in turn, and builds the page."""
        results = self.run_trials([*self.sequence_trials(), *self.alone_trials()])
        return self.page(results)

    @property
    def suite(self) -> Suite:
        """The tasks."""
        transforms = ["" if view == PLAIN else view for view in self.views]
        return transformed_suite("sequence", _soup().task_id, transforms)

    def alone_trials(self) -> list[Trial]:
        """One run per seed and task."""
        return [
            Trial(
                name=f"alone-{view}-{seed}",
                method=PPO(**_soup().settings),
                suite=Suite.of(task),
                options=run_options(self.steps, seed, self.episodes),
            )
            for seed in range(self.seeds)
            for view, task in zip(self.views, self.suite, strict=True)
        ]

    def sequence_trials(self) -> list[Trial]:
        """One sequence per seed and method, the longest first."""
        return [
            Trial(
                name=f"{method}-{seed}",
                method=(Progressive if method in METHODS[2:] else PPO)(**_soup().settings),
                suite=self.suite,
                options={
                    **run_options(self.steps, seed, self.episodes),
                    "sequential": True,
                    "ewc_weight": self.ewc_weight if method in ("ewc", "compress") else 0.0,
                    "compress_steps": self.compress_steps if method == "compress" else 0,
                },
            )
            for seed in range(self.seeds)
            for method in reversed(self.methods)
        ]

    def page(self, results: Mapping[str, Mapping[str, Any]]) -> Page:
        """The page of all runs' results, by name."""
        seeds = range(self.seeds)
        alone = self._alone(results)
        returns = {
            method: [self._matrix(method, seed) / alone[seed] for seed in seeds]
            for method in self.methods
        }
        curves = self._curves()
        rows = {
            method: {
                "return": mean_interval([float(one[-1].mean()) for one in each]),
                "forgetting": forgetting(np.stack(each)),
                "transfer": self._transfer(curves, method),
            }
            for method, each in returns.items()
        }
        costs = {
            method: (
                float(results[f"{method}-0"]["student_parameters"]),
                float(np.mean([results[f"{method}-{seed}"]["wall_seconds"] for seed in seeds])),
            )
            for method in self.methods
        }
        return Page(
            text=self._text(rows, returns, costs, alone, results),
            data={
                **self.option_values(
                    "steps", "compress_steps", "ewc_weight", "seeds", "episodes", "views"
                ),
                "hardware": format_hardware(results.values()),
                "table": {
                    method: {name: interval_json(one) for name, one in row.items()}
                    for method, row in rows.items()
                },
                "returns": {
                    method: [self._matrix(method, seed).tolist() for seed in seeds]
                    for method in self.methods
                },
                "alone": [row.tolist() for row in alone],
                "parameters": {method: cost[0] for method, cost in costs.items()},
                "wall_seconds": {name: one["wall_seconds"] for name, one in results.items()},
            },
            pictures={PICTURE: curve_panels(curves)},
        )

    def _alone(self, results: Mapping[str, Mapping[str, Any]]) -> list[Any]:
        """For each seed the return on each task of a network that learned it alone."""
        return [
            np.array(
                [
                    next(iter(results[f"alone-{view}-{seed}"]["tasks"].values()))["return_mean"]
                    for view in self.views
                ]
            )
            for seed in range(self.seeds)
        ]

    def _matrix(self, method: str, seed: int) -> Any:
        return returns_matrix(evaluations(self.out / f"{method}-{seed}"))

    def _curves(self) -> dict[str, dict[str, list[Curve]]]:
        """The smoothed training returns on each task, by view, then by method."""
        found: dict[str, dict[str, list[Curve]]] = {}
        for number, view in enumerate(self.views, 1):
            folders = {
                "alone": [self.out / f"alone-{view}-{seed}" for seed in range(self.seeds)],
                **{
                    method: [self._run_dir(method, seed, number) for seed in range(self.seeds)]
                    for method in self.methods
                },
            }
            found[view] = {
                name: smooth_curves(each, _soup().task_id, WINDOW * self.steps)
                for name, each in folders.items()
            }
        return found

    def _run_dir(self, method: str, seed: int, number: int) -> Path:
        """The run that learned a task with RL."""
        folder = task_folder(self.out / f"{method}-{seed}", number)
        return column_folder(folder) if method == "compress" else folder

    def _transfer(self, curves: Mapping[str, Mapping[str, list[Curve]]], method: str) -> Interval:
        """The mean over all tasks but the first of the areas relative to alone."""
        ratios = []
        for view in self.views[1:]:
            span = common_span([*curves[view][method], *curves[view]["alone"]])
            base = np.mean([curve.mean_between(*span) for curve in curves[view]["alone"]])
            ratios.append([curve.mean_between(*span) / base for curve in curves[view][method]])
        return mean_interval(np.mean(ratios, axis=0).tolist())

    def _text(
        self,
        rows: Mapping[str, Mapping[str, Interval]],
        returns: Mapping[str, Sequence[Any]],
        costs: Mapping[str, tuple[float, float]],
        alone: Sequence[Any],
        results: Mapping[str, Mapping[str, Any]],
    ) -> str:
        table = [
            [
                method,
                *(one.format_percent() for one in row.values()),
                f"{costs[method][0]:,.0f}",
                f"{costs[method][1]:.0f}",
            ]
            for method, row in rows.items()
        ]
        head = ["", "return", "forgetting", "transfer", "parameters", "seconds"]
        final = [
            [method, *(f"{100 * value:.0f}" for value in np.mean([one[-1] for one in each], 0))]
            for method, each in returns.items()
        ]
        learned = [
            [method, *(f"{100 * v:.0f}" for v in np.mean([np.diag(one) for one in each], 0))]
            for method, each in returns.items()
        ]
        means = ", ".join(f"{view} {value:.1f}" for view, value in zip(
            self.views, np.mean(alone, 0), strict=True))  # fmt: skip
        return f"""# A sequence of {len(self.views)} tasks

In per cent of the returns of networks that learned one task alone. Brackets are 95 % intervals
over {self.seed_count}.

{markdown_table(head, table)}

- alone, the returns are: {means}.
- return: the mean over all tasks, after the last one.
- forgetting: how far the first {len(self.views) - 1} are below their best; 0 is nothing.
- transfer: the area under the curves of training returns on the last {len(self.views) - 1},
  relative to alone.
- parameters: what acting needs after the last task. seconds: training, all tasks.

After the last task, by task:

{markdown_table(["", *self.views], final)}

When each was learned:

{markdown_table(["", *self.views], learned)}

![training returns by task]({PICTURE})

{self.steps:,} steps per task, {self.compress_steps:,} more for each distillation of compress;
ewc_weight {self.ewc_weight:g}.

{self.footer(results.values())}

The docstring of `experiment.py` says what each row is.
"""


def _soup() -> ProgressiveMinAtarSoup:
    return ProgressiveMinAtarSoup()
