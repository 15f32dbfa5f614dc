"""The first run: students of a quarter of their teachers' size, on MinAtar's five games.

    rltransfer experiment run quickstart

Each game's teacher is the zoo's; each student has half of its width, which is a quarter of its
parameters. Student and teacher play the same number of episodes, with the same seeds. On a CPU the
games run side by side, one thread each, as networks this small gain little from a second.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rltransfer.agents import PolicyDistillation
from rltransfer.network import Network
from rltransfer.report import console, result_table
from rltransfer.run import train

from .zoo import teacher_width

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
    """Distils the zoo's five MinAtar teachers into students of a quarter of their size."""

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

    def run(self) -> None:
        """Distils each game and prints one table."""
        Path("runs").mkdir(exist_ok=True)
        folder = self.out or Path(tempfile.mkdtemp(prefix="quickstart-", dir="runs"))
        jobs = self.jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
        # New processes, not copies of this one: threads of torch and Warp do not survive a fork.
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=fresh, initializer=_show_lines) as pool:
            results = list(pool.map(self.distil, self.games, [folder] * len(self.games)))
        by_game = dict(zip(self.games, results, strict=True))
        out = console()
        out.print(result_table([by_game[game] for game in sorted(by_game)]))
        out.print(f"curves: tensorboard --logdir {folder}", highlight=False, soft_wrap=True)

    def distil(self, game: str, folder: Path) -> dict[str, Any]:
        """Distils one game's teacher and returns the result."""
        run = train(
            PolicyDistillation(
                teacher="zoo",
                student=Network(encoder="grid", width=0.5 * teacher_width(game), layer_norm=True),
                objective=OBJECTIVE,
                num_envs=256,
                horizon=16,
                teacher_acts="1->0@0.2",
                exploration=0.01,
                memory_steps=500_000,
                epochs=5,
                batch_size=256,
                learning_rate=2e-3,
            ),
            suite=f"rltransfer/MinAtar-{game}-v0",
            run_dir=folder / game,
            steps=self.steps or STEPS[game],
            seed=self.seed,
            threads=1,
            episodes=self.episodes,
            evaluate_episodes=0,
        )
        return run.result


def _show_lines() -> None:
    """Makes a process show its progress as lines: live tables would overwrite each other."""
    os.environ["TERM"] = "dumb"
