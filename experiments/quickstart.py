"""The first run: students of a quarter of their teachers' size, on MinAtar's five games.

    rltransfer experiment run quickstart

Each game's teacher is the zoo's; each student has half of its width, which is a quarter of its
parameters. Student and teacher play the same number of episodes, with the same seeds. On a CPU the
games run side by side, one thread each, as networks this small gain little from a second.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from rltransfer.experiments.common.checks import check_names, check_options
from rltransfer.experiments.common.trials import Trial, run_trials
from rltransfer.experiments.zoo.minatar_student import minatar_student
from rltransfer.machine.terminal import console
from rltransfer.runs.report import result_table

STEPS = {
    "Seaquest": 1_250_000,
    "Asterix": 1_500_000,
    "Breakout": 800_000,
    "SpaceInvaders": 1_000_000,
    "Freeway": 500_000,
}
"""Environment steps of each game; the longest first, so that none runs alone at the end."""

OBJECTIVE = "KL(temperature=1.0) + 0.1 * MSE()"
"""The logits' differences say more of rare actions than the probabilities alone."""


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Students of a quarter of their teachers' size: 5 runs, 4 minutes on two CPU cores."""

    games: tuple[str, ...] = tuple(STEPS)
    """The games."""
    steps: int = 0
    """Environment steps of each game; 0 means those of `STEPS`."""
    episodes: int = 512
    """Episodes of each evaluation."""
    seed: int = 0
    """Seed."""
    jobs: int = 0
    """Games at once; 0 means one for each core, or one in all where there is a GPU."""
    out: Path | None = None
    """Folder for the runs; a new one under runs/ if not given."""

    def __post_init__(self) -> None:
        check_options(self)
        check_names("game", self.games, STEPS)

    def run(self) -> None:
        """Distils each game and prints one table."""
        trials = [self.trial(game) for game in self.games]
        folder = self.out or _new_folder()
        by_game = run_trials(trials, folder, self.jobs, tell=None, quiet=False)
        out = console()
        out.print(result_table([by_game[game] for game in sorted(by_game)]))
        out.print(f"curves: tensorboard --logdir {folder}", highlight=False, soft_wrap=True)

    def trial(self, game: str) -> Trial:
        """Returns the run that distils one game's teacher."""
        return Trial(
            name=game,
            method=minatar_student(game, 0.5, OBJECTIVE),
            suite=f"rltransfer/MinAtar-{game}-v0",
            options={
                "total_steps": self.steps or STEPS[game],
                "seed": self.seed,
                "episodes": self.episodes,
                "evaluate_episodes": 0,
            },
        )


def _new_folder() -> Path:
    """Makes a folder for the runs and returns it."""
    Path("runs").mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="quickstart-", dir="runs"))
