"""Distral on MinAtar: what sharing does where tasks have little in common.

    rltransfer experiment run distral-minatar

The five games of MinAtar are learned together, as Teh 2017 (arXiv 1707.04175) learns mazes: by A2C
for each game by itself, by one policy for all games, and by Distral in two columns, with the
divergence alone (KL) or with entropy beside it (KL+ent). The games' pictures, actions and rewards
mean different things: what helps in mazes may do harm here. The paper has no such tasks; nearest
are the laser-tag levels of its section 4.2, where A3C for each task is the best of the baselines.

Every learner has the same network, environment steps and settings, which are not tuned. Ratios to
A2C are taken between runs of the same seed; a return counts as at least `SMALLEST_RETURN`, as A2C
may earn nothing in a game.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rltransfer.agents import Distral
from rltransfer.experiments.common.checks import check_names, check_options, page_folder
from rltransfer.experiments.common.distral_curves import (
    VARIANTS,
    Array,
    curve_picture,
    final,
    run_curves,
    run_options,
)
from rltransfer.experiments.common.intervals import (
    Interval,
    geometric_mean_interval,
    interval_json,
    mean_interval,
)
from rltransfer.experiments.common.page import (
    footer,
    format_command,
    format_hardware,
    markdown_table,
    write_results,
)
from rltransfer.experiments.common.trials import Trial, run_trials
from rltransfer.experiments.zoo.experiment import GAMES, task_of
from rltransfer.machine.terminal import console
from rltransfer.policies.network import Network
from rltransfer.tasks.task import Suite

BASELINE = "A2C"
"""Learns each game by itself."""

SHARING = ("KL 2col", "KL+ent 2col", "A2C multitask")
"""In these one game's learning reaches the others; the quickest last, so that none runs alone."""

SMALLEST_RETURN = 0.5
"""What a return counts as at least in a ratio: half a point, the least that is told from none."""

ALL = "all games"
"""The column of the geometric mean."""


def ratio_row(finals: Mapping[str, Array], baseline: Mapping[str, Array]) -> dict[str, Interval]:
    """Returns ratios to the baseline: of all games together, and of each game.

    All are geometric means over seeds. Where some of the baseline's runs end below the least return
    that counts, that return decides the ratio: the games but these have a column of their own.

    Args:
        finals: The final returns of each game, by seed.    (seeds,)
        baseline: Those of A2C for each game by itself.     (seeds,)
    """
    ratios = {
        game: np.maximum(returns, SMALLEST_RETURN) / np.maximum(baseline[game], SMALLEST_RETURN)
        for game, returns in finals.items()
    }
    by_game = {game: shares.tolist() for game, shares in ratios.items()}
    each = {game: geometric_mean_interval({game: shares}) for game, shares in by_game.items()}
    row = {ALL: geometric_mean_interval(by_game)}
    low = low_games(baseline)
    if 0 < len(low) < len(by_game):
        others = {game: shares for game, shares in by_game.items() if game not in low}
        row[without(low)] = geometric_mean_interval(others)
    return {**row, **each}


def low_games(baseline: Mapping[str, Array]) -> list[str]:
    """Returns the games in which some runs end below the least return that counts."""
    return [game for game, returns in baseline.items() if (returns < SMALLEST_RETURN).any()]


def told_low_games(baseline: Mapping[str, Array]) -> str:
    """Returns a line on the games in which the least return decides; none if there is no such."""
    low = ", ".join(low_games(baseline))
    return low and (
        f"In {low} some runs of A2C end below that: there it decides the ratio, and so that of "
        f"{ALL}.\n"
    )


def without(games: Sequence[str]) -> str:
    """Returns the title of the column of all games but these."""
    return f"without {', '.join(games)}"


def verdict(ratio: Interval) -> str:
    """Returns whether sharing helps: all of the interval is above 1, or below it, or neither."""
    word: str = ratio.against(1, "helps", "harms")
    return word


def told_sharing(row: Mapping[str, Interval]) -> list[str]:
    """Returns the verdict over all games, and the games that it helps, harms and leaves undecided.

    Args:
        row: What `ratio_row` returns.
    """
    means = (ALL, *(name for name in row if name.startswith(without([]))))
    games = {name: verdict(ratio) for name, ratio in row.items() if name not in means}
    listed = [
        ", ".join(name for name, said in games.items() if said.startswith(word)) or "none"
        for word in ("helps", "harms", "undecided")
    ]
    return [verdict(row[ALL]), *listed]


