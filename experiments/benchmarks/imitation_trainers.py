"""imitation: seconds of its DAgger or BC trainer until the student keeps 95 % of its teacher.

    RLTRANSFER_TEACHERS=FOLDER python -m rltransfer.experiments.benchmarks.imitation_trainers \
        --expert walker2d --trainer dagger

Both have imitation's own defaults, but for the student's layers, which are the teacher's, and eight
environments. Students are looked at after minibatches. What a zip normalises, the student sees
normalised too.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from rltransfer.tasks.observation import DEFAULT_GROUP

from .experts import Expert
from .script import main
from .teacher_clock import TimedStudent, TrainingOver


@dataclass(frozen=True, kw_only=True)
class ImitationTrainers(TimedStudent):
    """Seconds of imitation's trainers to the teacher's return."""

    trainer: Literal["dagger", "bc"] = "dagger"
    """The algorithm."""
    num_envs: int = 8
    """Number of environments."""
    demonstrations: int = 20_000
    """Steps of the teacher that BC learns from."""
    threads: int = 0
    """Number of torch threads; 0 leaves the choice to torch."""

    def run(self) -> dict[str, Any]:
        """Runs the measurement."""
        from imitation.algorithms import bc
        from imitation.util.logger import configure

        if self.threads:
            torch.set_num_threads(self.threads)
        expert, clock = self.teacher, self.clock()
        clock.start()
        torch.manual_seed(self.seed)
        envs = self._envs(expert)
        student = ActorCriticPolicy(
            envs.observation_space, envs.action_space, _no_step_size, list(expert.hidden)
        )
        normalize = expert.normalize

        def look() -> None:
            clock.look(
                lambda observation: student.predict(normalize(observation), deterministic=True)[0]
            )

        with tempfile.TemporaryDirectory() as folder:
            trainer = bc.BC(
                observation_space=envs.observation_space,
                action_space=envs.action_space,
                rng=np.random.default_rng(self.seed),
                policy=student,
                device="cpu",
                custom_logger=configure(folder, []),
            )
            learn = self._dagger if self.trainer == "dagger" else self._bc
            with contextlib.suppress(TrainingOver):
                learn(trainer, envs, expert, folder, look)
        return {**clock.result(), "threads": torch.get_num_threads()}

    def _dagger(
        self, trainer: Any, envs: VecEnv, expert: Expert, folder: str, look: Callable[[], None]
    ) -> None:
        from imitation.algorithms.dagger import SimpleDAggerTrainer

        dagger = SimpleDAggerTrainer(
            venv=envs,
            scratch_dir=folder,
            expert_policy=expert.load().policy,
            rng=np.random.default_rng(self.seed),
            bc_trainer=trainer,
            custom_logger=trainer.logger,
        )
        dagger.train(100_000_000, bc_train_kwargs={**_quiet(), "on_batch_end": look})

    def _bc(
        self, trainer: Any, envs: VecEnv, expert: Expert, folder: str, look: Callable[[], None]
    ) -> None:
        from imitation.data import rollout

        found = rollout.rollout(
            expert.load(),
            envs,
            rollout.make_sample_until(min_timesteps=self.demonstrations),
            rng=np.random.default_rng(self.seed),
            unwrap=False,
        )
        trainer.set_demonstrations(rollout.flatten_trajectories(found))
        trainer.train(n_epochs=1_000_000, on_batch_end=look, **_quiet())

    def _envs(self, expert: Expert) -> VecEnv:
        envs: VecEnv = DummyVecEnv([lambda: gymnasium.make(expert.task)] * self.num_envs)
        statistics = expert.statistics
        if statistics is not None:
            normalizing = VecNormalize(
                envs, training=False, norm_reward=False,
                clip_obs=statistics.clip_obs, epsilon=statistics.epsilon,
            )  # fmt: skip
            envs, moments = normalizing, statistics.groups[DEFAULT_GROUP]
            found: Any = normalizing.obs_rms
            found.mean, found.var = moments.mean, moments.var
        envs.seed(self.seed)
        return envs


def _quiet() -> dict[str, Any]:
    return {"progress_bar": False, "log_interval": 1_000_000_000}


def _no_step_size(_: float) -> float:
    """Imitation has an optimizer of its own; the policy's is not used."""
    return torch.finfo(torch.float32).max


if __name__ == "__main__":
    sys.exit(main(ImitationTrainers, "imitation_trainers"))
