"""Teachers are modules: they move, copy and stay frozen as such, and keep their own state."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import fitted_teacher, spaces_of
from gymnasium import spaces
from torch import Tensor, nn
from toy import SHORT_TASK, TASK

import rltransfer as rt
from rltransfer.agents import PolicyDistillation
from rltransfer.policies.network import Network
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.tasks.observation import Observation
from rltransfer.teachers.policy_teacher import PolicyTeacher
from rltransfer.teachers.teacher import Teacher

CPU = torch.device("cpu")
TWO = rt.Suite.of(TASK, SHORT_TASK)
SEEN, ROWS = {"policy": torch.eye(4)}, torch.tensor([0, 0, 1, 1])
QUICK: dict[str, Any] = {"episodes": 1, "evaluate_episodes": 0, "quiet": True}


def policy_teacher(seed: int = 0) -> PolicyTeacher:
    """A policy of both tasks with a head for each, so that it needs the task's index."""
    torch.manual_seed(seed)
    seen = spaces.Dict(policy=spaces.Box(0, 1, (4,)))
    network = Network(hidden=(8,), heads="per-task")
    policy = Policy(PolicySpec(network, seen, spaces.Discrete(4), num_tasks=2))
    return PolicyTeacher(policy, f"runs/{seed}", "0", TWO)


def reads(observation: Observation, task: Tensor) -> rt.PolicyOutput:
    return rt.PolicyOutput(logits=3 * observation["policy"])


def random_teacher() -> Teacher:
    one = rt.CallableTeacher(reads)
    return rt.Ensemble([rt.Vote([one, rt.Noisy(one, sigma=2.0)], 1.0), rt.Noisy(one, sigma=0.5)])


def test_tensors_are_buffers_that_move_and_are_no_weights() -> None:
    seen = spaces.Dict(policy=spaces.Box(0, 1, (4,)))
    fits = spaces_of(TWO, [(seen, spaces.Discrete(3)), (seen, spaces.Discrete(4))])
    function = rt.CallableTeacher(reads).fitted(fits)
    assert isinstance(function, rt.CallableTeacher) and function._padding_mask is not None
    adapted = rt.Adapted(policy_teacher(), observation=(3, 2, 1, 0))
    fitted = fitted_teacher(policy_teacher(), TWO, CPU)
    for teacher, count in ((function, 1), (adapted, 1), (fitted, 1)):
        own = {name for name, _ in teacher.named_buffers() if "module" not in name}
        assert len(own) == count and not own & set(teacher.state_dict())
        moved = copy.deepcopy(teacher).to("meta")
        assert {one.device.type for one in (*moved.buffers(), *moved.parameters())} == {"meta"}
    names = {name for name, _ in rt.Vote([adapted], 1.0).named_buffers(recurse=False)}
    assert names == {"labels", "moments", "orders"}


@pytest.mark.parametrize("make", [policy_teacher, lambda: rt.CallableTeacher(reads)])
def test_a_fitted_teacher_does_not_change_the_one_it_was_made_of(make: Any) -> None:
    teacher = make()
    buffers = dict(teacher._buffers)
    turned = rt.Suite.of(SHORT_TASK, TASK)
    first, second = (fitted_teacher(teacher, suite, CPU) for suite in (TWO, turned))
    expected = first(SEEN, ROWS).logits
    assert torch.equal(second(SEEN, 1 - ROWS).logits, expected)
    assert torch.equal(first(SEEN, ROWS).logits, expected)
    assert teacher._buffers == buffers and not any(one is not None for one in buffers.values())
    assert first._buffers is not teacher._buffers


def test_nothing_puts_a_teacher_in_training_mode() -> None:
    teacher = fitted_teacher(rt.PerTask({TASK: policy_teacher(), SHORT_TASK: policy_teacher(1)}),
                             TWO, CPU)  # fmt: skip
    holder = nn.ModuleDict({"teacher": teacher})
    holder.train()
    assert holder.training and not any(one.training for one in teacher.modules())
    assert list(teacher.parameters()) and not any(p.requires_grad for p in teacher.parameters())


