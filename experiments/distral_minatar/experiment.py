"""Distral on MinAtar: what sharing does where tasks have little in common.

    rltransfer experiment run distral-minatar

The five games of MinAtar are learned together, as Teh 2017 (arXiv 1707.04175) learns mazes: by A2C
with one policy per game, by A2C with one policy for all games, and by Distral with two columns,
with the KL regulariser alone (KL) or with an entropy bonus as well (KL+ent). The games' images,
actions and rewards mean different things, so what helps in mazes may harm here. The paper has no
such tasks. The closest are the laser-tag levels of its section 4.2, where A3C per task is the best
baseline.

Every learner has the same network, environment steps and settings, which are not tuned. Ratios to
A2C are taken between runs of the same seed. Returns below `MIN_RETURN` count as `MIN_RETURN`, as
A2C may earn nothing in a game.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rltransfer.agents import Distral
from rltransfer.experiments.common.checks import choice
from rltransfer.experiments.common.distral_curves import (
    VARIANTS,
    Array,
    curve_picture,
    final,
    run_curves,
)
from rltransfer.experiments.common.experiment import PaperExperiment
from rltransfer.experiments.common.intervals import interval_json, percent_rows
from rltransfer.experiments.common.page import Page, format_hardware, markdown_table
from rltransfer.experiments.common.trials import Trial, run_options
from rltransfer.experiments.zoo.experiment import GAMES, task_of
from rltransfer.metrics.intervals import Interval, geometric_mean_interval, mean_interval
from rltransfer.policies.network import Network
from rltransfer.tasks.task import Suite

BASELINE = "A2C"
"""One policy per game."""

SHARING = ("KL 2col", "KL+ent 2col", "A2C multitask")
"""Variants in which games share what is learned; the fastest last, so that no slow run is alone."""

MIN_RETURN = 0.5
"""Lower bound of a return in a ratio: half a point, the least that differs from none."""

ALL = "all games"
"""The column of the geometric mean."""


def baseline_ratios(
    finals: Mapping[str, Array], baseline: Mapping[str, Array]
) -> dict[str, Interval]:
    """Ratios to the baseline: over all games, and in each game.

    All are geometric means over seeds. If some of the baseline's runs end below `MIN_RETURN` in a
    game, that bound decides the game's ratio. A further column leaves such games out.

    Args:
        finals: The final returns of each game, by seed.         (seeds,)
        baseline: Those of A2C with one policy per game.         (seeds,)
    """
    ratios = {
        game: (np.maximum(returns, MIN_RETURN) / np.maximum(baseline[game], MIN_RETURN)).tolist()
        for game, returns in finals.items()
    }
    row = {ALL: geometric_mean_interval(ratios)}
    low = low_games(baseline)
    if 0 < len(low) < len(ratios):
        others = {game: by_seed for game, by_seed in ratios.items() if game not in low}
        row[without(low)] = geometric_mean_interval(others)
    each = {game: geometric_mean_interval({game: by_seed}) for game, by_seed in ratios.items()}
    return {**row, **each}


def low_games(baseline: Mapping[str, Array]) -> list[str]:
    """The games in which some of the baseline's runs end below `MIN_RETURN`."""
    return [game for game, returns in baseline.items() if (returns < MIN_RETURN).any()]


def format_low_games(baseline: Mapping[str, Array]) -> str:
    """A line about the games in which `MIN_RETURN` decides the ratio, if there are any."""
    low = ", ".join(low_games(baseline))
    return low and (
        f"In {low} some runs of A2C end below that. There the bound decides the ratio, and with it "
        f"the ratio of {ALL}.\n"
    )


def without(games: Sequence[str]) -> str:
    """The title of the column that leaves games out."""
    return f"without {', '.join(games)}"


def verdict(ratio: Interval) -> str:
    """Whether sharing helps or harms: the whole interval is above or below 1."""
    return ratio.against(1, "helps", "harms")


def verdict_cells(row: Mapping[str, Interval]) -> list[str]:
    """The verdict over all games, then the games with each verdict.

    Args:
        row: Ratios from `baseline_ratios`.
    """
    means = (ALL, *(name for name in row if name.startswith(without([]))))
    games = {name: verdict(ratio) for name, ratio in row.items() if name not in means}
    listed = [
        ", ".join(name for name, one in games.items() if one.startswith(word)) or "none"
        for word in ("helps", "harms", "undecided")
    ]
    return [verdict(row[ALL]), *listed]


