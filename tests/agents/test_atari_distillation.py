"""Atari end to end: frames, labels, student and curves flow; the score is not the point."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rltransfer as rt
from rltransfer.agents import PPO, PolicyDistillation
from rltransfer.runs.config import RunOptions
from rltransfer.runs.run import Run

PONG = "ALE/Pong-v5"
CAPPED = rt.Task(PONG, {"max_num_frames_per_episode": 400})
"""Games are cut after 100 steps, for the test's sake."""


@pytest.mark.usefixtures("brief_check")
def test_pong_is_distilled(tmp_path: Path) -> None:
    quick = {"episodes": 2, "evaluate_episodes": 0, "quiet": True}
    rt.train(
        PPO(num_envs=4, rollout_length=16, batch_size=32, epochs=1), suite=CAPPED, total_steps=128,
        run_dir=tmp_path / "teacher", **quick,
    )  # fmt: skip
    run = rt.train(
        PolicyDistillation(
            teacher=str(tmp_path / "teacher"), student=rt.policies.conv(width=0.5), num_envs=4,
            rollout_length=16, batch_size=32, epochs=1, memory_steps=512,
        ),
        suite=CAPPED, total_steps=256, run_dir=tmp_path / "student", **quick,
    )  # fmt: skip
    # Rusu 2015: the first student has a quarter of the teacher's parameters.
    share = run.result["student_parameters"] / run.result["teacher_parameters"]
    assert 0.24 < share < 0.27
    # A lost point is -1 and nothing else: rewards are whole, and games of 100 steps end early.
    assert -21 <= run.result["tasks"][PONG]["return_mean"] <= 0
    events = EventAccumulator(str(tmp_path / "student"))
    events.Reload()
    assert {"train/kl", "train/agreement", "speed/labels_per_second"} <= set(
        events.Tags()["scalars"]
    )
    # Each frame is stored once: 84 x 84 bytes a step, a label of six logits, and little else.
    memory = run.agent.memory
    per_step = memory.nbytes() / (memory.length * memory.num_rows)
    assert 7056 <= per_step < 7056 + 64


def test_stacks_from_the_memory_are_what_the_student_would_have_seen(tmp_path: Path) -> None:
    teacher = rt.CallableTeacher(lambda o, t: rt.PolicyOutput(logits=torch.zeros(len(t), 6)))
    method = PolicyDistillation(
        teacher=teacher, num_envs=4, rollout_length=40, batch_size=32, memory_steps=1_000
    )
    run = Run("x", method, rt.Suite.of(CAPPED), RunOptions(), tmp_path / "run")
    seen, agent = [], run.agent
    for _ in range(4):
        rollout = run.engine.collect(agent, 40)
        seen.append(rollout.observation["policy"].clone())
        next(iter(agent.batches(rollout)))
    run.engine.close()
    stacks = agent.memory.take(torch.arange(len(agent.memory)))["observation"]["policy"]
    assert torch.equal(stacks, torch.cat(seen).flatten(0, 1))
