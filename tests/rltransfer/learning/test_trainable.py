"""What trains: frozen layers, gradual unfreezing, FreezeOut, and the pull to the source."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_initial_weights import policy
from torch import nn
from toy import TASK

import rltransfer as rt
from rltransfer.errors import InputError
from rltransfer.files.checkpoint import newest_checkpoint
from rltransfer.learning.layers import layer_of
from rltransfer.learning.learner import Learner, Loss
from rltransfer.learning.trainable import Freeze, Trainable
from rltransfer.policies.network import mlp

SMALL: dict[str, Any] = {"episodes": 0, "evaluate_episodes": 0, "quiet": True, "device": "cpu"}


def ppo() -> rt.agents.PPO:
    return rt.agents.PPO(num_envs=8, rollout_length=10, batch_size=40)


def total(module: nn.Module) -> torch.Tensor:
    return torch.stack([parameter.sum() for parameter in module.parameters()]).sum()


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(newest_checkpoint(run_dir) / "policy.safetensors")


@pytest.mark.parametrize(
    ("text", "progress", "rates"),
    [
        ("encoder", 0.5, [0, 0, 0, 1]),
        ("layers:2", 0.9, [0, 0, 1, 1]),
        ("layers:3->0@0.5", 0.0, [0, 0, 0, 1]),
        ("layers:3->0@0.5", 0.25, [0, 0, 1, 1]),  # 1.5 layers are frozen: 2
        ("layers:3->0@0.5", 0.5, [1, 1, 1, 1]),
        ("freezeout:0.25", 0.0, [1, 1, 1, 1]),
        # Layers end at 0.25, 0.5, 0.75 and 1.
        ("freezeout:0.25", 0.25, [0, 0.5, 0.75, 0.5 * (1 + math.cos(math.pi / 4))]),
        ("freezeout:0.25", 0.5, [0, 0, 0.25, 0.5]),
    ],
)
def test_rates_by_hand(text: str, progress: float, rates: list[float]):
    freeze = Freeze.of(text)
    assert freeze is not None
    found = [freeze.rate(layer, 4, progress) for layer in (1, 2, 3, 4)]
    assert found == pytest.approx(rates)


@pytest.mark.parametrize(
    "text",
    [
        "heads",
        "layers",
        "layers:",
        "layers:x",
        "layers:-1",
        "freezeout:2",
        "freezeout:0->1",
        "encoder:2",
    ],
)
def test_other_texts_are_refused(text: str):
    with pytest.raises(InputError):
        Freeze.of(text)


def test_a_step_of_each_layer_has_its_size():
    made = policy(mlp(hidden=(8, 4)), value=False)
    learner = Learner(made, learning_rate=0.1, optimizer="sgd")
    trainable = Trainable(made, learner, Freeze.of("freezeout:0.5"))
    trainable.begin_rollout(0.5)  # the layers end at 0.5, 0.75 and 1
    before = {name: value.detach().clone() for name, value in made.named_parameters()}
    learner.update([{}], lambda _: Loss(total(made)))
    for name, value in made.named_parameters():
        rate = [0.0, 0.25, 0.5][layer_of(name, made) - 1]
        step = torch.full_like(value, -0.1 * rate)
        torch.testing.assert_close(value.detach() - before[name], step, rtol=0, atol=1e-6)


def test_the_pull_is_the_gradient_of_half_the_squared_distance():
    made = policy(mlp(hidden=(8,)), value=False)
    learner = Learner(made, learning_rate=1.0, optimizer="sgd")
    trainable = Trainable(made, learner, pull=0.25)
    source = made.encoder.layers[0].weight.detach().clone()
    trainable.pull_to_source(["encoder.layers.0.weight"])
    made.encoder.layers[0].weight.data += 2.0
    bias = made.encoder.layers[0].bias.detach().clone() + 5.0
    made.encoder.layers[0].bias.data += 5.0
    metrics = learner.update(
        [{}], lambda _: Loss(0 * torch.stack([p.sum() for p in made.parameters()]).sum())
    )
    # 0.25 / 2 * 2^2 for each weight.
    assert metrics["l2_to_source"] == pytest.approx(0.5 * source.numel(), rel=1e-5)
    # 2 - 0.25 * 2; the bias was not loaded.
    torch.testing.assert_close(made.encoder.layers[0].weight.detach(), source + 1.5)
    assert torch.equal(made.encoder.layers[0].bias.detach(), bias)


def test_more_layers_than_there_are_cannot_be_frozen():
    made = policy(mlp(hidden=(8,)))
    with pytest.raises(InputError, match="freeze at most 1"):
        Trainable(made, Learner(made, learning_rate=1.0), Freeze.of("layers:2"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "run"
    rt.train(ppo(), suite=TASK, total_steps=160, run_dir=folder, **SMALL)
    return folder


def test_frozen_tensors_are_bit_equal_at_the_end(source: Path, tmp_path: Path):
    rt.train(
        ppo(),
        suite=TASK,
        total_steps=320,
        run_dir=tmp_path / "run",
        seed=1,
        init_from=source,
        freeze="encoder",
        **SMALL,
    )
    before, after = weights(source), weights(tmp_path / "run")
    for name, tensor in after.items():
        frozen = "_head" not in name and name != "log_std"
        assert torch.equal(tensor, before[name]) is frozen, name


def test_a_new_run_keeps_the_source_and_its_hash(source: Path, tmp_path: Path):
    run = rt.train(
        ppo(), suite=TASK, total_steps=80, run_dir=tmp_path / "run", init_from=source, **SMALL
    )
    entry = rt.runs.config.read_config(tmp_path / "run")["init_from"]
    assert entry["source"] == str(source) and len(entry["sha256"]) == 64
    assert {row.status for row in run.initial_weights} == {"loaded"}


def test_resumed_equals_unbroken_without_the_source(source: Path, tmp_path: Path):
    moved = tmp_path / "source"
    shutil.copytree(source, moved)
    options: dict[str, Any] = {
        "suite": TASK,
        "seed": 1,
        "init_from": moved,
        "freeze": "layers:2->0@0.5",
        "l2_to_source": 0.1,
        "checkpoint_every": 160,
        **SMALL,
    }
    rt.train(ppo(), total_steps=640, run_dir=tmp_path / "whole", **options)
    rt.train(ppo(), total_steps=640, run_dir=tmp_path / "broken", **options)
    folders = sorted((tmp_path / "broken" / "checkpoints").iterdir())
    shutil.rmtree(folders[-1])
    (tmp_path / "broken" / "result.json").unlink()
    shutil.rmtree(moved)
    rt.train(ppo(), total_steps=640, run_dir=tmp_path / "broken", resume=True, **options)
    whole, broken = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_from": "nowhere"}, "is not a run directory"),
        ({"init_without": ("head",)}, "nothing is loaded"),
        ({"init_layers": 2}, "nothing is loaded"),
        ({"l2_to_source": 0.1}, "nothing is loaded"),
        ({"l2_to_source": -1.0}, "l2_to_source is -1.0"),
        ({"freeze": "layers:7"}, "the policy has 3 layers"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    options: dict[str, Any], message: str, tmp_path: Path
):
    with pytest.raises(InputError, match=message):
        rt.train(ppo(), suite=TASK, total_steps=80, run_dir=tmp_path / "run", **options, **SMALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("brief_check")
def test_a_loaded_policy_keeps_the_units_of_its_actions(tmp_path: Path) -> None:
    small: dict[str, Any] = {
        "suite": "Pendulum-v1", "total_steps": 64, "evaluate_episodes": 0, "episodes": 0,
        "quiet": True,
    }  # fmt: skip
    learned = rt.train(
        rt.agents.PPO(num_envs=2, rollout_length=16), run_dir=tmp_path / "ppo", **small
    ).agent.policy
    teacher = rt.CallableTeacher(
        lambda observation, task: rt.PolicyOutput(mean=0.1 * observation["policy"][:, :1])
    )
    method = rt.agents.PolicyDistillation(
        teacher=teacher, student=learned.spec.network, objective="mse", num_envs=2,
        rollout_length=16, learning_rate=1e-12,
    )  # fmt: skip
    fresh = rt.train(method, run_dir=tmp_path / "fresh", **small).agent.policy
    assert fresh.action_half_range is not None and fresh.action_half_range.item() < 1
    started = rt.train(
        method, run_dir=tmp_path / "started", init_from=tmp_path / "ppo", freeze="encoder", **small
    ).agent.policy
    assert torch.equal(started.action_half_range, learned.action_half_range)
    seen = {"policy": torch.rand(5, 3)}
    torch.testing.assert_close(started(seen).mean, learned(seen).mean)
