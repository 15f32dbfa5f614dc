"""Policies with a memory from other libraries' files are teachers as our own are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recall_env import RECALL
from sb3_contrib import RecurrentPPO
from torch import Tensor, nn

import rltransfer as rt
from rltransfer.importers.script_state import BufferStates
from rltransfer.learning.agent import Agent
from rltransfer.rollouts.evaluation import probe_spaces
from rltransfer.runs.config import RunOptions
from rltransfer.runs.run import Run
from rltransfer.teachers.file_teacher import FileTeacher
from rltransfer.teachers.labeller import Labeller
from rltransfer.teachers.teacher import Teacher

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

TIME, ROWS, SIZE = 10, 4, 4
CPU = torch.device("cpu")
BEST = 5.0


def remember(lstm: nn.LSTM, head: nn.Linear) -> None:
    """Sets weights by hand that name the symbol from memory.

    The gates of torch's LSTM are input, forget, cell and output. Three are open: c' = c + tanh(5 x)
    and h = tanh(c'), which stays near 0.76 for the symbol and at 0 for the other.
    """
    with torch.no_grad():
        for parameter in (*lstm.parameters(), head.bias):
            parameter.zero_()
        lstm.bias_ih_l0.copy_(torch.tensor([20.0, 20, 20, 20, 0, 0, 20, 20]))
        lstm.weight_ih_l0[4:6] = 5 * torch.eye(2)
        head.weight.copy_(10 * torch.eye(2))


class Exported(nn.Module):
    """A program with the state of one environment."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.actor = nn.LSTM(2, 2), nn.Linear(2, 2)
        self.register_buffer("hidden_state", torch.zeros(1, 1, 2))
        self.register_buffer("cell_state", torch.zeros(1, 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        out, (h, c) = self.memory(x.unsqueeze(0), (self.hidden_state, self.cell_state))
        self.hidden_state[:] = h
        self.cell_state[:] = c
        return self.actor(out.squeeze(0))


class Passing(nn.Module):
    """A program that takes its state as an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.actor = nn.LSTM(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out, (h, c) = self.memory(x.unsqueeze(0), (h, c))
        return self.actor(out.squeeze(0)), h, c


@pytest.fixture(scope="module", params=["zip", "script", "frozen script", "script with arguments"])
def remembering(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that names the symbol from memory: of RecurrentPPO, or TorchScript."""
    folder = tmp_path_factory.mktemp("files")
    if request.param == "zip":
        model = RecurrentPPO(
            "MlpLstmPolicy", RECALL, n_steps=8, seed=0, device="cpu",
            policy_kwargs={"net_arch": [], "lstm_hidden_size": 2},
        )  # fmt: skip
        policy: Any = model.policy
        remember(policy.lstm_actor, policy.action_net)
        model.save(folder / "remembers.zip")
        return folder / "remembers.zip"
    module = (Passing() if "arguments" in request.param else Exported()).eval()
    remember(module.memory, module.actor)
    script = torch.jit.script(module)
    path = folder / "remembers.pt"
    torch.jit.save(torch.jit.freeze(script) if "frozen" in request.param else script, path)
    return path


def loaded(path: Path) -> Teacher:
    """The teacher of a file, fitted to the task."""
    return rt.load_teacher(path).fitted(probe_spaces(rt.Suite.of(RECALL), CPU))


def observations() -> tuple[Tensor, Tensor]:
    """Symbols shown at random times, and where episodes begin."""
    generator = torch.Generator().manual_seed(3)
    seen = torch.rand(TIME, ROWS, 2, generator=generator)
    start = torch.rand(TIME, ROWS, generator=generator) < 0.3
    start[0] = True
    return seen, start


def stepped(teacher: Teacher, task: Tensor | None = None) -> Tensor:
    """What a teacher outputs step by step, as probabilities.    (TIME, ROWS, 2)"""
    seen, start = observations()
    task = torch.zeros(ROWS, dtype=torch.int64) if task is None else task
    outputs = []
    for observation, first in zip(seen, start, strict=True):
        teacher.begin_step(first, task)
        outputs.append(teacher({"policy": observation}, task).preferences().softmax(-1))
    return torch.stack(outputs)


@torch.no_grad()
def test_compositions_pass_the_steps_on(remembering: Path) -> None:
    alone = stepped(loaded(remembering))
    name = repr(str(remembering))
    for text in (
        f"Ensemble({name}, {name})",
        f"Boltzmann({name}, temperature=1.0)",
        f"Boltzmann(Adapted({name}, action=[0, 1]), temperature=1.0)",
        f"Adapted(Ensemble({name}), action=[0, 1])",
    ):
        spaces = probe_spaces(rt.Suite.of(RECALL), CPU)
        teacher = rt.load_teacher(text).fitted(spaces)
        torch.testing.assert_close(stepped(teacher), alone, msg=text)
        states = teacher.label_state()
        first = stepped(teacher)[-1]
        teacher.load_label_state(states)
        torch.testing.assert_close(stepped(teacher)[-1], first)


@torch.no_grad()
def test_each_task_of_several_has_its_own_rows(remembering: Path) -> None:
    alone = stepped(loaded(remembering))
    teacher = rt.PerTask({name: loaded(remembering) for name in ("a", "b", "c")})
    torch.testing.assert_close(stepped(teacher, torch.tensor([0, 0, 0, 2])), alone)
    # A task without rows in a step is not in a step afterwards.
    one = {"policy": observations()[0][4, :1]}
    for index in range(3):
        found = teacher(one, torch.tensor([index])).logits
        torch.testing.assert_close(found, loaded(remembering)(one, torch.zeros(1)).logits)


def test_it_plays_from_memory(remembering: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rt.evaluate(remembering, RECALL, 20)[RECALL].mean == BEST
    assert rt.evaluate(f"PerTask({{{RECALL!r}: {str(remembering)!r}}})", RECALL, 20)[
        RECALL
    ].mean == pytest.approx(BEST)
    summary = rt.summarize_teacher(remembering, RECALL, 20)
    assert summary.returns[RECALL].mean == BEST and summary.to_json()["state_size"] == SIZE
    assert ("memory", "4 numbers for each environment") in summary.rows()
    monkeypatch.setattr(FileTeacher, "begin_step", lambda *_: None)
    assert rt.evaluate(rt.load_teacher(remembering), RECALL, 40)[RECALL].mean < 4


def distilling(teacher: Path, run_dir: Path) -> Run:
    method = rt.agents.PolicyDistillation(
        teacher=str(teacher), num_envs=4, rollout_length=8, batch_size=16, teacher_acts=1
    )
    options = RunOptions(total_steps=320, evaluate_every=64, evaluate_episodes=3, episodes=0)
    return Run("policy-distillation", method, rt.Suite.of(RECALL), options, run_dir, quiet=True)


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
    for (name, one), other in zip(
        _weights(whole.agent).items(), _weights(resumed.agent).values(), strict=True
    ):
        assert torch.equal(one, other), name


def _weights(agent: Agent) -> dict[str, Tensor]:
    return agent.policy.state_dict()


def test_gradients_of_a_label_do_not_reach_earlier_steps(remembering: Path) -> None:
    teacher = loaded(remembering)
    if isinstance(getattr(teacher.module, "memory", None), BufferStates):
        pytest.skip("Programs that change their state in place have no gradient.")
    labeller = Labeller(teacher, {"jacobian"}, ("policy",), None)
    seen, start = observations()
    task = torch.zeros(ROWS, dtype=torch.int64)
    for observation, first in zip(seen, start, strict=True):
        teacher.begin_step(first, task)
        assert labeller({"policy": observation}, task).jacobian is not None
    (states,) = teacher.row_states()
    stored = states.state_dict()["states"]
    assert not stored.requires_grad and stored.any()
