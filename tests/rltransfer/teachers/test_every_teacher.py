"""What holds of every class of teachers: precision, inference mode, and inputs that stay as is."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from fitting import spaces_of
from gymnasium import spaces
from stable_baselines3 import DDPG, DQN, PPO, SAC
from torch import Tensor, nn

import rltransfer as rt
from rltransfer.policies.network import Network
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.tasks.observation import Observation
from rltransfer.tasks.suite_spaces import SuiteSpaces
from rltransfer.teachers.composition import Composition
from rltransfer.teachers.policy_teacher import PolicyTeacher
from rltransfer.teachers.teacher import ModuleTeacher, Teacher, in_this_package
from rltransfer.teachers.transformed import Wrapper

FOUR = spaces.Dict(policy=spaces.Box(-1, 1, (4,), np.float32))
SIX = spaces.Dict(policy=spaces.Box(-1, 1, (6,), np.float32))
THREE = spaces.Dict(policy=spaces.Box(-8, 8, (3,), np.float32))
CARTPOLE = spaces_of(rt.Suite.of("CartPole-v1"), [(FOUR, spaces.Discrete(2))])
PENDULUM = spaces_of(rt.Suite.of("Pendulum-v1"), [(THREE, spaces.Box(-2, 2, (1,), np.float32))])
HALVED = spaces_of(rt.Suite.of("Pendulum-v1"), [(THREE, spaces.Box(-1, 1, (1,), np.float32))])
BOTH = spaces_of(
    rt.Suite.of("CartPole-v1", "Acrobot-v1"),
    [(FOUR, spaces.Discrete(2)), (SIX, spaces.Discrete(3))],
)


class Clamps(nn.Module):
    """A program that changes its input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.clamp_(-0.1, 0.1))
        return out


def clamps(observation: Observation, task: Tensor) -> rt.PolicyOutput:
    """A function that changes its input in place."""
    task.add_(1)
    return rt.PolicyOutput(logits=observation["policy"].clamp_(-0.1, 0.1)[:, :2])


def turned(observation: Observation) -> Observation:
    return {"policy": observation["policy"].mul_(-1.0)}


class Foreign(Teacher):
    """A teacher of another package, which changes its input in place."""

    source, num_parameters = "foreign", 0

    def forward(self, observation: Observation, task: Tensor, needs: Any = ()) -> rt.PolicyOutput:
        return clamps(observation, task)


class ForeignPolicy(Policy):
    """A policy of another package, which changes its input in place."""

    def forward(self, observation: Observation, *rest: Any, **options: Any) -> rt.PolicyOutput:
        observation["policy"].clamp_(-0.1, 0.1)
        return super().forward(observation, *rest, **options)


def policy(name: str = "CartPole-v1", kind: type[Policy] = Policy, seed: int = 0) -> Teacher:
    torch.manual_seed(seed)
    (own,) = {"CartPole-v1": CARTPOLE, "Pendulum-v1": PENDULUM}.get(name, BOTH.of_task(1)).own
    made = kind(PolicySpec(Network(hidden=(8,)), own.observation, own.action))
    return PolicyTeacher(made, f"runs/{seed}", "0", rt.Suite.of(name))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    few: dict[str, dict[str, Any]] = {"PPO": {"n_steps": 8, "batch_size": 8}}
    for name, kind, task in (
        ("ppo", PPO, "CartPole-v1"), ("dqn", DQN, "CartPole-v1"), ("sac", SAC, "Pendulum-v1"),
        ("ddpg", DDPG, "Pendulum-v1"), ("gauss", PPO, "Pendulum-v1"),
    ):  # fmt: skip
        options: dict[str, Any] = few.get(kind.__name__, {"buffer_size": 8})
        small = kind("MlpPolicy", task, policy_kwargs={"net_arch": [8]}, seed=0, **options)
        small.save(folder / f"{name}.zip")
    torch.manual_seed(0)
    torch.jit.save(torch.jit.script(Clamps()), folder / "clamps.pt")
    return folder


class Case(NamedTuple):
    make: Callable[[Path], Teacher]
    spaces: SuiteSpaces = CARTPOLE


def load(name: str) -> Callable[[Path], Teacher]:
    return lambda files: rt.load_teacher(files / name)


def mixed(kind: Any, *names: str, **options: Any) -> Callable[[Path], Teacher]:
    return lambda files: kind([rt.load_teacher(files / name) for name in names], **options)