def test_no_learner_holds_a_teachers_parameters(tmp_path: Path) -> None:
    method = PolicyDistillation(teacher=policy_teacher(), num_envs=4, rollout_length=10)
    run = rt.train(method, suite=TWO, total_steps=80, run_dir=tmp_path / "run", **QUICK)
    assert run.agent.teacher is not None
    held = {id(one) for one in run.agent.teacher.parameters()}
    assert held and not held & {id(one) for one in run.agent.policy.parameters()}
    assert not held & {id(one) for one in run.agent.learner.module.parameters()}


def test_a_module_as_a_function_stays_the_users() -> None:
    class Scores(nn.Linear):
        def forward(self, observation: Observation, task: Tensor) -> Any:  # type: ignore[override]
            return rt.PolicyOutput(logits=super().forward(observation["policy"]))

    class Turned(nn.Module):
        def forward(self, observation: Observation) -> Observation:
            return {"policy": observation["policy"].flip(1)}

    scores, turned = Scores(4, 4), Turned()
    teacher = rt.Adapted(rt.CallableTeacher(scores), observation=turned)
    assert not list(teacher.parameters()) and scores.training and turned.training
    expected = scores(turned(SEEN), ROWS).logits
    assert torch.equal(teacher(SEEN, ROWS).logits, expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_draws_and_counts_for_itself(copied: Any) -> None:
    teacher = random_teacher()
    teacher.seed(3)
    teacher(SEEN, ROWS)
    twin = copied(teacher)
    expected = teacher(SEEN, ROWS).logits
    assert teacher.figures()["labels/0"] == 8 and twin.figures()["labels/0"] == 4
    assert torch.equal(twin(SEEN, ROWS).logits, expected)
    assert len(twin.generators()) == len(teacher.generators()) == 3


def test_the_state_of_a_checkpoint_has_the_form_that_it_always_had() -> None:
    """The nested names that checkpoints of every version contain, written by hand."""
    teacher = random_teacher()
    teacher.seed(3)
    states = [generator.get_state() for generator in teacher.generators()]
    vote, inner, noisy = states
    saved = {
        "0": {
            "0": {},
            "1": {"0": {}, "generator": inner},
            "generator": vote,
            "labels": torch.tensor(70),
            "moments": torch.full((40,), 0.5, dtype=torch.float64),
        },
        "1": {"0": {}, "generator": noisy},
    }
    expected = teacher(SEEN, ROWS).logits
    other = random_teacher()
    other.load_label_state(saved)
    assert other.figures()["labels/0"] == 70
    assert torch.equal(other(SEEN, ROWS).logits, expected)

    def names(state: dict[str, Any]) -> dict[str, Any]:
        return {k: names(v) if isinstance(v, dict) else None for k, v in state.items()}

    assert names(other.label_state()) == names(saved)


def test_a_teacher_is_shown_as_it_is_written() -> None:
    assert repr(policy_teacher()) == "'runs/0'"
    assert repr(random_teacher()).startswith("Ensemble(Vote(a function, ")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_cuda_generators_restart_and_policies_are_stacked() -> None:
    cuda = torch.device("cuda")
    noisy = rt.Noisy(policy_teacher(), sigma=0.5)
    noisy.seed(3)
    (seed,) = (one.initial_seed() for one in noisy.generators())
    (generator,) = noisy.to(cuda).generators()
    assert generator.device.type == "cuda" and generator.initial_seed() == seed
    assert noisy.to(cuda).generators()[0] is generator
    seen = spaces.Dict(policy=spaces.Box(0, 1, (4,)))
    spec = PolicySpec(Network(hidden=(8,)), seen, spaces.Discrete(4))
    policies = {task: PolicyTeacher(Policy(spec), task, "0") for task in (TASK, SHORT_TASK)}
    each = rt.PerTask(policies)
    expected = each(SEEN, ROWS).logits
    assert each._stacked is None
    on_cuda = {name: group.to(cuda) for name, group in SEEN.items()}
    found = each.to(cuda)(on_cuda, ROWS.to(cuda)).logits
    assert each._stacked is not None
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-5)
