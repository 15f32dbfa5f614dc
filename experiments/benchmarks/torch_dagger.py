"""Plain PyTorch: DAgger as one file, until the student keeps 95 % of its teacher's return.

    RLTRANSFER_TEACHERS=FOLDER python -m rltransfer.experiments.benchmarks.torch_dagger \
        --expert walker2d

Gymnasium's vector environments, the zip loaded by Stable-Baselines3, Adam, and one tensor of all
steps so far. The teacher acts at first, and less and less. The student has the teacher's layers and
sees what the teacher sees. Each step is learned from 16 times, as in rltransfer's default.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from .script import main
from .teacher_clock import TimedStudent, TrainingOver


@dataclass(frozen=True, kw_only=True)
class TorchDagger(TimedStudent):
    """Seconds of a plain DAgger loop to the teacher's return."""

    num_envs: int = 8
    """Number of environments."""
    rollout_length: int = 64
    """Steps per environment between two updates."""
    epochs: int = 16
    """How often each step is learned from."""
    batch_size: int = 256
    """Samples per minibatch."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    teacher_steps: int = 50_000
    """Environment steps until the student acts alone."""
    threads: int = 0
    """Number of torch threads; 0 leaves the choice to torch."""

    def run(self) -> dict[str, Any]:
        """Runs the measurement."""
        if self.threads:
            torch.set_num_threads(self.threads)
        expert, clock = self.teacher, self.clock()
        clock.start()
        torch.manual_seed(self.seed)
        rng = np.random.default_rng(self.seed)
        teacher, normalize = expert.act(), expert.normalize
        envs = gymnasium.make_vec(expert.task, num_envs=self.num_envs, vectorization_mode="sync")
        space = envs.single_action_space
        discrete = isinstance(space, spaces.Discrete)
        low, high = (space.low, space.high) if isinstance(space, spaces.Box) else (None, None)
        student = _mlp(expert.hidden, spaces.flatdim(envs.single_observation_space), space)
        optimizer = torch.optim.Adam(student.parameters(), lr=self.learning_rate)

        @torch.no_grad()
        def act(observation: NDArray[Any]) -> NDArray[Any]:
            output = student(torch.from_numpy(normalize(observation)))
            found: NDArray[Any] = (output.argmax(-1) if discrete else output).numpy()
            return found if low is None else np.clip(found, low, high)

        seen: list[Tensor] = []
        labels: list[Tensor] = []
        observation, _ = envs.reset(seed=self.seed)
        steps = 0
        with contextlib.suppress(TrainingOver):
            while True:
                for _ in range(self.rollout_length):
                    label = teacher(observation)
                    seen.append(torch.from_numpy(normalize(observation)))
                    labels.append(torch.from_numpy(np.asarray(label)))
                    taught = rng.random(self.num_envs) < 1 - steps / self.teacher_steps
                    turn = taught if discrete else taught[:, None]
                    action = np.where(turn, label, act(observation))
                    observation, *_ = envs.step(action)
                    steps += self.num_envs
                inputs, targets = torch.cat(seen), torch.cat(labels)
                updates = self.epochs * self.num_envs * self.rollout_length // self.batch_size
                for _ in range(updates):
                    rows = torch.randint(len(inputs), (self.batch_size,))
                    output = student(inputs[rows])
                    loss = (
                        F.cross_entropy(output, targets[rows])
                        if discrete
                        else F.mse_loss(output, targets[rows])
                    )
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                clock.look(act)
        return {**clock.result(), "env_steps": steps, "threads": torch.get_num_threads()}


def _mlp(hidden: Sequence[int], units: int, action_space: spaces.Space[Any]) -> nn.Sequential:
    """A network with one output for each action, or for each dimension of an action."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(units, width), nn.ReLU()]
        units = width
    return nn.Sequential(*layers, nn.Linear(units, spaces.flatdim(action_space)))


if __name__ == "__main__":
    sys.exit(main(TorchDagger, "torch_dagger"))
