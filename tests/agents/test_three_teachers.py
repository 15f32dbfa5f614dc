"""One student of three teachers that others trained, whose observations and actions differ."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import rltransfer as rt
from rltransfer.agents.policy_distillation import PolicyDistillation, PolicyDistillationAgent
from rltransfer.nested import map_nested
from rltransfer.rollouts.rollout import Rollout

FOLDER = Path(os.environ.get("RLTRANSFER_TEACHERS", ""))
pytestmark = pytest.mark.skipif(
    "RLTRANSFER_TEACHERS" not in os.environ,
    reason="RLTRANSFER_TEACHERS does not name the folder of published teachers",
)

CARTPOLE, LANDER, ACROBOT = "CartPole-v1", "LunarLander-v3", "Acrobot-v1"
CLOSE = {CARTPOLE: 0.9, LANDER: 0.15, ACROBOT: 0.9}
"""The share of the way from random actions to the teacher that a short run must go. The lander's
return hangs on few landings: three seeds went 0.34 to 0.48, the other tasks 0.99 and more."""


def distilled(run_dir: Path) -> dict[str, float]:
    """Returns for each task the share of the way from random actions to the teacher."""
    a2c, statistics = (FOLDER / f"a2c-Acrobot-v1.{kind}" for kind in ("zip", "vecnormalize.pkl"))
    each = {
        CARTPOLE: f"Boltzmann('{FOLDER / 'dqn-CartPole-v1.zip'}')",
        LANDER: f"Boltzmann('{FOLDER / 'dqn-LunarLander-v2.zip'}', temperature=3)",
        ACROBOT: f"load_teacher('{a2c}', vecnormalize='{statistics}')",
    }
    method = PolicyDistillation(
        teacher=f"PerTask({{{', '.join(f'{task!r}: {text}' for task, text in each.items())}}})",
        student=rt.policies.Network(heads="per-task", statistics="per-task"),
        num_envs=16, rollout_length=32, batch_size=256, epochs=8, learning_rate=3e-3,
        teacher_acts="1->0@0.5",
    )  # fmt: skip
    run = rt.train(
        method, suite=rt.Suite.of(*each), total_steps=16_000, run_dir=run_dir, episodes=8,
        evaluate_episodes=0, quiet=True,
    )  # fmt: skip
    return {
        task: (row["return_mean"] - row["random_return_mean"])
        / (row["teacher_return_mean"] - row["random_return_mean"])
        for task, row in run.result["tasks"].items()
    }


def test_one_student_learns_from_a_dqn_another_dqn_and_an_a2c(tmp_path: Path) -> None:
    share = distilled(tmp_path / "run")
    assert all(share[task] > bar for task, bar in CLOSE.items()), share


def test_labels_of_another_task_teach_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = PolicyDistillationAgent.batches

    def turned(self: PolicyDistillationAgent, rollout: Rollout) -> Any:
        label = rollout.extras["label"]
        rolled = map_nested(lambda tensor: tensor.roll(self.method.num_envs, 1), label)
        rollout.extras["label"] = rolled
        return straight(self, rollout)

    monkeypatch.setattr(PolicyDistillationAgent, "batches", turned)
    share = distilled(tmp_path / "run")
    assert all(share[task] < bar for task, bar in CLOSE.items()), share
