"""The first run: students of a quarter of their teachers' size, on MinAtar's five games.

    rltransfer experiment run quickstart

Each game's teacher is the zoo's; each student has half of its width, which is a quarter of its
parameters. Student and teacher play the same number of episodes, with the same seeds.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from rltransfer.agents import PolicyDistillation
from rltransfer.network import Network
from rltransfer.report import console, result_table
from rltransfer.run import train

GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Distils the zoo's five MinAtar teachers into students of a quarter of their size."""

    games: tuple[str, ...] = GAMES
    """The games."""
    steps: int = 500_000
    """Environment steps of each game."""
    episodes: int = 256
    """Episodes of each evaluation."""
    seed: int = 0
    """Seed."""
    out: Path | None = None
    """Folder for the runs; a new one under runs/ if not given."""

    def run(self) -> None:
        """Distils each game and prints one table."""
        Path("runs").mkdir(exist_ok=True)
        folder = self.out or Path(tempfile.mkdtemp(prefix="quickstart-", dir="runs"))
        results = []
        for game in self.games:
            run = train(
                PolicyDistillation(
                    teacher="zoo",
                    student=Network(encoder="grid", width=0.5),
                    num_envs=256,
                    horizon=16,
                ),
                suite=f"rltransfer/MinAtar-{game}-v0",
                run_dir=folder / game,
                steps=self.steps,
                seed=self.seed,
                episodes=self.episodes,
                evaluate_episodes=0,
            )
            results.append(run.result)
        out = console()
        out.print(result_table(results))
        out.print(f"curves: tensorboard --logdir {folder}", highlight=False, soft_wrap=True)
