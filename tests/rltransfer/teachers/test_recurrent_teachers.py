"""A recurrent teacher remembers each environment, and forgets at an episode's end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from recall_env import RECALL
from torch import Tensor

import rltransfer as rt
from rltransfer.agents.policy_distillation import PolicyDistillationAgent
from rltransfer.policies.network import Network
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.runs.config import RunOptions
from rltransfer.runs.run import Run
from rltransfer.teachers.policy_teacher import PolicyTeacher
from rltransfer.teachers.row_states import RowStates
from rltransfer.teachers.teacher import Teacher

TIME, ROWS, SIZE = 12, 6, 5
SMALL: dict[str, Any] = {"episodes": 20, "evaluate_episodes": 0, "quiet": True}


def gru_policy(seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    seen = spaces.Dict(policy=spaces.Box(-1, 1, (SIZE,), np.float32))
    network = Network(encoder="mlp", hidden=(8,), gru=7, normalize=False)
    policy = Policy(PolicySpec(network, seen, spaces.Discrete(3)))
    with torch.no_grad():
        policy.action_head.weight.normal_()
    return policy.eval()


def seen(seed: int = 1) -> tuple[dict[str, Tensor], Tensor]:
    """A sequence of observations, and where episodes begin."""
    generator = torch.Generator().manual_seed(seed)
    observation = torch.randn(TIME, ROWS, SIZE, generator=generator)
    start = torch.rand(TIME, ROWS, generator=generator) < 0.25
    start[0] = True
    return {"policy": observation}, start


def stepped(teacher: Teacher, task: Tensor | None = None) -> Tensor:
    """What a teacher says step by step.    (TIME, ROWS, 3)"""
    observation, start = seen()
    task = torch.zeros(ROWS, dtype=torch.int64) if task is None else task
    said = []
    for step in range(TIME):
        teacher.begin_step(start[step], task)
        said.append(teacher({"policy": observation["policy"][step]}, task).logits)
    return torch.stack([one for one in said if one is not None])


@torch.no_grad()
def test_step_by_step_is_the_whole_sequence() -> None:
    policy = gru_policy()
    observation, start = seen()
    expected = policy(observation, torch.zeros(TIME, ROWS, dtype=torch.int64), None, start).logits
    found = stepped(PolicyTeacher(policy, "it", ""))
    torch.testing.assert_close(found, expected)
    # A memory matters, and so does forgetting at an episode's end.
    never = policy(observation, None, None, torch.zeros_like(start)).logits
    assert not torch.allclose(never, expected, atol=1e-2)


@torch.no_grad()
def test_single_observations_are_an_episodes_first_and_change_nothing() -> None:
    policy = gru_policy()
    teacher, task = PolicyTeacher(policy, "it", ""), torch.zeros(ROWS, dtype=torch.int64)
    observation, start = seen()
    one = {"policy": observation["policy"][5]}
    first = policy(one, task).logits
    for step in range(3):
        teacher.begin_step(start[step], task)
        teacher({"policy": observation["policy"][step]}, task)
        torch.testing.assert_close(teacher(one, task).logits, first)
        torch.testing.assert_close(
            teacher({"policy": one["policy"][:2]}, task[:2]).logits, first[:2]
        )
    # Afterwards the next step goes on from the third.
    teacher.begin_step(start[3], task)
    found = teacher({"policy": observation["policy"][3]}, task).logits
    torch.testing.assert_close(found, stepped(PolicyTeacher(policy, "it", ""))[3])


@torch.no_grad()
@pytest.mark.parametrize(
    "composed",
    [
        lambda teacher: rt.Boltzmann(teacher, 1.0),
        lambda teacher: rt.Ensemble([teacher]),
        lambda teacher: rt.Boltzmann(rt.Ensemble([teacher]), 1.0),
    ],
)
def test_compositions_pass_the_steps_on(composed: Any) -> None:
    alone = stepped(PolicyTeacher(gru_policy(), "it", "")).softmax(-1)
    found = stepped(composed(PolicyTeacher(gru_policy(), "it", ""))).softmax(-1)
    torch.testing.assert_close(found, alone)


@torch.no_grad()
def test_each_task_of_several_has_its_own_rows() -> None:
    task = torch.tensor([0, 0, 1, 1, 1, 1])
    teachers = {name: PolicyTeacher(gru_policy(seed), name, "") for seed, name in enumerate("ab")}
    found = stepped(rt.PerTask(teachers), task)
    alone = [stepped(PolicyTeacher(gru_policy(seed), "it", "")) for seed in range(2)]
    torch.testing.assert_close(found[:, :2], alone[0][:, :2])
    torch.testing.assert_close(found[:, 2:], alone[1][:, 2:])


def test_dropout_needs_a_teacher_without_memory() -> None:
    with pytest.raises(rt.InputError, match="is recurrent: use a teacher without a GRU"):
        rt.MonteCarloDropout(PolicyTeacher(gru_policy(), "it", ""), samples=2, p=0.5)


def test_states_are_stored_set_aside_and_taken_up() -> None:
    states = RowStates(2)
    assert states.state_dict() == {}
    states.begin_step(torch.ones(3, dtype=torch.bool))
    states.after(torch.full((3, 2), 4.0))
    stored = states.state_dict()
    states.after(torch.full((3, 2), 9.0))  # not in a step
    assert torch.equal(states.state_dict()["states"], stored["states"])
    aside = states.set_aside()
    states.begin_step(torch.ones(1, dtype=torch.bool))
    states.after(torch.zeros(1, 2))
    states.take_up(aside)
    assert torch.equal(states.state_dict()["states"], torch.full((3, 2), 4.0))
    other = RowStates(2)
    other.load_state_dict(stored, torch.device("cpu"))
    other.begin_step(torch.tensor([True, False, False]))
    before, start = other.before(3, torch.device("cpu"))
    assert torch.equal(before, torch.full((3, 2), 4.0)) and start.tolist() == [True, False, False]


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a GRU that names the symbol from memory."""
    folder = tmp_path_factory.mktemp("recall") / "teacher"
    network = rt.policies.mlp(hidden=(16,), gru=16)
    method = rt.agents.PPO(
        num_envs=16, rollout_length=20, network=network, learning_rate=3e-3, batch_size=80
    )
    run = rt.train(method, suite=RECALL, total_steps=16_000, run_dir=folder, **SMALL)
    assert run.result["tasks"][RECALL]["return_mean"] > 4.5
    return folder


