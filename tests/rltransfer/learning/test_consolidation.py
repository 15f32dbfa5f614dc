"""Elastic weight consolidation: the Fisher information, the pull, and what it keeps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from signs import FIRST, SECOND, settings
from test_initial_weights import policy
from toy import TASK

import rltransfer as rt
from rltransfer.errors import InputError
from rltransfer.files.checkpoint import newest_checkpoint
from rltransfer.learning.consolidation import Consolidation, fisher_information
from rltransfer.learning.learner import Learner, Loss
from rltransfer.policies.network import mlp

SMALL: dict[str, Any] = {"episodes": 0, "evaluate_episodes": 0, "quiet": True, "device": "cpu"}


def ppo() -> rt.agents.PPO:
    return rt.agents.PPO(**settings())


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(newest_checkpoint(run_dir) / "policy.safetensors")


def test_the_fisher_information_of_a_softmax_by_hand() -> None:
    """Of logits W h + b: E[(d log pi / d W_jm)^2] = p_j (1 - p_j) h_m^2."""
    torch.manual_seed(0)
    made = policy(mlp(hidden=(8,)))
    shape = made.spec.observation_space["policy"].shape
    one = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    observation = {"policy": one.repeat(4000, *[1] * len(shape))}
    task = torch.zeros(4000, dtype=torch.int64)
    with torch.no_grad():
        made.action_head.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
        output = made({"policy": observation["policy"][:1]}, task[:1])
    found = fisher_information(made, observation, task, torch.Generator().manual_seed(0))
    variance = output.logits.softmax(-1)[0] * (1 - output.logits.softmax(-1)[0])
    assert variance.min() > 0.03 and output.logits.softmax(-1).max() > 0.4
    expected = variance[:, None] * output.features[0].square()
    assert expected.max() > 0.02
    torch.testing.assert_close(found["action_head.weight"], expected, rtol=0.1, atol=5e-3)
    torch.testing.assert_close(found["action_head.bias"], variance, rtol=0.1, atol=5e-3)
    # The policy does not depend on the value's weights.
    assert all(not one.any() for name, one in found.items() if name.startswith("value_head"))


def test_the_pull_of_two_tasks_by_hand() -> None:
    made = policy(mlp(hidden=(8,)), value=False)
    learner = Learner(made, learning_rate=1.0, optimizer="sgd")
    consolidation = Consolidation(made, learner, 0.5)
    start = {name: one.detach().clone() for name, one in made.named_parameters()}
    for shift, importance in ((1.0, 0.25), (-2.0, 0.75)):
        consolidation.add(
            "run",
            {name: one + shift for name, one in start.items()},
            {name: torch.full_like(one, importance) for name, one in start.items()},
        )
    no_loss = [{}], lambda _: Loss(0 * torch.stack([p.sum() for p in made.parameters()]).sum())
    metrics = learner.update(*no_loss)
    # The gradient is 0.5 * (0.25 * (0 - 1) + 0.75 * (0 + 2)) = 0.625.
    for name, one in made.named_parameters():
        torch.testing.assert_close(one.detach(), start[name] - 0.625)
    # The sum is least at (0.25 * 1 + 0.75 * -2) / (0.25 + 0.75) = -1.25 from the start:
    # 0.5 / 2 * 1.25^2 for each weight.
    count = sum(one.numel() for one in start.values())
    assert metrics["ewc"] == pytest.approx(0.390625 * count, rel=1e-5)

    state = consolidation.state_dict()
    other = policy(mlp(hidden=(8,)), value=False)
    other.load_state_dict(start, strict=False)
    learner = Learner(other, learning_rate=1.0, optimizer="sgd")
    Consolidation(other, learner, 0.5).load_state_dict(state)
    learner.update([{}], lambda _: Loss(0 * sum(p.sum() for p in other.parameters())))
    for name, one in other.named_parameters():
        torch.testing.assert_close(one.detach(), start[name] - 0.625)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first") / "run"
    rt.train(ppo(), suite=FIRST, total_steps=12_000, seed=3, run_dir=folder, **SMALL)
    return folder


def returns(run_dir: Path, task: rt.Task) -> float:
    (found,) = rt.evaluate(run_dir, task, 20).values()
    return found.mean


def test_a_task_is_remembered_while_another_is_learned(first: Path, tmp_path: Path) -> None:
    """Without the pull, the second task's policy forgets the first; with it, it knows both."""
    assert returns(first, FIRST) == 10
    then = {"suite": SECOND, "total_steps": 12_000, "init_from": first, "seed": 100_003, **SMALL}
    rt.train(ppo(), run_dir=tmp_path / "plain", **then)
    rt.train(ppo(), run_dir=tmp_path / "ewc", ewc_from=[first], ewc_weight=30, **then)
    assert returns(tmp_path / "plain", SECOND) == returns(tmp_path / "ewc", SECOND) == 10
    assert returns(tmp_path / "ewc", FIRST) == 10
    assert returns(tmp_path / "plain", FIRST) <= 7


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("remembered", [True, False])
def test_who_begins_with_what_it_remembers_keeps_its_statistics(
    first: Path, begun: bool, remembered: bool, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"init_from": first} if begun else {}
    options |= {"ewc_from": [first], "ewc_weight": 1.0} if remembered else {}
    rt.train(ppo(), suite=SECOND, total_steps=640, run_dir=tmp_path / "run", **options, **SMALL)
    name = "encoder.normalizer.mean"
    same = torch.equal(weights(tmp_path / "run")[name], weights(first)[name])
    assert same is (begun and remembered)


def test_resumed_equals_unbroken_without_the_earlier_run(first: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    shutil.copytree(first, gone)
    options = {"suite": SECOND, "init_from": gone, "ewc_from": [gone], "ewc_weight": 5.0}
    options |= {"checkpoint_every": 160, **SMALL}
    rt.train(ppo(), run_dir=tmp_path / "whole", total_steps=640, **options)

    class StopError(Exception):
        pass

    def stop(event: rt.RunEvent) -> None:
        if event.kind == "rollout" and event.step >= 320:
            raise StopError

    with pytest.raises(StopError):
        rt.train(
            ppo(), run_dir=tmp_path / "broken", total_steps=640,
            callbacks=[stop], **options,
        )  # fmt: skip
    shutil.rmtree(gone)
    rt.train(
        ppo(), run_dir=tmp_path / "broken", total_steps=640, resume=True,
        **options,
    )  # fmt: skip
    whole, broken = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(broken[name], one) for name, one in whole.items())


def test_refusals(first: Path, tmp_path: Path) -> None:
    def train(**options: Any) -> None:
        method = options.pop("method", ppo())
        suite = options.pop("suite", SECOND)
        rt.train(method, suite=suite, total_steps=160, run_dir=tmp_path / "run", **options, **SMALL)

    with pytest.raises(InputError, match="ewc_weight is 0: set both"):
        train(ewc_from=[first])
    with pytest.raises(InputError, match="ewc_weight is 5, but there are no earlier runs"):
        train(ewc_weight=5)
    with pytest.raises(InputError, match="missing, which is not a run directory"):
        train(ewc_from=["missing"], ewc_weight=5)
    with pytest.raises(InputError, match="another network than this run"):
        train(ewc_from=[first], ewc_weight=5, suite=TASK)
    with pytest.raises(InputError, match="ewc_weight is -1"):
        train(ewc_from=[first], ewc_weight=-1)
    assert not (tmp_path / "run").exists()
