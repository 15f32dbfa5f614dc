"""rltransfer: seconds until a student keeps 95 % of its teacher's return, with default options.

    RLTRANSFER_TEACHERS=FOLDER python -m rltransfer.experiments.benchmarks.time_to_teacher \
        --expert walker2d

The clock starts after all imports, before the zip is read, and includes the check of the teacher.
See `teacher_clock.py` for what is measured.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rltransfer.agents import PolicyDistillation
from rltransfer.policies.policy import Policy
from rltransfer.runs.callbacks import RunEvent
from rltransfer.runs.train import train
from rltransfer.tasks.observation import DEFAULT_GROUP

from .experts import Act
from .script import main
from .teacher_clock import TimedStudent, TrainingOver


@dataclass(frozen=True, kw_only=True)
class TimeToTeacher(TimedStudent):
    """Seconds of rltransfer's policy distillation to the teacher's return."""

    def run(self) -> dict[str, Any]:
        """Runs the measurement."""
        expert, clock = self.teacher, self.clock()
        steps = 0

        def look(event: RunEvent) -> None:
            nonlocal steps
            steps = event.step
            if event.kind == "rollout":
                clock.look(greedy(event.policy))

        clock.start()
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(TrainingOver):
            train(
                PolicyDistillation(teacher=str(expert.path)), suite=expert.task,
                run_dir=f"{folder}/run", seed=self.seed, device="cpu", quiet=True,
                evaluate_episodes=0, episodes=0, callbacks=[look],
            )  # fmt: skip
        return {**clock.result(), "env_steps": steps}


def greedy(policy: Policy) -> Act:
    """The greedy actions of a student."""

    @torch.no_grad()
    def act(observation: NDArray[Any]) -> NDArray[Any]:
        rows = torch.from_numpy(np.asarray(observation, np.float32))
        task = torch.zeros(len(rows), dtype=torch.long)
        action: NDArray[Any] = policy({DEFAULT_GROUP: rows}, task).greedy().numpy()
        return action

    return act


if __name__ == "__main__":
    sys.exit(main(TimeToTeacher, "time_to_teacher"))
