"""The zoo: trained teachers, and the experiment that trains those of MinAtar's games.

    rltransfer experiment run zoo --out runs/zoo

This folder contains three files per teacher: `NAME.safetensors` (weights, float16), `NAME.json`
(the network) and `NAME.card.json` (recipe, seed, steps, return with its interval over 200
episodes). `rltransfer experiment run atari --part teachers` trains the teachers of Atari games.
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rltransfer.agents import PPO, PQN, PolicyDistillation
from rltransfer.agents.ppo import Surrogate
from rltransfer.experiments.common.checks import check_options, choice
from rltransfer.experiments.common.trials import Trial, train_trial
from rltransfer.experiments.zoo.folder import FOLDER
from rltransfer.files.serialization import to_json
from rltransfer.learning.agent import Method
from rltransfer.machine.terminal import console
from rltransfer.machine.threads import restored, use_threads
from rltransfer.policies.network import Network
from rltransfer.policies.saving import load_policy, save_policy
from rltransfer.rollouts.evaluation import evaluate_policy
from rltransfer.runs.config import read_config
from rltransfer.runs.folder import load_run_policy
from rltransfer.runs.run import Run

GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")

STEPS = {
    "Asterix": 8_000_000,
    "Breakout": 10_000_000,
    "Freeway": 3_000_000,
    "Seaquest": 3_000_000,
    "SpaceInvaders": 2_500_000,
}
"""Environment steps of each training. They suffice for Freeway. In Space Invaders longer training
leads to very long games, so that no student can be compared with the teacher within minutes."""

WIDTHS = {"Asterix": 1.5, "Seaquest": 1.5}
"""Widths other than 1, for games in which students of width 0.5 do not keep up with the teacher."""

VALUE_STEPS = {"Seaquest": 5_000_000}
"""Environment steps of Q-learning, for teachers that are kickstarted from it."""

EPISODES = 200
"""Number of episodes of the evaluation on a card."""

EVALUATION_SEED = 10_000
"""Seed of these episodes; no training used it."""


@dataclass(frozen=True, kw_only=True)
class Zoo:
    """Trains the zoo's teachers of MinAtar's games: 6 runs, over an hour on one CPU core.

    PPO on each game; on Seaquest it is kickstarted from PQN.
    """

    games: tuple[str, ...] = choice("game", GAMES)
    """Games to train on."""
    steps: int = 0
    """Environment steps of each teacher; 0 means 2.5 to 10 million, depending on the game."""
    seed: int = 0
    """Seed of each training."""
    out: Path = Path("runs/zoo")
    """Folder for the runs; the teachers are in its folder `teachers`."""
    threads: int = 1
    """Number of torch threads; two games at once with one thread each are faster than one with
    two."""

    def __post_init__(self) -> None:
        check_options(self)

    def run(self) -> None:
        """Trains, evaluates and writes each teacher."""
        for game in self.games:
            values = ""
            if game in VALUE_STEPS:
                run = self._train(game, VALUES, VALUE_STEPS[game], f"{game}-values-{self.seed}")
                values = str(run.run_dir)
            run = self._train(game, recipe(game, values), STEPS[game], f"{game}-{self.seed}")
            card = write_teacher(run, self.out / "teachers" / f"MinAtar-{game}-v0")
            console().print(f"{game}: {card['return_mean']:.1f} ± {card['return_ci95']:.1f}")

    def _train(self, game: str, method: Method, steps: int, name: str) -> Run:
        options = {
            "total_steps": self.steps or steps,
            "seed": self.seed,
            "threads": self.threads,
            "episodes": EPISODES,
        }
        trial = Trial(name=name, method=method, suite=task_of(game), options=options)
        return train_trial(trial, self.out, quiet=False)


VALUES = PQN(learning_rate=5e-4, batch_size=256)
"""The method that Seaquest's teacher was kickstarted from."""


def recipe(game: str, values: str = "") -> Method:
    """The method that a game's teacher was trained with.

    In Seaquest, PPO alone only learns to shoot until the oxygen is used up, a return of 5. PQN
    learns to surface, and PPO is kickstarted from it.

    Args:
        game: The game.
        values: The run directory of `VALUES`, which only Seaquest uses.
    """
    if game in VALUE_STEPS:
        return PolicyDistillation(
            teacher=values,
            student=Network(encoder="grid", width=WIDTHS[game]),
            objective="KL(temperature=0.2)",
            teacher_acts=0.0,
            distillation_weight="1->0@0.6",
            reinforcement_weight=1.0,
            exploration=0.0,
            num_envs=256,
            rollout_length=64,
            batch_size=2048,
            epochs=3,
            learning_rate=1e-3,
            max_grad_norm=0.5,
        )
    return PPO(
        network=Network(encoder="grid", width=WIDTHS.get(game, 1.0)),
        num_envs=256,
        rollout_length=64,
        batch_size=2048,
        epochs=3,
        learning_rate=2e-3,
        surrogate=Surrogate(gamma=0.99, gae_lambda=0.95, entropy_coefficient=0.01),
    )


def task_of(game: str) -> str:
    """The id of a game's task."""
    return f"rltransfer/MinAtar-{game}-v0"


def teacher_width(game: str) -> float:
    """The width of a game's teacher, which a student's width is relative to."""
    return load_policy(FOLDER / f"MinAtar-{game}-v0").spec.network.width


@restored()
def write_teacher(run: Run, stem: Path) -> dict[str, Any]:
    """Writes a run's policy in float16 with its card, and returns the card.

    The return on the card is that of the written float16 policy.
    """
    use_threads(run.options.threads)
    stem.parent.mkdir(parents=True, exist_ok=True)
    save_policy(load_run_policy(run.run_dir), stem, half=True)
    found = evaluate_policy(
        load_policy(stem), run.suite, EPISODES, seed=EVALUATION_SEED, device=torch.device("cpu")
    )
    (task,) = run.suite.tasks
    card = {
        "task": task.to_json(),
        "return_mean": found[task.id].mean,
        "return_ci95": found[task.id].ci95,
        "episodes": EPISODES,
        "evaluation_seed": EVALUATION_SEED,
        "agent": run.name,
        "recipe": _recipe_of(run.method),
        "seed": run.options.seed,
        "env_steps": run.env_steps,
        "wall_seconds": round(run.wall_seconds),
        "hardware": f"{platform.machine()} CPU, {torch.get_num_threads()} thread",
        "torch": torch.__version__.split("+")[0],
    }
    stem.with_name(stem.name + ".card.json").write_text(json.dumps(card, indent=1) + "\n")
    return card


def _recipe_of(method: Method) -> dict[str, Any]:
    """A method as JSON, with its teacher's recipe in place of the teacher's folder."""
    data: dict[str, Any] = to_json(method)
    if data.get("teacher"):
        config = read_config(Path(data["teacher"]))
        data["teacher"] = {name: config[name] for name in ("agent", "method", "options")}
    return data
