"""Initial weights from another policy: what is loaded, left out or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rltransfer.errors import InputError
from rltransfer.learning.initial_weights import LoadedTensor, load_initial_weights
from rltransfer.learning.layers import layer_of, num_layers, part_of
from rltransfer.policies.network import Network, conv, mlp
from rltransfer.policies.policy import Policy, PolicySpec


def policy(
    network: Network | None = None, shape: tuple[int, ...] = (3,), actions: int = 2, **rest: Any
) -> Policy:
    """A policy with weights that no other has."""
    high = 255 if len(shape) == 3 else 1
    box = spaces.Box(0, high, shape, np.uint8 if len(shape) == 3 else np.float32)
    made = Policy(
        PolicySpec(network or mlp(), spaces.Dict({"policy": box}), spaces.Discrete(actions), **rest)
    )
    for parameter in made.parameters():
        parameter.data.normal_()
    return made


def by_status(rows: list[LoadedTensor]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row.status, set()).add(row.name)
    return found


def test_everything_is_loaded_from_a_policy_of_the_same_shape():
    source, target = policy(), policy()
    rows = load_initial_weights(target, source, "it")
    assert {row.status for row in rows} == {"loaded"}
    assert [row.name for row in rows] == list(target.state_dict())
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name]), name


@pytest.mark.parametrize("part", ["head", "value", "statistics"])
def test_parts_are_left_out(part: str):
    source, target = policy(), policy()
    source.encoder.normalizer.mean.fill_(3.0)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    rows = load_initial_weights(target, source, "it", without=[part])
    names = {name for name in before if part_of(name) == part}
    assert names and by_status(rows)["left out"] == names
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, (before if name in names else source.state_dict())[name]), name


def test_parts_of_every_tensor():
    found = {name: part_of(name) for name in policy().state_dict()}
    assert found["encoder.layers.0.weight"] == found["encoder.layers.2.bias"] == "encoder"
    assert found["action_head.weight"] == "head"
    assert found["encoder.normalizer.mean"] == "statistics"
    assert found["value_encoder.normalizer.mean"] == "statistics"
    assert found["value_encoder.layers.0.weight"] == found["value_head.bias"] == "value"


def test_layers_are_counted_from_the_observation():
    made = policy(Network(encoder="mlp", hidden=(8, 4), layer_norm=True, gru=6))
    # Linear, LayerNorm, ReLU, Linear, LayerNorm, ReLU, GRU, heads.
    assert num_layers(made) == 4
    found = {name: layer_of(name, made) for name in made.state_dict()}
    assert found["encoder.layers.0.weight"] == found["encoder.layers.1.weight"] == 1
    assert found["encoder.normalizer.count"] == 1
    assert found["encoder.layers.3.weight"] == found["encoder.layers.4.bias"] == 2
    assert found["gru.weight_ih"] == 3
    assert found["action_head.weight"] == found["value_head.weight"] == 4


def test_only_the_first_layers_are_loaded():
    source, target = (
        policy(conv(channels=(4, 8)), (2, 10, 10)),
        policy(conv(channels=(4, 8)), (2, 10, 10)),
    )
    rows = load_initial_weights(target, source, "it", layers=1)
    loaded = {"encoder.layers.0.weight", "encoder.layers.0.bias"}
    assert by_status(rows)["loaded"] == loaded
    assert not torch.equal(source.encoder.layers[2].weight, target.encoder.layers[2].weight)
    with pytest.raises(InputError, match="init_layers is 9, but the policy has 5 layers"):
        load_initial_weights(target, source, "it", layers=9)


@pytest.mark.parametrize(("inputs", "loaded"), [(2, 2), (6, 4)])
def test_leading_inputs_are_loaded_if_asked_for(inputs: int, loaded: int):
    source, target = policy(conv(), (inputs, 10, 10)), policy(conv(), (4, 10, 10))
    with pytest.raises(InputError, match="--init-match inputs"):
        load_initial_weights(target, source, "it")
    fresh = target.encoder.layers[0].weight.detach().clone()
    rows = load_initial_weights(target, source, "it", match="inputs")
    assert rows[0].note == f"{loaded} of 4 inputs"
    weight = target.encoder.layers[0].weight
    assert torch.equal(weight[:, :loaded], source.encoder.layers[0].weight[:, :loaded])
    assert torch.equal(weight[:, loaded:], fresh[:, loaded:])
    # Nothing but the inputs may differ.
    with pytest.raises(InputError, match="use the source's network"):
        wider = policy(conv(width=2.0), (inputs, 10, 10))
        load_initial_weights(target, wider, "it", match="inputs")


def test_statistics_of_fewer_inputs_are_loaded_too():
    source, target = policy(shape=(2,)), policy(shape=(3,))
    source.encoder.normalizer.mean.fill_(3.0)
    load_initial_weights(target, source, "it", match="inputs")
    assert target.encoder.normalizer.mean.tolist() == [3.0, 3.0, 0.0]


def test_other_actions_are_refused_with_the_option_that_leaves_the_head_out():
    source, target = policy(actions=2), policy(actions=5)
    with pytest.raises(InputError, match="--init-without head"):
        load_initial_weights(target, source, "it")
    rows = load_initial_weights(target, source, "it", without=["head"])
    assert "encoder.layers.0.weight" in by_status(rows)["loaded"]
    rows = load_initial_weights(target, source, "it", match="any")
    assert by_status(rows)["of another shape"] == {"action_head.weight", "action_head.bias"}


def test_a_student_without_a_value_gives_a_learner_its_encoder():
    source, target = policy(value=False), policy()
    missing = by_status(load_initial_weights(target, source, "it"))["not in the source"]
    assert missing == {name for name in target.state_dict() if name.startswith("value_")}


def test_loading_nothing_is_refused():
    source, target = policy(mlp(hidden=(8,))), policy(mlp(hidden=(9,)))
    with pytest.raises(InputError, match="Nothing of it would be loaded"):
        load_initial_weights(
            target, source, "it", without=["head", "value", "statistics"], match="any"
        )
