"""What code of users is tried on before a run: observations that the environments show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from fitting import fitted_teacher
from gymnasium import spaces
from torch import Tensor, nn

import rltransfer as rt
from rltransfer.agents import PolicyDistillation
from rltransfer.rollouts.evaluation import evaluate_teacher, probe_spaces
from rltransfer.tasks.observation import Observation

CPU = torch.device("cpu")
CORRIDORS = rt.Suite.of("first-test/Corridor5-v0", "first-test/Corridor3-v0")
QUICK: dict[str, Any] = {"episodes": 0, "evaluate_episodes": 0, "quiet": True}


class Corridor(gymnasium.Env[Any, Any]):
    """Walks along numbered places, of which the agent sees its own: a one-hot row."""

    def __init__(self, places: int) -> None:
        self.observation_space = spaces.Discrete(places, start=2)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = 3
        return self.place, {}

    def step(self, action: int) -> Any:
        self.place += 1
        return self.place - 1, 1.0, self.place == 5, False, {}


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    for places in (5, 3):
        gymnasium.register(
            f"first-test/Corridor{places}-v0", lambda places=places: Corridor(places)
        )


def must_be_one_hot(seen: Tensor) -> Tensor:
    assert seen.shape[1] == 5
    assert (seen.sum(1) == 1).all() and ((seen == 0) | (seen == 1)).all()
    return seen


def score(observation: Observation, task: Tensor) -> rt.PolicyOutput:
    return rt.PolicyOutput(logits=must_be_one_hot(observation["policy"])[:, :2])


def turned(observation: Observation) -> Observation:
    seen = observation["policy"]
    assert (seen.sum(1) == 1).all()  # unpadded, before it is fitted to the suite
    return {"policy": seen.flip(1)}


class Programmed(nn.Module):
    """A program that fails on other observations."""

    def forward(self, x: Tensor) -> Tensor:
        if bool((x.sum(1) != 1).any()):
            raise RuntimeError("not one-hot")
        return x[:, :2]


def program(folder: Path) -> rt.Teacher:
    torch.jit.save(torch.jit.script(Programmed()), folder / "program.pt")
    return rt.load_teacher(folder / "program.pt")


TEACHERS: dict[str, tuple[Callable[[Path], rt.Teacher], rt.Suite]] = {
    "function": (lambda _: rt.CallableTeacher(score), CORRIDORS),
    "Adapted": (lambda _: rt.Adapted(rt.CallableTeacher(lambda o, t: rt.PolicyOutput(
        logits=o["policy"][:, :2])), observation=turned), CORRIDORS),
    "program": (program, rt.Suite.of(CORRIDORS.tasks[0])),
    "Adapted program": (
        lambda folder: rt.Adapted(program(folder), observation=turned),
        rt.Suite.of(CORRIDORS.tasks[0]),
    ),
    "picked": (
        lambda folder: rt.Adapted(program(folder), observation=(1, 0, 2, 4, 3)),
        rt.Suite.of(CORRIDORS.tasks[0]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TEACHERS)
def test_no_observation_is_made_up(name: str, tmp_path: Path) -> None:
    make, suite = TEACHERS[name]
    method = PolicyDistillation(teacher=make(tmp_path), num_envs=2, rollout_length=4)
    rt.train(method, suite=suite, total_steps=16, run_dir=tmp_path / "run", **QUICK)
    fitted_teacher(make(tmp_path), suite, CPU)
    evaluate_teacher(make(tmp_path), suite, 2, seed=0, device=CPU)


def test_a_suite_holds_the_first_observation_of_each_task() -> None:
    suite = probe_spaces(CORRIDORS, CPU)
    shown = suite.first_observations(CPU)["policy"]
    assert shown.tolist() == [[0, 1, 0, 0, 0]] * 2 and shown.dtype == torch.float32
    assert [one.first_observation()["policy"].shape for one in suite.own] == [(1, 5), (1, 3)]
    # It is not part of what is compared: another episode may begin elsewhere.
    assert suite.with_shown({"policy": torch.zeros(2, 5)}) == suite
    other = suite.of_task(1).padded_to(suite.observation_space, suite.action_space)
    assert other.first_observations(CPU)["policy"].tolist() == [[0, 1, 0, 0, 0]]
