"""Stable-Baselines3: PPO on MinAtar's Breakout or on Atari's.

    python -m rltransfer.experiments.benchmarks.stable_baselines3_ppo --num-envs 8
    python -m rltransfer.experiments.benchmarks.stable_baselines3_ppo --until-return 10
    python -m rltransfer.experiments.benchmarks.stable_baselines3_ppo --game atari --batch-size 256

Measures the environment steps per second of training, or with `--until-return` the seconds until
the mean return of the last 100 training episodes reaches a return. The clock starts after all
imports. The network is that of rltransfer's `Network(encoder="grid")` on MinAtar (one 3x3
convolution with 16 maps, then 128 units), and Stable-Baselines3's Nature CNN on Atari.

MinAtar runs in the `DummyVecEnv` of `make_vec_env`, with the Gymnasium environments of the
`minatar` package. `--env rltransfer` uses `rltransfer/MinAtar-Breakout-v0` instead, one environment
at a time: a kernel launch costs more than the package's few lines of Python, and with 8
environments it trained at 0.75 of the package's speed. Atari has the wrappers of
Stable-Baselines3's `make_atari_env` and the settings of `ALE/Breakout-v5`: sticky actions, and
lives that do not end an episode.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack
from torch import Tensor, nn

from rltransfer.errors import InputError

from .script import Timing, main

EPISODES = 100
"""Number of episodes in the mean return."""


class Grid(BaseFeaturesExtractor):
    """One 3x3 convolution with 16 maps, then 128 units; channels may be first or last."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 128)
        shape = observation_space.shape
        self.channels_last = shape[2] < shape[0]
        channels, side = (shape[2], shape[0]) if self.channels_last else shape[:2]
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * (side - 2) ** 2, 128),
            nn.ReLU(),
        )

    def forward(self, observations: Tensor) -> Tensor:
        """The features.    (batch, 128)"""
        images = observations.permute(0, 3, 1, 2) if self.channels_last else observations
        features: Tensor = self.layers(images)
        return features


@dataclass(frozen=True, kw_only=True)
class StableBaselines3PPO:
    """Speed of Stable-Baselines3's PPO, or its time to a return."""

    timing: Timing = Timing()
    game: Literal["minatar", "atari"] = "minatar"
    """Breakout of MinAtar or of Atari."""
    env: Literal["minatar", "rltransfer"] = "minatar"
    """Package of the MinAtar environments."""
    num_envs: int = 8
    """Number of environments."""
    subprocesses: bool = False
    """Run each environment in a separate process."""
    rollout_length: int = 128
    """Steps per environment between two updates."""
    epochs: int = 4
    """Passes over each rollout."""
    batch_size: int = 256
    """Samples per minibatch."""
    learning_rate: float = 3e-4
    """Adam's step size."""
    entropy_coefficient: float = 0.01
    """Weight of the entropy bonus."""
    until_return: float | None = None
    """Return at which training stops; None measures the speed."""
    max_steps: int = 5_000_000
    """Steps after which training fails."""
    seed: int = 0
    """Random seed."""
    threads: int = 0
    """Number of torch threads; 0 leaves the choice to torch."""

    def run(self) -> dict[str, Any]:
        """Runs the measurement."""
        if self.threads:
            torch.set_num_threads(self.threads)
        began = time.perf_counter()
        model = self._model()
        found: dict[str, Any] = {"threads": torch.get_num_threads()}
        if self.until_return is None:
            return {**found, "steps_per_second": self.timing.speed(lambda: self._iterate(model))}
        while self._iterate(model):
            episodes = list(model.ep_info_buffer or ())
            mean = sum(episode["r"] for episode in episodes) / max(len(episodes), 1)
            if len(episodes) == EPISODES and mean >= self.until_return:
                break
            if model.num_timesteps >= self.max_steps:
                raise InputError(f"The return after {self.max_steps} steps is only {mean:.1f}.")
        seconds = time.perf_counter() - began
        return {**found, "seconds": seconds, "env_steps": model.num_timesteps}

    def _iterate(self, model: PPO) -> int:
        steps = self.num_envs * self.rollout_length
        model.learn(steps, reset_num_timesteps=False)
        return steps

    def _model(self) -> PPO:
        options: dict[str, Any] = {"n_steps": self.rollout_length, "n_epochs": self.epochs}
        if self.game == "minatar":
            options["policy_kwargs"] = {"features_extractor_class": Grid, "net_arch": []}
        return PPO(
            "CnnPolicy" if self.game == "atari" else "MlpPolicy",
            self._envs(),
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            ent_coef=self.entropy_coefficient,
            stats_window_size=EPISODES,
            seed=self.seed,
            device="cpu",
            **options,
        )

    def _envs(self) -> VecEnv:
        kind: type[DummyVecEnv | SubprocVecEnv]
        kind = SubprocVecEnv if self.subprocesses else DummyVecEnv
        if self.game == "atari":
            import ale_py  # noqa: F401  (registers the games)

            frames = make_atari_env(
                "BreakoutNoFrameskip-v4",
                n_envs=self.num_envs,
                seed=self.seed,
                wrapper_kwargs={"terminal_on_life_loss": False},
                env_kwargs={"repeat_action_probability": 0.25},
                vec_env_cls=kind,
            )
            return VecFrameStack(frames, 4)
        task = "rltransfer/MinAtar-Breakout-v0"
        if self.env == "minatar":
            from minatar.gym import register_envs

            task = "MinAtar/Breakout-v0"
            if task not in gymnasium.registry:
                register_envs()
        return make_vec_env(task, self.num_envs, seed=self.seed, vec_env_cls=kind)


if __name__ == "__main__":
    sys.exit(main(StableBaselines3PPO, "stable_baselines3_ppo"))
