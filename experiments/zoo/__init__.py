"""The zoo: one trained teacher for each MinAtar game, and the experiment that makes them.

    rltransfer experiment run zoo --out runs/zoo

Each teacher lies here as `NAME.safetensors` (weights, float16), `NAME.json` (the network) and
`NAME.card.json` (recipe, seed, steps, return with its interval over 200 episodes).
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rltransfer.agent import Method
from rltransfer.agents import PPO, PQN
from rltransfer.agents.ppo import Surrogate
from rltransfer.evaluation import evaluate_policy
from rltransfer.network import Network
from rltransfer.policy import load_policy, save_policy
from rltransfer.report import console
from rltransfer.run import Run, load_run_policy, train
from rltransfer.serialization import to_json
from rltransfer.task import Suite

FOLDER = Path(__file__).parent
"""Where the teachers lie."""

GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")

STEPS = {
    "Asterix": 10_000_000,
    "Breakout": 10_000_000,
    "Freeway": 3_000_000,
    "Seaquest": 5_000_000,
    "SpaceInvaders": 2_500_000,
}
"""Environment steps of each training. Freeway is learned by then; in Space Invaders a longer
training makes a player whose games hardly end: no student can be compared with it in minutes."""

EPISODES = 200
"""Episodes that a card's return is the mean of."""

EVALUATION_SEED = 10_000
"""Seed of those episodes; no training used it."""


@dataclass(frozen=True, kw_only=True)
class Zoo:
    """Trains the teachers of the zoo: PPO on four of MinAtar's games, PQN on Seaquest."""

    games: tuple[str, ...] = GAMES
    """The games."""
    steps: int = 0
    """Environment steps of each teacher; 0 means those of `STEPS`."""
    seed: int = 0
    """Seed of each training."""
    out: Path = Path("runs/zoo")
    """Folder for the runs, and for the teachers in its folder `teachers`."""
    threads: int = 1
    """Threads of torch; two games at once with one thread each are faster than one with two."""

    def run(self) -> None:
        """Trains, evaluates and writes each teacher."""
        for game in self.games:
            run_dir = self.out / f"{game}-{self.seed}"
            suite = Suite.of(f"rltransfer/MinAtar-{game}-v0")
            run = train(
                recipe(game), suite=suite, run_dir=run_dir, resume=run_dir.exists(),
                steps=self.steps or STEPS[game], seed=self.seed, threads=self.threads,
                episodes=EPISODES,
            )  # fmt: skip
            card = write_teacher(run, suite, self.out / "teachers" / f"MinAtar-{game}-v0")
            console().print(f"{game}: {card['return_mean']:.1f} ± {card['return_ci95']:.1f}")


def recipe(game: str) -> Method:
    """Returns the method that a game's teacher was trained with.

    Seaquest's is PQN: there PPO learns to shoot until the oxygen is gone, a return of 5, no more.
    """
    if game == "Seaquest":
        seaquest: Method = PQN(learning_rate=5e-4, batch_size=256)
        return seaquest
    others: Method = PPO(
        network=Network(encoder="grid"),
        num_envs=256,
        horizon=64,
        batch_size=2048,
        epochs=3,
        learning_rate=2e-3,
        surrogate=Surrogate(discount=0.99, trace=0.95, entropy_coefficient=0.01),
    )
    return others


def write_teacher(run: Run, suite: Suite, stem: Path) -> dict[str, Any]:
    """Writes a run's policy in float16 with its card, and returns the card.

    The return is that of the policy as it was written.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    save_policy(load_run_policy(run.run_dir), stem, half=True)
    found = evaluate_policy(
        load_policy(stem), suite, EPISODES, seed=EVALUATION_SEED, device=torch.device("cpu")
    )
    (task,) = suite.tasks
    card = {
        "task": task.to_json(),
        "return_mean": found[task.id].mean,
        "return_ci95": found[task.id].ci95,
        "episodes": EPISODES,
        "evaluation_seed": EVALUATION_SEED,
        "agent": run.name,
        "recipe": to_json(run.method),
        "seed": run.options.seed,
        "env_steps": run.env_steps,
        "wall_seconds": round(run.wall_seconds),
        "hardware": f"{platform.machine()} CPU, {torch.get_num_threads()} thread",
        "torch": torch.__version__.split("+")[0],
    }
    stem.with_name(stem.name + ".card.json").write_text(json.dumps(card, indent=1) + "\n")
    return card