@dataclass(frozen=True, kw_only=True)
class DistralMinAtar(PaperExperiment):
    """Distral on MinAtar, compared with A2C (Teh 2017): 20 runs, 32 minutes on two CPU cores.

    All five games are learned together; A2C with one policy per game and for all; five seeds.
    """

    games: tuple[str, ...] = choice("game", GAMES)
    """Games to play."""
    beta: float = 100.0
    """Inverse of the regulariser's weight."""
    learning_rate: float = 1e-3
    """Adam's initial step size."""
    steps: int = 2_000_000
    """Environment steps of each run, over all games."""
    out: Path = Path("runs/distral-minatar")

    def make_page(self) -> Page:
        """Trains all variants and builds the page."""
        found = self.run_trials(self.trials())
        curves = {variant: self._curves(variant) for variant in (BASELINE, *SHARING)}
        finals = {
            variant: {game: final(runs) for game, runs in by_game.items()}
            for variant, by_game in curves.items()
        }
        ratios = {name: baseline_ratios(finals[name], finals[BASELINE]) for name in SHARING}
        panels = {
            game: {variant: by_game[game] for variant, by_game in curves.items()}
            for game in self.games
        }
        return Page(
            text=self._text(finals, ratios, found),
            data={
                "command": self.command(),
                "hardware": format_hardware(found.values()),
                "finals": {
                    variant: {game: returns.tolist() for game, returns in by_game.items()}
                    for variant, by_game in finals.items()
                },
                "ratios": {
                    variant: {
                        name: {"verdict": verdict(ratio), **interval_json(ratio)}
                        for name, ratio in row.items()
                    }
                    for variant, row in ratios.items()
                },
                "wall_seconds": {name: result["wall_seconds"] for name, result in found.items()},
            },
            pictures={"picture.png": curve_picture(panels, self.steps)},
        )

    def trials(self) -> list[Trial]:
        """One run per variant and seed."""
        return [
            Trial(
                name=_name(variant, seed),
                method=self.method(variant),
                suite=Suite.of(*map(task_of, self.games)),
                options=run_options(self.steps, seed),
            )
            for variant in (BASELINE, *SHARING)
            for seed in range(self.seeds)
        ]

    def method(self, variant: str) -> Distral:
        """The training method of a variant."""
        return Distral(
            **VARIANTS[variant],
            beta=self.beta,
            learning_rate=self.learning_rate,
            num_envs=16,
            rollout_length=8,
            network=Network(encoder="grid"),
        )

    def _curves(self, variant: str) -> dict[str, Array]:
        """The training returns of each game by seed.    (seeds, PARTS)"""
        tasks = [task_of(game) for game in self.games]
        runs = np.stack(
            [
                run_curves(self.out / _name(variant, seed), tasks, self.steps)
                for seed in range(self.seeds)
            ]
        )
        return {game: runs[:, index] for index, game in enumerate(self.games)}

    def _text(
        self,
        finals: Mapping[str, Mapping[str, Array]],
        ratios: Mapping[str, Mapping[str, Interval]],
        found: Mapping[str, Any],
    ) -> str:
        returns = [
            [variant, *(mean_interval(by_seed.tolist()).format(1) for by_seed in by_game.values())]
            for variant, by_game in finals.items()
        ]
        columns = list(next(iter(ratios.values())))
        verdicts = [[variant, *verdict_cells(row)] for variant, row in ratios.items()]
        return f"""# Distral on MinAtar

{len(self.games)} MinAtar games are learned together, {self.steps:,} environment steps in all: by
A2C with one policy per game, by A2C with one policy for all games (multitask), and by Distral with
two columns. The final return is the mean training return over the last tenth of a run, with its
95 % interval over {self.seed_count}.

{markdown_table(["final return", *self.games], returns)}

Final returns in per cent of A2C with one policy per game, between runs of the same seed: geometric
means over seeds, and over games, with 95 % intervals. Returns below {MIN_RETURN:g} count as
{MIN_RETURN:g}.
{format_low_games(finals[BASELINE])}
{markdown_table(["of A2C, %", *columns], percent_rows(ratios))}

Sharing helps if the whole interval is above 100 %, and harms if the whole interval is below. One
interval in twenty misses the true value by chance.

{markdown_table(["", ALL, "helps in", "harms in", "undecided in"], verdicts)}

![learning curves by game](picture.png)

Means over seeds, with 95 % bands.

All variants have beta {self.beta:g} and the learning rate {self.learning_rate:g}.

{self.footer(found.values())}

The docstring of `experiment.py` compares the experiment with the paper (Teh 2017).
"""


def _name(variant: str, seed: int) -> str:
    return f"{variant.replace(' ', '-')}-{seed}"
