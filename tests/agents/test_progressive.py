"""Progressive networks: the layers by hand, columns that never change, and a column that learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

import rltransfer as rt
from rltransfer.agents import progressive as progressive_agents
from rltransfer.agents.progressive_policy import (
    Adapter,
    ProgressivePolicy,
    ProgressiveSpec,
)
from rltransfer.errors import InputError
from rltransfer.policies.network import Network
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.policies.saving import load_policy, save_policy
from rltransfer.runs.evaluate import load_run_policy
from rltransfer.tasks.task import Suite

BREAKOUT, FREEWAY = "rltransfer/MinAtar-Breakout-v0", "rltransfer/MinAtar-Freeway-v0"
GRID = Network(encoder="grid", channels=(4,), hidden=(8, 6))
VECTORS = Network(encoder="mlp", hidden=(8, 6), normalize=False)
SUITE = Suite.of("a")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """One network in a hundred has no unit that is active, and so no output to look at."""
    torch.manual_seed(0)


def plain(network: Network, shape: tuple[int, ...], actions: int = 3, **rest: Any) -> PolicySpec:
    space = spaces.Box(0, 1, shape, np.float32)
    return PolicySpec(network, spaces.Dict(policy=space), spaces.Discrete(actions), **rest)


def progressive(new: PolicySpec, *earlier: PolicySpec, alpha: float = 0.1) -> ProgressivePolicy:
    fields = {field.name: getattr(new, field.name) for field in dataclasses.fields(PolicySpec)}
    suites = (SUITE,) * len(earlier)
    return ProgressivePolicy(ProgressiveSpec(**fields, earlier=earlier, suites=suites), alpha)


def scrambled(policy: Policy) -> Policy:
    """Weights that are neither zero nor symmetric."""
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return policy


SHAPES = pytest.mark.parametrize(
    ("network", "shape"), [(GRID, (3, 10, 10)), (VECTORS, (5,))], ids=["grid", "mlp"]
)


@SHAPES
def test_without_lateral_weights_it_is_a_plain_network_bit_for_bit(
    network: Network, shape: tuple[int, ...]
) -> None:
    spec = plain(network, shape)
    policy = progressive(spec, spec)
    scrambled(policy)
    alone = Policy(spec)
    alone.encoder.load_state_dict(policy.encoder.state_dict())
    for own, theirs in (
        (alone.action_head, policy.action_head), (alone.value_head, policy.value_head),
    ):  # fmt: skip
        assert own is not None and theirs is not None
        own.load_state_dict({"weight": theirs.weight, "bias": theirs.bias})
    alone.value_encoder = None
    seen = {"policy": torch.rand(7, *shape)}
    assert not torch.equal(policy(seen).logits, alone(seen).logits)
    with torch.no_grad():
        for adapter in policy.adapters:
            adapter.unite.weight.zero_()
        for head in (policy.action_head, policy.value_head):
            for lateral in head.outputs():
                lateral.weight.zero_()
                lateral.bias.zero_()
    assert torch.equal(policy(seen).logits, alone(seen).logits)
    assert torch.equal(policy(seen).value, alone(seen).value)


def column(encoder: Any, inputs: Tensor, laterals: list[Tensor | None]) -> list[Tensor]:
    """The features of a grid network by hand: a convolution and two linear layers."""
    conv, first, second = (layer for layer in encoder.layers if hasattr(layer, "weight"))
    h1 = F.relu(F.conv2d(inputs, conv.weight, conv.bias))
    lateral = [0.0 if one is None else one for one in laterals]
    h2 = F.relu(h1.flatten(1) @ first.weight.T + first.bias + lateral[0])
    h3 = F.relu(h2 @ second.weight.T + second.bias + lateral[1])
    return [h1, h2, h3]


def test_the_layers_by_hand() -> None:
    # Two earlier columns, one of them narrower; the new one is wider.
    narrow, wide = dataclasses.replace(GRID, width=0.5), dataclasses.replace(GRID, width=2.0)
    shape = (3, 10, 10)
    policy = progressive(plain(wide, shape), plain(narrow, shape), plain(GRID, shape))
    scrambled(policy)
    x = torch.rand(5, *shape)
    one, two = (column(each.encoder, x, [None, None]) for each in policy.policies)
    first, second = policy.adapters
    a, b = first.alpha
    reduced = F.relu(F.conv2d(torch.cat([a * one[0], b * two[0]], 1), first.project.weight))
    assert reduced.shape[1] == 8  # the new column's channels
    to_h2 = reduced.flatten(1) @ first.unite.weight.T
    conv, linear, last = (layer for layer in policy.encoder.layers if hasattr(layer, "weight"))
    h1 = F.relu(F.conv2d(x, conv.weight, conv.bias))
    h2 = F.relu(h1.flatten(1) @ linear.weight.T + linear.bias + to_h2)
    a, b = second.alpha
    reduced = F.relu(torch.cat([a * one[1], b * two[1]], 1) @ second.project.weight.T)
    assert reduced.shape[1] == 16
    h3 = F.relu(h2 @ last.weight.T + last.bias + reduced @ second.unite.weight.T)
    head = policy.action_head
    logits = h3 @ head.weight.T + head.bias
    for lateral, features in zip(head.outputs(), (one[2], two[2]), strict=True):
        logits = logits + features @ lateral.weight.T + lateral.bias
    torch.testing.assert_close(policy({"policy": x}).logits, logits)


@SHAPES
def test_with_one_lateral_weight_the_output_depends_on_the_first_column(
    network: Network, shape: tuple[int, ...]
) -> None:
    spec = plain(network, shape)
    policy = progressive(spec, spec)
    seen = {"policy": torch.rand(7, *shape) + 0.5}
    adapter = policy.adapters[0]
    with torch.no_grad():
        for part in (*policy.adapters, *policy.action_head.outputs()):
            for name, parameter in part.named_parameters():
                if "alpha" not in name:
                    parameter.zero_()
        adapter.project.weight.fill_(1.0)
        adapter.unite.weight.fill_(1.0)
        before = policy(seen).logits
        policy.policies[0].encoder.layers[0].weight.mul_(2.0)
        assert not torch.equal(policy(seen).logits, before)
        adapter.alpha.zero_()
        silent = policy(seen).logits
        policy.policies[0].encoder.layers[0].weight.mul_(2.0)
        assert torch.equal(policy(seen).logits, silent)


def test_a_third_column_sees_both_and_the_second_as_it_was() -> None:
    spec = plain(GRID, (3, 10, 10))
    two = progressive(spec, spec)
    three = progressive(spec, two.spec)
    scrambled(three)
    assert isinstance(three.policies[0], ProgressivePolicy)
    assert [len(adapter.alpha) for adapter in three.adapters] == [2, 2]
    seen = torch.rand(4, 3, 10, 10)
    oldest, second, new = three.columns_of(seen)
    inner = three.policies[0]
    assert torch.equal(second[-1], inner.columns_of(seen)[1][-1])
    assert torch.equal(oldest[-1], inner.columns_of(seen)[0][-1])
    # The second column's own features need the first one's: without them they are others.
    with torch.no_grad():
        inner.policies[0].encoder.layers[0].weight.mul_(3.0)
    assert not torch.equal(three.columns_of(seen)[1][-1], second[-1])
    assert new[-1].shape == (4, 6)


@SHAPES
def test_it_may_start_as_the_previous_policy(network: Network, shape: tuple[int, ...]) -> None:
    spec = plain(network, shape)
    policy = progressive(plain(dataclasses.replace(network, width=0.5), shape), spec)
    scrambled(policy)
    policy.start_as_previous()
    seen = {"policy": torch.randn(9, *shape)}
    assert torch.equal(policy(seen).logits, policy.policies[0](seen).logits)
    other = progressive(plain(network, shape, actions=4), spec)
    with pytest.raises(InputError, match="outputs differ"):
        other.start_as_previous()


def test_a_start_as_the_previous_policy_has_its_units_of_actions() -> None:
    box = spaces.Box(-2.0, 2.0, (2,), np.float32)
    spec = dataclasses.replace(plain(VECTORS, (5,)), action_space=box, host_actions=(box,))
    policy = progressive(spec, spec)
    scrambled(policy)
    # A student's units are those of its teacher's actions.
    policy.policies[0].set_action_units(torch.tensor([[0.5, -1.0]]), torch.tensor([[0.1, 0.3]]))
    policy.start_as_previous()
    seen = {"policy": torch.randn(9, 5)}
    ours, theirs = policy(seen), policy.policies[0](seen)
    assert torch.equal(ours.mean, theirs.mean) and torch.equal(ours.log_std, theirs.log_std)
    earlier_version = dataclasses.replace(spec, host_actions=None)
    with pytest.raises(InputError, match="outputs differ"):
        progressive(spec, earlier_version).start_as_previous()


def test_tasks_may_differ_in_observations_and_actions() -> None:
    earlier = plain(GRID, (5, 10, 10), actions=2)
    policy = scrambled(progressive(plain(GRID, (3, 10, 10)), earlier))
    assert isinstance(policy, ProgressivePolicy)
    seen = torch.rand(4, 3, 10, 10)
    assert policy({"policy": seen}).logits.shape == (4, 3)
    padded = torch.cat([seen, torch.zeros(4, 2, 10, 10)], 1)
    assert torch.equal(
        policy.columns_of(seen)[0][-1], policy.policies[0].encoder({"policy": padded})
    )
    fewer = scrambled(progressive(plain(VECTORS, (5,)), plain(VECTORS, (2,))))
    assert isinstance(fewer, ProgressivePolicy)
    vectors = torch.rand(4, 5)
    expected = fewer.policies[0].encoder({"policy": vectors[:, :2]})
    assert torch.equal(fewer.columns_of(vectors)[0][-1], expected)


@pytest.mark.parametrize(
    ("new", "earlier", "words"),
    [
        (plain(GRID, (3, 10, 10)), plain(VECTORS, (5,)), "Column 1 has the layers linear, linear"),
        (
            plain(GRID, (3, 10, 10)), plain(dataclasses.replace(GRID, hidden=(8,)), (3, 10, 10)),
            "give both the same ones",
        ),
        (plain(GRID, (3, 10, 10)), plain(GRID, (3, 12, 12)), "linear on 100 pixels"),
    ],
)  # fmt: skip
def test_columns_that_do_not_correspond(new: PolicySpec, earlier: PolicySpec, words: str) -> None:
    with pytest.raises(InputError, match=words):
        progressive(new, earlier)


def test_saved_and_loaded(tmp_path: Path) -> None:
    spec = plain(GRID, (3, 10, 10))
    policy = progressive(spec, progressive(spec, spec).spec, spec)
    scrambled(policy)
    save_policy(policy, tmp_path / "policy")
    loaded = load_policy(tmp_path / "policy")
    assert loaded.spec == policy.spec
    seen = {"policy": torch.rand(4, 3, 10, 10)}
    assert torch.equal(loaded(seen).logits, policy.eval()(seen).logits)
    assert not any(p.requires_grad for p in loaded.earlier.parameters())  # type: ignore[operator]


def trained(method: Any, task: str, run_dir: Path, steps: int = 2048, **options: Any) -> Any:
    return rt.train(
        method, suite=task, total_steps=steps, run_dir=run_dir, episodes=1, evaluate_episodes=0,
        quiet=True, device="cpu", **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("columns") / "first"
    trained(rt.agents.PPO(num_envs=4, rollout_length=32), FREEWAY, folder, 256)
    return folder


@pytest.mark.parametrize(
    "kind", [rt.agents.Progressive, rt.agents.ProgressivePQN], ids=["ppo", "pqn"]
)
def test_earlier_columns_are_bit_equal_after_training(
    source: Path, tmp_path: Path, kind: Any
) -> None:
    method = kind(columns=(str(source),), num_envs=4, rollout_length=32, learning_rate=0.01)
    run = trained(method, BREAKOUT, tmp_path / "second", 512)
    learned, first = run.agent.policy, load_run_policy(source)
    for name, tensor in first.state_dict().items():
        assert torch.equal(learned.state_dict()[f"earlier.0.{name}"], tensor)
    points = {point.tag: point.value for point in rt.curves(run.run_dir)}
    alpha = points["train/alpha/layer-2-column-1"]
    assert 0 < abs(alpha - 0.1) < 0.5
    assert learned.num_acting_parameters() < sum(p.numel() for p in learned.parameters())
    assert learned.spec.suites == (Suite.of(FREEWAY),)

    # Each task is played by its own column, in the third policy too.
    how: dict[str, Any] = {"episodes": 3, "device": "cpu", "num_envs": 2, "max_steps": 100}
    before = rt.evaluate(source, FREEWAY, **how)[FREEWAY]
    assert rt.evaluate(run.run_dir, FREEWAY, **how)[FREEWAY] == before

    third = kind(columns=(str(tmp_path / "second"),), num_envs=4, rollout_length=32)
    last = trained(third, FREEWAY, tmp_path / "third", 128).agent.policy
    for name, tensor in learned.state_dict().items():
        assert torch.equal(last.state_dict()[f"earlier.0.{name}"], tensor)
    now = rt.evaluate(run.run_dir, BREAKOUT, **how)[BREAKOUT]
    assert rt.evaluate(tmp_path / "third", BREAKOUT, **how)[BREAKOUT] == now


@SHAPES
def test_frozen_columns_are_part_of_the_policy(network: Network, shape: tuple[int, ...]) -> None:
    spec = plain(dataclasses.replace(network, normalize=True), shape)
    policy = progressive(spec, progressive(spec, spec).spec)
    frozen = {name for name in policy.state_dict() if name.startswith("earlier.")}
    # Of both columns, the older one inside the newer one.
    assert {f"earlier.0.{name}" for name in policy.policies[0].state_dict()} == frozen
    assert any(name.startswith("earlier.0.earlier.0.encoder.") for name in frozen)
    for name, parameter in policy.named_parameters():
        assert parameter.requires_grad != name.startswith("earlier."), name
    seen = {"policy": torch.rand(3, *shape)}
    policy(seen).logits.sum().backward()
    assert all(p.grad is None for p in policy.earlier.parameters())
    moved = policy.to("meta")
    assert all(tensor.is_meta for tensor in moved.state_dict().values())
    features = moved.columns_of(seen["policy"].to("meta"))
    assert [column[-1].shape for column in features] == [(3, 6)] * 3
    assert all(layer.is_meta for column in features for layer in column)


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        (rt.agents.Progressive, BREAKOUT), (rt.agents.ProgressivePQN, BREAKOUT),
        (rt.agents.Progressive, "CartPole-v1"),
    ],
    ids=["ppo", "pqn", "vectors"],
)  # fmt: skip
def test_curves_of_sensitivities_leave_training_as_it_is(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, task: str
) -> None:
    monkeypatch.setattr(progressive_agents, "SENSITIVITY_EVERY", 3)
    if task != BREAKOUT:
        source = tmp_path / "vectors"
        trained(rt.agents.PPO(num_envs=2, rollout_length=16), task, source, 64)
    method = kind(columns=(str(source),), num_envs=4, rollout_length=32)

    def tensors(folder: str) -> dict[str, Tensor]:
        run = trained(method, task, tmp_path / folder, 512)
        states = {"generator": run.agent.generator.get_state(), "global": torch.get_rng_state()}
        return {**run.agent.policy.state_dict(), **states}

    measured = tensors("measured")
    points = rt.curves(tmp_path / "measured", "train/fisher_sensitivity/*")
    assert sorted({point.step for point in points}) == [128, 512]  # the first rollout, the fourth
    assert len({point.tag for point in points}) == 4
    for step in (128, 512):
        for layer in (1, 2):
            front = f"train/fisher_sensitivity/layer-{layer}-"
            values = [p.value for p in points if p.step == step and p.tag.startswith(front)]
            assert sum(values) == pytest.approx(1.0) and all(0 < value < 1 for value in values)

    monkeypatch.setattr(progressive_agents, "SENSITIVITY_EVERY", 1_000)
    monkeypatch.setattr(progressive_agents.ColumnCurves, "num_rollouts", 1)
    plainly = tensors("plain")
    assert not [one for one in rt.curves(tmp_path / "plain") if "fisher" in one.tag]
    for name, tensor in plainly.items():
        assert torch.equal(measured[name], tensor), name

    # Statistics of vectors among them.
    for name, tensor in load_run_policy(source).state_dict().items():
        assert torch.equal(measured[f"earlier.0.{name}"], tensor), name

    # A resumed run measures at the same rollouts as one that was not stopped.
    monkeypatch.undo()
    monkeypatch.setattr(progressive_agents, "SENSITIVITY_EVERY", 3)
    trained(method, task, tmp_path / "resumed", 256)
    trained(method, task, tmp_path / "resumed", 512, resume=True)
    steps = {p.step for p in rt.curves(tmp_path / "resumed", "train/fisher_sensitivity/*")}
    assert steps == {128, 512}


def test_alpha_is_as_asked() -> None:
    spec = plain(GRID, (3, 10, 10))
    for adapter in progressive(spec, spec, spec, alpha=0.25).adapters:
        assert isinstance(adapter, Adapter) and adapter.alpha.tolist() == [0.25, 0.25]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": ("a", "a")}, "contains a run twice"),
        ({"columns": ("a,b", "a")}, "contains a run twice"),
        ({"columns": ("a", "./b/../a/")}, "contains a run twice"),
        ({"columns": [f"run-{i}" for i in range(200)]}, "are 200 earlier columns, but at most 100"),
        ({"columns": ("a",), "alpha": -1.0}, "alpha is -1"),
        ({"columns": ("a",), "network": Network(gru=8)}, "have no GRU"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        rt.agents.Progressive(**options)
