"""The group `history` shows the last observations of an episode, and a student learns from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from toy import SHORT_TASK, SYMBOLS, TASK

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.rollouts.actors import RandomActor
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.tasks.history import GROUP, OPTION
from rltransfer.tasks.making import make_vector_env

CPU = torch.device("cpu")
FIRST_SIGN = "tests/FirstSign-v0"


class FirstSign(gymnasium.Env[np.ndarray, np.int64]):
    """A sign at first, then blanks, and the sign has to be named in each of four steps.

    The group `sign` always shows it: what a teacher sees, and a student does not.
    """

    observation_space = spaces.Dict(
        policy=spaces.Box(0, 1, (2,), np.float32), sign=spaces.Box(0, 1, (2,), np.float32)
    )
    action_space = spaces.Discrete(2)

    def _show(self) -> dict[str, np.ndarray]:
        sign = np.eye(2, dtype=np.float32)[self.sign]
        return {"policy": sign * (self.steps == 0), "sign": sign}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.sign, self.steps = int(self.np_random.integers(2)), 0
        return self._show(), {}

    def step(self, action: np.int64) -> Any:
        self.steps += 1
        return self._show(), float(action == self.sign), self.steps == 4, False, {}


gymnasium.register(FIRST_SIGN, FirstSign)


def teach(seen: rt.Observation, task: torch.Tensor) -> rt.PolicyOutput:
    return rt.PolicyOutput(logits=5.0 * seen["sign"])


@pytest.mark.parametrize("task_id", [TASK, SHORT_TASK, "CartPole-v1", FIRST_SIGN])
@pytest.mark.parametrize("length", [1, 3])
def test_it_is_what_was_seen_since_the_episodes_start(task_id: str, length: int) -> None:
    task = rt.Task(task_id, {OPTION: length})
    engine = RolloutEngine(rt.Suite.of(task), 3, CPU, 0)
    actor = RandomActor(engine.spaces, torch.Generator().manual_seed(0))
    rollout = engine.collect(actor, 40)
    seen, past = rollout.observation["policy"], rollout.observation[GROUP]
    size = seen.shape[-1]
    assert past.shape == (40, 3, length * size) and rollout.start.any(0).all()
    for row in range(3):
        began = 0
        for step in range(40):
            began = step if rollout.start[step, row] else began
            shown = seen[max(began, step - length + 1) : step + 1, row].flatten()
            expected = torch.cat([torch.zeros(length * size - len(shown)), shown])
            torch.testing.assert_close(past[step, row], expected)
    engine.close()


def test_the_last_observation_of_an_episode_has_its_own_history() -> None:
    env = make_vector_env(rt.Task(SHORT_TASK, {OPTION: 2}), 2, CPU)
    before, _ = env.reset(seed=0)
    for _ in range(40):
        previous = before["policy"].clone()
        before, _, terminated, truncated, info = env.step(torch.zeros(2, dtype=torch.int64))
        for row in (terminated | truncated).nonzero().flatten().tolist():
            final = info["final_obs"]
            own = final["policy"][row] if isinstance(final, dict) else final[row]
            torch.testing.assert_close(final[GROUP][row], torch.cat([previous[row], own]))
            blank = torch.zeros(SYMBOLS)
            torch.testing.assert_close(
                before[GROUP][row], torch.cat([blank, before["policy"][row]])
            )


def test_resumed_episodes_go_on_with_their_history() -> None:
    task = rt.Task(TASK, {OPTION: 3})
    engine = RolloutEngine(rt.Suite.of(task), 3, CPU, 0)
    actor = RandomActor(engine.spaces, torch.Generator().manual_seed(0))
    engine.collect(actor, 7)
    state, generator = engine.state_dict(), actor.generator.get_state()
    expected = engine.collect(actor, 5).observation[GROUP].clone()
    again = RolloutEngine(rt.Suite.of(task), 3, CPU, 1)
    assert again.load_state_dict(state) == []
    other = RandomActor(again.spaces, torch.Generator())
    other.generator.set_state(generator)
    assert torch.equal(again.collect(other, 5).observation[GROUP], expected)


def test_a_student_reads_what_its_teacher_need_not(tmp_path: Path) -> None:
    returns = {}
    for groups in ("policy", "history"):
        method = rt.agents.PolicyDistillation(
            teacher=rt.CallableTeacher(teach), num_envs=16, rollout_length=20, batch_size=80,
            learning_rate=3e-3, epochs=4,
            student=rt.policies.Network(groups=(groups,), hidden=(16,)),
        )  # fmt: skip
        run = rt.train(
            method, suite=rt.Task(FIRST_SIGN, {OPTION: 4}), total_steps=8_000, episodes=40,
            run_dir=tmp_path / groups, evaluate_episodes=0, quiet=True,
        )  # fmt: skip
        (task,) = run.result["tasks"].values()
        returns[groups] = task["return_mean"]
    # Who sees only blanks after the first step guesses: 1 + 3 / 2.
    assert returns["history"] > 3.9 and returns["policy"] < 3


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--total-steps", "64", "--num-envs", "2", "--rollout-length", "8", "--episodes", "1"]
    words = ["--task", "CartPole-v1", "--history", "4", "--groups", "history", "--run-dir", "run"]
    assert main(["train", "ppo", *words, *small, "--evaluate-episodes", "0", "--quiet"]) == 0
    assert main(["evaluate", "run", "--episodes", "1"]) == 0
    policy = rt.load_teacher("run")
    assert (
        policy({"history": torch.zeros(3, 16)}, torch.zeros(3, dtype=torch.int64)).logits
        is not None
    )


@pytest.mark.parametrize(
    ("task", "length", "sentence"),
    [
        ("rltransfer/MinAtar-Breakout-v0", 4, "is not a vector: leave out observation_history"),
        ("CartPole-v1", 0, "is 0: it must be at least 1"),
        ("CartPole-v1", "four", "is 'four': it must be a whole number"),
        ("CartPole-v1", 10**6, "it must be at most 10,000"),
    ],
)
def test_what_is_refused(task: str, length: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make_vector_env(rt.Task(task, {OPTION: length}), 1, CPU)