CASES = {
    "policy": Case(lambda _: policy()),
    "Gaussian policy": Case(lambda _: policy("Pendulum-v1"), PENDULUM),
    "PPO": Case(load("ppo.zip")),
    "DQN": Case(load("dqn.zip")),
    "SAC": Case(load("sac.zip"), PENDULUM),
    "program": Case(load("clamps.pt")),
    "function": Case(lambda _: rt.CallableTeacher(clamps)),
    "foreign": Case(lambda _: Foreign()),
    "foreign policy": Case(lambda _: policy(kind=ForeignPolicy)),
    "Adapted": Case(lambda _: rt.Adapted(policy(), observation=(3, 2, 1, 0), action=(1, 0))),
    "Adapted by a function": Case(lambda _: rt.Adapted(policy(), observation=turned)),
    "Adapted bounds": Case(lambda _: rt.Adapted(policy("Pendulum-v1"), bounds="scale"), HALVED),
    "Boltzmann": Case(lambda files: rt.Boltzmann(rt.load_teacher(files / "dqn.zip"))),
    "Noisy": Case(lambda _: rt.Noisy(policy(), sigma=0.5)),
    "MonteCarloDropout": Case(lambda _: rt.MonteCarloDropout(policy(), samples=3, p=0.5)),
    "Ensemble": Case(lambda _: rt.Ensemble([rt.CallableTeacher(clamps), policy()])),
    "Ensemble of Gaussians": Case(mixed(rt.Ensemble, "gauss.zip", "gauss.zip"), PENDULUM),
    "Ensemble with DDPG": Case(mixed(rt.Ensemble, "gauss.zip", "sac.zip", "ddpg.zip"), PENDULUM),
    "ProductOfExperts": Case(mixed(rt.ProductOfExperts, "clamps.pt", "ppo.zip")),
    "Vote": Case(mixed(rt.Vote, "clamps.pt", "ppo.zip", "dqn.zip", noise_scale=0.5)),
    "PerTask": Case(
        lambda _: rt.PerTask({"CartPole-v1": rt.Noisy(policy(), 0.2),
                              "Acrobot-v1": rt.CallableTeacher(clamps)}), BOTH,
    ),
    "PerTask of policies": Case(
        lambda _: rt.PerTask({"CartPole-v1": policy(kind=ForeignPolicy),
                              "Acrobot-v1": policy("Acrobot-v1")}), BOTH,
    ),
}  # fmt: skip
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def rows(case: Case) -> tuple[Observation, Tensor]:
    size = case.spaces.observation_space["policy"].shape
    assert size is not None
    task = torch.arange(len(case.spaces.suite)).repeat_interleave(3)
    seen = torch.randn(len(task), *size, generator=torch.Generator().manual_seed(0))
    return {"policy": seen}, task


def labels(teacher: Teacher, observation: Observation, task: Tensor) -> dict[str, Tensor]:
    teacher.seed(5)
    return teacher(observation, task).tensors()


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == expected[name].dtype and torch.equal(found[name], expected[name])
        for name in expected
    )


def test_every_class_is_here(files: Path) -> None:
    def kinds(kind: type[Any]) -> Iterator[type[Any]]:
        for below in kind.__subclasses__():
            yield from (below, *kinds(below))

    known = {kind for kind in kinds(Teacher) if in_this_package(kind)}
    here = {type(one) for case in CASES.values() for one in case.make(files).modules()}
    assert known - {ModuleTeacher, Composition, Wrapper} <= here


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_of_a_holder_changes_nothing(case: Case, dtype: torch.dtype, files: Path) -> None:
    observation, task = rows(case)
    teacher = case.make(files).fitted(case.spaces)
    expected = labels(teacher, observation, task)
    assert all(value.isfinite().all() for value in expected.values())
    before = {name: one.dtype for name, one in teacher.named_buffers()}
    nn.ModuleDict({"teacher": teacher}).to(dtype)
    assert {name: one.dtype for name, one in teacher.named_buffers()} == before
    assert same(labels(teacher, observation, task), expected)
    again = case.make(files).to(dtype).fitted(case.spaces)
    assert same(labels(again, observation, task), expected)
    teacher.load_label_state(teacher.label_state())
    assert all(np.isfinite(value) for value in teacher.figures().values())


@EVERY
def test_inference_mode_changes_nothing(case: Case, files: Path) -> None:
    observation, task = rows(case)
    teacher = case.make(files).fitted(case.spaces)
    expected = labels(teacher, observation, task)
    for mode in (torch.inference_mode, torch.no_grad, contextlib.nullcontext):
        with mode():
            own = {name: group.clone() for name, group in observation.items()}, task.clone()
            assert same(labels(teacher, *own), expected)


@EVERY
def test_what_a_teacher_changes_in_place_reaches_nobody(case: Case, files: Path) -> None:
    observation, task = rows(case)
    first = {"policy": observation["policy"][::3].clone()}
    before = copy.deepcopy((observation, task, first))
    teacher = case.make(files).fitted(case.spaces.with_shown(first))
    once, again = (labels(teacher, observation, task) for _ in range(2))
    assert same(once, again)
    assert torch.equal(observation["policy"], before[0]["policy"])
    assert torch.equal(task, before[1])
    assert torch.equal(first["policy"], before[2]["policy"])
