"""PPO with its defaults on eight control tasks.

    rltransfer experiment run control

The tasks are Gymnasium's five of classic control and three of Box2D, LunarLander in both of its
forms. No option is tuned to a task; only the number of steps differs. A task counts as learned if
the mean return over seeds reaches its bar: Gymnasium's own threshold, and -200 in Pendulum, which
has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rltransfer.agents.ppo import PPO
from rltransfer.experiments.common.checks import choice
from rltransfer.experiments.common.experiment import PaperExperiment
from rltransfer.experiments.common.page import Page, format_hardware, markdown_table
from rltransfer.experiments.common.trials import Trial, run_options


class Bar(NamedTuple):
    """When a task counts as learned."""

    steps: int
    """Environment steps of a run."""
    mean_return: float
    """The mean return to reach."""


BARS = {
    "BipedalWalker-v3": Bar(2_000_000, 300.0),
    "LunarLander-v3": Bar(1_000_000, 200.0),
    "LunarLanderContinuous-v3": Bar(1_000_000, 200.0),
    "MountainCar-v0": Bar(500_000, -110.0),
    "Pendulum-v1": Bar(500_000, -200.0),
    "MountainCarContinuous-v0": Bar(200_000, 90.0),
    "Acrobot-v1": Bar(200_000, -100.0),
    "CartPole-v1": Bar(200_000, 475.0),
}
"""The tasks, those with the longest runs first."""


@dataclass(frozen=True, kw_only=True)
class Control(PaperExperiment):
    """PPO's defaults on eight control tasks: 24 runs, two hours on two CPU cores."""

    tasks: tuple[str, ...] = choice("task", BARS)
    """Tasks to train on."""
    seeds: int = 3
    """Number of seeds per task, counted from 0."""
    steps: int = 0
    """Environment steps of each run; 0 means 0.2 to 2 million, depending on the task."""
    episodes: int = 100
    """Evaluation episodes of each run at its end."""
    out: Path = Path("runs/control")

    def make_page(self) -> Page:
        """Trains on each task, and builds the page of final returns."""
        results = self.run_trials(self.trials())
        returns = {
            task: [
                results[_name(task, seed)]["tasks"][task]["return_mean"]
                for seed in range(self.seeds)
            ]
            for task in self.tasks
        }
        random = {
            task: results[_name(task, 0)]["tasks"][task]["random_return_mean"]
            for task in self.tasks
        }
        return Page(
            text=self._text(returns, random, results),
            data={
                **self.option_values("steps", "seeds", "episodes"),
                "hardware": format_hardware(results.values()),
                "returns": returns,
                "random": random,
                "wall_seconds": {name: one["wall_seconds"] for name, one in results.items()},
            },
        )

    def trials(self) -> list[Trial]:
        """One run per task and seed, with PPO's defaults."""
        return [
            Trial(
                name=_name(task, seed),
                method=PPO(),
                suite=task,
                options=run_options(self._steps(task), seed, self.episodes),
            )
            for task in self.tasks
            for seed in range(self.seeds)
        ]

    def _steps(self, task: str) -> int:
        return self.steps or BARS[task].steps

    def _text(
        self,
        returns: Mapping[str, list[float]],
        random: Mapping[str, float],
        results: Mapping[str, Mapping[str, Any]],
    ) -> str:
        rows = [
            [
                f"`{task}`",
                f"{self._steps(task):,}",
                f"{random[task]:.0f}",
                f"{BARS[task].mean_return:.0f}",
                f"{np.mean(each):.0f}",
                "yes" if np.mean(each) >= BARS[task].mean_return else "no",
                ", ".join(str(round(one)) for one in each),
            ]
            for task, each in returns.items()
        ]
        head = ["task", "steps", "random policy", "bar", "return", "learned", "each seed"]
        return f"""# PPO's defaults on control tasks

Return of PPO with its default options, the mean over {self.seed_count}. Each final policy played
{self.episodes} whole episodes greedily. The bar is Gymnasium's threshold; Pendulum has none, and is
solved from about -200.

{markdown_table(head, rows)}

{self.footer(results.values())}
"""


def _name(task: str, seed: int) -> str:
    return f"{task}-{seed}"