def test_a_recurrent_run_is_evaluated_and_teaches(remembering: Path, tmp_path: Path) -> None:
    (policy,) = rt.evaluate(remembering, episodes=40).values()
    (teacher,) = rt.evaluate(rt.load_teacher(remembering), RECALL, 40).values()
    assert teacher.returns == policy.returns and teacher.mean > 4.5
    method = rt.agents.PolicyDistillation(
        teacher=str(remembering), num_envs=16, rollout_length=20, learning_rate=3e-3,
        batch_size=80, student=rt.policies.mlp(hidden=(16,), gru=16),
    )  # fmt: skip
    run = rt.train(method, suite=RECALL, total_steps=16_000, run_dir=tmp_path / "gru", **SMALL)
    tasks = run.result["tasks"][RECALL]
    assert tasks["return_mean"] > 4.5 and tasks["teacher_return_mean"] > 4.5


def test_without_its_memory_the_teacher_knows_nothing(
    remembering: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PolicyTeacher, "begin_step", lambda *_: None)
    (teacher,) = rt.evaluate(rt.load_teacher(remembering), RECALL, 40).values()
    assert teacher.mean < 4


def distilling(remembering: Path, run_dir: Path) -> Run:
    method = rt.agents.PolicyDistillation(
        teacher=str(remembering), num_envs=4, rollout_length=8, batch_size=16, teacher_acts=1
    )
    options = RunOptions(total_steps=320, evaluate_every=64, evaluate_episodes=3, episodes=0)
    run = Run("policy-distillation", method, rt.Suite.of(RECALL), options, run_dir, quiet=True)
    return run


def test_resumed_equals_unbroken(remembering: Path, tmp_path: Path) -> None:
    whole = distilling(remembering, tmp_path / "whole")
    whole.begin(resume=False)
    whole.execute()

    broken = distilling(remembering, tmp_path / "broken")
    broken.begin(resume=False)
    for _ in range(3):
        broken.iterate()
    broken.save()
    broken.engine.close()
    broken._held.close()
    resumed = distilling(remembering, tmp_path / "broken")
    resumed.begin(resume=True)
    resumed.execute()
    pairs = zip(
        whole.agent.policy.state_dict().items(),
        resumed.agent.policy.state_dict().values(),
        strict=True,
    )
    for (name, one), other in pairs:
        assert torch.equal(one, other), name


def test_evaluations_do_not_disturb_the_labels(remembering: Path, tmp_path: Path) -> None:
    run = distilling(remembering, tmp_path / "run")
    agent = run.agent
    assert isinstance(agent, PolicyDistillationAgent)
    agent.begin_rollout(0.0)
    run.engine.collect(agent, 3)
    (states,) = agent.teacher.row_states()
    before = states.state_dict()["states"]
    run.evaluator.check_teacher()
    assert torch.equal(states.state_dict()["states"], before) and before.any()


def test_teachers_without_memory_have_no_states() -> None:
    teacher = rt.CallableTeacher(lambda seen, task: rt.PolicyOutput(logits=seen["policy"]))
    assert teacher.row_states() == []
