"""The first run: students of a quarter of their teachers' size, on MinAtar's five games.

    rltransfer experiment run quickstart

The teachers are the zoo's. Each student has half of its teacher's width and thus a quarter of its
parameters. Student and teacher are evaluated over the same number of episodes, with the same seeds.
On a CPU the games run in parallel with one thread each, as small networks gain little from a second
thread.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from rltransfer.experiments.common.checks import check_options, choice
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
"""Environment steps of each game; the slowest first, so that none runs alone at the end."""

OBJECTIVE = "KL(temperature=1.0) + 0.1 * MSE()"
"""The loss; logits carry more information on rare actions than probabilities alone."""


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Students of a quarter of their teachers' size: 5 runs, 4 minutes on two CPU cores."""

    games: tuple[str, ...] = choice("game", STEPS)
    """Games to play."""
    steps: int = 0
    """Environment steps of each game; 0 means 0.5 to 1.5 million, depending on the game."""
    episodes: int = 512
    """Episodes of each evaluation."""
    seed: int = 0
    """Random seed."""
    jobs: int = 0
    """Number of games at once; 0 means one per core, or a single one with a GPU."""
    out: Path | None = None
    """Folder for the runs; defaults to a new folder in runs/."""

    def __post_init__(self) -> None:
        check_options(self)

    def run(self) -> None:
        """Distils each game's teacher and prints a table."""
        trials = [self.trial(game) for game in self.games]
        folder = self.out or _new_folder()
        by_game = run_trials(trials, folder, self.jobs, report=lambda line: None, quiet=False)
        out = console()
        out.print(result_table([by_game[game] for game in sorted(by_game)]))
        out.print(f"curves: tensorboard --logdir {folder}", highlight=False, soft_wrap=True)

    def trial(self, game: str) -> Trial:
        """The run that distils one game's teacher."""
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
    Path("runs").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="quickstart-", dir="runs"))
    folder.chmod(Path("runs").stat().st_mode)  # tempfile lets only this user read it
    return folder