@dataclass(frozen=True, kw_only=True)
class DistralMinAtar:
    """Distral on MinAtar's games, beside A2C (Teh 2017): 20 runs, 32 minutes on two CPU cores.

    All five games are learned together; A2C for each by itself and for all, five seeds.
    """

    games: tuple[str, ...] = GAMES
    """The games."""
    beta: float = 100.0
    """Inverse of the regulariser's weight."""
    learning_rate: float = 1e-3
    """Adam's step size at the start."""
    seeds: int = 5
    """Seeds of each variant, counted from 0."""
    steps: int = 2_000_000
    """Environment steps of each run, over all games."""
    jobs: int = 0
    """Trials at once; 0 means one for each core."""
    out: Path = Path("runs/distral-minatar")
    """Folder of the runs."""
    results: Path | None = None
    """Folder for the page, its picture and its figures; that of the runs if not given."""

    def __post_init__(self) -> None:
        check_options(self)
        check_names("game", self.games, GAMES)

    def run(self) -> None:
        """Runs what has not been run yet, and writes the page."""
        folder = page_folder(self.results, self.out)
        found = run_trials(self.trials(), self.out, self.jobs)
        curves = {variant: self._curves(variant) for variant in (BASELINE, *SHARING)}
        self._write(folder, curves, found)
        console().print(f"written: {folder / 'RESULTS.md'}", highlight=False)

    def trials(self) -> list[Trial]:
        """Returns every combination of variant and seed."""
        return [
            Trial(
                name=trial_name(variant, seed),
                method=self.method(variant),
                suite=Suite.of(*map(task_of, self.games)),
                options=run_options(self.steps, seed),
            )
            for variant in (BASELINE, *SHARING)
            for seed in range(self.seeds)
        ]

    def method(self, variant: str) -> Distral:
        """Returns how a variant learns."""
        return Distral(
            **VARIANTS[variant],
            beta=self.beta,
            learning_rate=self.learning_rate,
            num_envs=16,
            rollout_length=8,
            network=Network(encoder="grid"),
        )

    def _curves(self, variant: str) -> dict[str, Array]:
        """Returns for each game the training returns of the seeds.    (seeds, PARTS)"""
        tasks = [task_of(game) for game in self.games]
        runs = np.stack(
            [
                run_curves(self.out / trial_name(variant, seed), tasks, self.steps)
                for seed in range(self.seeds)
            ]
        )
        return {game: runs[:, index] for index, game in enumerate(self.games)}

    def _write(
        self,
        folder: Path,
        curves: Mapping[str, Mapping[str, Array]],
        found: Mapping[str, Any],
    ) -> None:
        """Writes the page, the picture and the figures.

        Args:
            folder: Where to.
            curves: For each variant those of each game, by seed.    (seeds, PARTS)
            found: The runs' results, by name.
        """
        finals = {
            variant: {game: final(runs) for game, runs in by_game.items()}
            for variant, by_game in curves.items()
        }
        ratios = {variant: ratio_row(finals[variant], finals[BASELINE]) for variant in SHARING}
        write_results(folder, self._page(finals, ratios, found), self._data(finals, ratios, found))
        panels = {
            game: {variant: by_game[game] for variant, by_game in curves.items()}
            for game in self.games
        }
        curve_picture(folder / "picture.png", panels, self.steps)

    def _page(
        self,
        finals: Mapping[str, Mapping[str, Array]],
        ratios: Mapping[str, Mapping[str, Interval]],
        found: Mapping[str, Any],
    ) -> str:
        """Returns the page."""
        returns = [
            [variant, *(mean_interval(by_seed.tolist()).told(1) for by_seed in by_game.values())]
            for variant, by_game in finals.items()
        ]
        shares = [
            [variant, *(ratio.percent() for ratio in row.values())]
            for variant, row in ratios.items()
        ]
        columns = list(next(iter(ratios.values())))
        verdicts = [[variant, *told_sharing(row)] for variant, row in ratios.items()]
        return f"""# Distral on MinAtar

{len(self.games)} MinAtar games learned together, {self.steps:,} environment steps in all: by A2C
for each game by itself, by one policy for all, by Distral in two columns. The final return is the
mean training return over a run's last tenth, with its 95 % interval over {self.seeds} seeds.

{markdown_table(["final return", *self.games], returns)}

In per cent of A2C for each game by itself, between runs of the same seed: geometric means over
seeds, and over games, with their 95 % intervals. A return is at least {SMALLEST_RETURN:g} here.
{told_low_games(finals[BASELINE])}
{markdown_table(["of A2C, %", *columns], shares)}

What sharing does where tasks differ. It helps if all of the interval is above 1, that is 100 %, and
harms if all of it is below; one interval in twenty misses the truth by chance.

{markdown_table(["", ALL, "helps in", "harms in", "undecided in"], verdicts)}

![learning curves by game](picture.png)

Means over seeds, with 95 % bands.

All variants have beta {self.beta:g} and the learning rate {self.learning_rate:g}.

{footer("distral-minatar", self, found.values())}

What differs from the paper (Teh 2017) stands in the module's docstring.
"""

    def _data(
        self,
        finals: Mapping[str, Mapping[str, Array]],
        ratios: Mapping[str, Mapping[str, Interval]],
        found: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Returns everything that the page was made from."""
        return {
            "command": format_command("distral-minatar", self),
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
        }


def trial_name(variant: str, seed: int) -> str:
    """Returns the name of a run's folder."""
    return f"{variant.replace(' ', '-')}-{seed}"
