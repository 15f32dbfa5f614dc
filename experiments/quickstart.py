"""The first run: students of a quarter of their teachers' size, on MinAtar's five games.

    rltransfer experiment run quickstart

Each game's run has default options but the size:

    rltransfer train policy-distillation --task TASK --teacher zoo --size 25%

Student and teacher are evaluated over the same number of episodes, with the same seeds. On a CPU
the games run in parallel with one thread each, as small networks gain little from a second thread.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from rltransfer.agents import PolicyDistillation
from rltransfer.experiments.common.checks import check_options, choice
from rltransfer.experiments.common.trials import Trial, run_trials
from rltransfer.experiments.zoo.experiment import task_of
from rltransfer.machine.terminal import console
from rltransfer.runs.report import result_table
from rltransfer.tasks.families import as_suite

GAMES = ("Seaquest", "Asterix", "Breakout", "SpaceInvaders", "Freeway")
"""The games; those with the largest networks first, so that none runs alone at the end."""
SIZE = "25%"
"""The students' number of parameters, relative to their teachers'."""


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Students of a quarter of their teachers' size: 5 runs, 4 minutes on two CPU cores."""

    games: tuple[str, ...] = choice("game", GAMES)
    """Games to play."""
    steps: int = 0
    """Environment steps of each game; 0 means the default."""
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
        method = PolicyDistillation(teacher="zoo", size=SIZE)
        return Trial(
            name=game,
            method=method,
            suite=task_of(game),
            options={
                "total_steps": self.steps or method.default_steps(as_suite(task_of(game))),
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
