"""Observation transforms: the same episodes, seen otherwise, through every part that looks."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.rollouts.actors import RandomActor
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.tasks.making import make_vector_env
from rltransfer.tasks.task import OBSERVATION_TRANSFORM as OPTION

CPU = torch.device("cpu")
BREAKOUT = "rltransfer/MinAtar-Breakout-v0"
ROTATED = {OPTION: "rotate_channels"}


class Stripes(gymnasium.Env[np.ndarray, np.int64]):
    """A picture whose channels, which come last, hold 10, 20 and 30; it ends at step 3."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 255, (12, 12, 3), np.uint8)
        self.action_space = spaces.Discrete(2)
        self.steps = 0

    def _picture(self) -> np.ndarray:
        values = np.array([10, 20, 30], np.uint8) + self.steps
        return np.broadcast_to(values, (12, 12, 3)).astype(np.uint8)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.steps = 0
        return self._picture(), {}

    def step(self, action: np.int64):
        self.steps += 1
        return self._picture(), 1.0, False, self.steps == 3, {}


gymnasium.register("tests/Stripes-v0", Stripes)


def rollouts(task: rt.Task, state: dict | None = None):
    engine = RolloutEngine(rt.Suite.of(task), 4, CPU, 0)
    if state is not None:
        assert engine.load_state_dict(state) == []
    actor = RandomActor(engine.spaces, torch.Generator().manual_seed(0))
    rollout = engine.collect(actor, 40)
    return engine, rollout


def test_the_same_episodes_with_every_channel_moved() -> None:
    _, plain = rollouts(rt.Task(BREAKOUT))
    engine, moved = rollouts(rt.Task(BREAKOUT, ROTATED))
    assert torch.equal(plain.reward, moved.reward) and plain.reward.any()
    before, after = plain.observation["policy"], moved.observation["policy"]
    channels = before.shape[2]
    for channel in range(channels):
        assert torch.equal(after[:, :, (channel + 1) % channels], before[:, :, channel])
    assert not torch.equal(before, after)

    # A checkpoint goes on where it stopped.
    state = engine.state_dict()
    _, resumed = rollouts(rt.Task(BREAKOUT, ROTATED), state)
    actor = RandomActor(engine.spaces, torch.Generator().manual_seed(0))
    assert torch.equal(
        engine.collect(actor, 40).observation["policy"], resumed.observation["policy"]
    )


def test_host_images_and_the_last_observation() -> None:
    env = make_vector_env(rt.Task("tests/Stripes-v0", ROTATED), 2, CPU)
    assert env.single_observation_space.shape == (3, 12, 12)
    observation, _ = env.reset(seed=0)
    assert observation[0, :, 0, 0].tolist() == [30, 10, 20]
    for _ in range(3):
        observation, _, _, truncated, info = env.step(torch.zeros(2, dtype=torch.int64))
    assert truncated.all()
    assert info["final_obs"][1, :, 5, 5].tolist() == [33, 13, 23]
    assert observation[1, :, 5, 5].tolist() == [30, 10, 20]
    env.close()


def test_bounds_move_with_their_channels() -> None:
    low = np.zeros((2, 8, 8), np.float32)
    high = np.stack([np.ones((8, 8)), np.full((8, 8), 5)]).astype(np.float32)
    space = spaces.Box(low, high)

    class Unequal(Stripes):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = space

        def _picture(self) -> np.ndarray:
            return space.high

    gymnasium.register("tests/Unequal-v0", Unequal)
    options = {**ROTATED, "image_layout": "channels_first"}
    env = make_vector_env(rt.Task("tests/Unequal-v0", options), 1, CPU)
    moved = env.single_observation_space
    assert moved.high[:, 0, 0].tolist() == [5, 1] and space.high[:, 0, 0].tolist() == [1, 5]
    observation, _ = env.reset(seed=0)
    assert moved.contains(observation[0].numpy())
    env.close()


def test_stacked_frames_stay_in_their_order() -> None:
    task = rt.Task("ALE/Pong-v5", {**ROTATED})
    with pytest.raises(InputError, match="'ALE/Pong-v5' have one channel"):
        make_vector_env(task, 1, CPU)


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (rt.Task("CartPole-v1", ROTATED), "'CartPole-v1' is not an image"),
        (rt.Task(BREAKOUT, {OPTION: "rotate"}), "no observation_transform 'rotate'"),
        (rt.Task(BREAKOUT, {OPTION: "noise+"}), "'noise\\+': join names by single pluses"),
        (rt.Task(BREAKOUT, {OPTION: 3}), "no observation_transform '3'"),
    ],
)
def test_what_no_transform_fits(task: rt.Task, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make_vector_env(task, 1, CPU)


def test_a_run_trains_evaluates_and_is_a_teacher(tmp_path: Path) -> None:
    task = rt.Task(BREAKOUT, ROTATED)
    run = rt.train(
        rt.agents.PPO(num_envs=4, rollout_length=16), suite=task, total_steps=256,
        run_dir=tmp_path / "run", episodes=2, evaluate_episodes=0, quiet=True,
    )  # fmt: skip
    assert run.result["tasks"][BREAKOUT]["return_mean"] >= 0
    student = rt.agents.PolicyDistillation(
        teacher=str(tmp_path / "run"), num_envs=4, rollout_length=16
    )
    rt.train(
        student, suite=task, total_steps=128, run_dir=tmp_path / "student", episodes=2,
        evaluate_episodes=0, quiet=True,
    )  # fmt: skip


def test_the_command_line_takes_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--total-steps", "128", "--num-envs", "4", "--rollout-length", "16", "--episodes", "1"]
    train = ["train", "ppo", "--task", BREAKOUT, "--transform", "noise", "--run-dir", "run"]
    assert main([*train, *words, "--evaluate-episodes", "0", "--quiet"]) == 0
    config = json.loads(Path("run/config.json").read_text())
    assert config["suite"]["tasks"] == [{"id": BREAKOUT, "kwargs": {OPTION: "noise"}}]
    assert main(["evaluate", "run", "--transform", "invert", "--episodes", "1"]) == 0
    assert main(["evaluate", "zoo", "--transform", "invert"]) == 2
    assert main(["train", "--resume", "run", "--transform", "invert"]) == 2
    refused = capsys.readouterr().err
    assert "add --task ID" in refused and "resumes with its own tasks: omit --transform" in refused
