"""One teacher teaches the same bits alone and as the only member of a composition."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from stable_baselines3 import PPO
from toy import TASK

import rltransfer as rt
from rltransfer.agents.policy_distillation import PolicyDistillation
from rltransfer.runs.config import RunOptions
from rltransfer.runs.run import Run

BREAKOUT = "rltransfer/MinAtar-Breakout-v0"
SOURCES = {"zoo": BREAKOUT, "run": TASK, "ppo.zip": "CartPole-v1"}
"""The task of each kind of teacher."""

WAYS: dict[str, Callable[[str, rt.Teacher], rt.Teacher]] = {
    "PerTask": lambda task, teacher: rt.PerTask({task: teacher}),
    "Ensemble": lambda task, teacher: rt.Ensemble([teacher]),
    "ProductOfExperts": lambda task, teacher: rt.ProductOfExperts([teacher]),
    "PerTask of Ensemble": lambda task, teacher: rt.PerTask({task: rt.Ensemble([teacher])}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teachers")
    rt.train(
        rt.agents.PPO(num_envs=4, rollout_length=10),
        suite=TASK,
        total_steps=80,
        run_dir=folder / "run",
        episodes=1,
        evaluate_episodes=0,
        quiet=True,
    )
    PPO("MlpPolicy", "CartPole-v1", device="cpu").save(folder / "ppo.zip")
    return folder


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def weights(teacher: rt.Teacher, task: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Returns the student's weights after three rollouts, in which the teacher acts at times."""
    method = PolicyDistillation(
        teacher=teacher, student=rt.policies.Network(width=0.25), teacher_acts=0.5, num_envs=8,
        rollout_length=16, batch_size=32, epochs=1,
    )  # fmt: skip
    run = Run(
        "policy-distillation", method, rt.Suite.of(task), RunOptions(seed=seed), Path("student")
    )
    for _ in range(3):
        run.iterate()
    run.engine.close()
    return run.agent.policy.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("source", SOURCES)
def test_the_student_is_the_same_bit_for_bit(source: str) -> None:
    task = SOURCES[source]

    def loaded() -> rt.Teacher:
        return rt.load_teacher(source, suite=rt.Suite.of(task))

    alone = weights(loaded(), task)
    for name, composed in WAYS.items():
        assert same(alone, weights(composed(task, loaded()), task)), name
    # Another seed, or a teacher that is another for being composed, gives another student.
    assert not same(alone, weights(loaded(), task, seed=1))
    assert not same(alone, weights(rt.Boltzmann(loaded(), temperature=2.0), task))
