"""Saved policies: what a file describes is compared with its weights before it is built."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file, save_file

from rltransfer.errors import InputError
from rltransfer.policies.network import mlp
from rltransfer.policies.policy import PolicySpec
from rltransfer.policies.saving import load_policy, save_policy


@pytest.fixture
def stem(tmp_path: Path) -> Path:
    groups = spaces.Dict({"policy": spaces.Box(-1.0, 1.0, (4,), np.float32)})
    spec = PolicySpec(mlp(hidden=(8,)), groups, spaces.Discrete(2))
    save_policy(spec.build(), tmp_path / "policy")
    return tmp_path / "policy"


def changed(stem: Path, change: dict[str, Any]) -> None:
    """Sets entries of the specification; "a.b" is within "a"."""
    path = stem.with_suffix(".json")
    data = json.loads(path.read_text())
    for name, value in change.items():
        part, _, inner = name.rpartition(".")
        (data[part] if part else data)[inner] = value
    path.write_text(json.dumps(data))


BOX = {"dtype": "float32", "low": "0", "high": "1"}

HUGE: dict[str, dict[str, Any]] = {
    "hidden units": {"network.hidden": [30_000, 30_000]},
    "a million layers": {"network.hidden": [1] * 1_000_000},
    "more units than an integer": {"network.hidden": [10**30]},
    "a recurrent state": {"network.gru": 10**9},
    "tasks": {"num_tasks": 10**9, "network.heads": "per-task"},
    "actions": {"action_space": {"discrete": 2**31}},
    "observations": {"observation_space.dict": {"policy": {"box": [2**33], **BOX}}},
    "unused groups": {
        "observation_space.dict": {str(n): {"box": [2**22], **BOX} for n in range(20)}
    },
}


@pytest.mark.parametrize("name", HUGE)
def test_a_description_of_something_huge_is_refused_before_it_is_built(
    name: str, stem: Path
) -> None:
    changed(stem, HUGE[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"does not fit the policy|one of its files is damaged"):
        load_policy(stem)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB


ODD: list[dict[str, Any]] = [
    {"network.hidden": "x"}, {"network.hidden": [2.5]}, {"network.width": "x"},
    {"network.heads": []}, {"network.activation": 3}, {"network": []}, {"num_tasks": "2"},
    {"num_tasks": -1}, {"value": "yes"}, {"q_values": None},
    {"action_mask": [[True]]}, {"action_mask": 3},
    {"num_tasks": 3, "action_mask": [[True, False]] * 2},
    {"action_space": {"discrete": 0}}, {"action_space": {"discrete": "x"}}, {"action_space": {}},
    {"action_space": {"box": [2, 2], **BOX}}, {"observation_space": {"discrete": 4}},
    {"observation_space.dict": {"policy": {**BOX, "box": [4], "dtype": "O"}}},
    {"observation_space.dict": {"policy": {**BOX, "box": [-4]}}}, {"kind": 3}, {"kind": []},
]  # fmt: skip


@pytest.mark.parametrize("change", ODD, ids=json.dumps)
def test_odd_values_are_one_sentence(change: dict[str, Any], stem: Path) -> None:
    changed(stem, change)
    with pytest.raises(InputError, match=r"(does not fit|is damaged|cannot be loaded).*\.$"):
        load_policy(stem)


def test_files_nested_too_deeply_or_not_objects_are_damaged(stem: Path) -> None:
    for text in ("[" * 100_000, '{"dict":' * 100_000, "[]", "3", "\ud800"):
        stem.with_suffix(".json").write_bytes(text.encode(errors="surrogatepass"))
        with pytest.raises(InputError, match="one of its files is damaged"):
            load_policy(stem)


def test_weights_that_are_not_finite_are_refused(stem: Path) -> None:
    weights = stem.with_suffix(".safetensors")
    tensors = load_file(weights)
    name = next(iter(tensors))
    for value in (float("nan"), float("inf")):
        tensors[name].view(-1)[0] = value
        save_file(tensors, weights)
        with pytest.raises(InputError, match=rf"its tensor '{name}' is not finite"):
            load_policy(stem)


def test_weights_of_other_kinds_are_refused(stem: Path) -> None:
    weights = stem.with_suffix(".safetensors")
    tensors = load_file(weights)
    save_file({name: tensor.to(torch.int32) for name, tensor in tensors.items()}, weights)
    with pytest.raises(InputError, match="does not fit the policy"):
        load_policy(stem)


def test_loading_leaves_the_random_numbers_as_they_were_used_before(stem: Path) -> None:
    """A run's first weights depend on what its teacher's loading draws: on one network, not two."""
    torch.manual_seed(0)
    load_policy(stem)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    groups = spaces.Dict({"policy": spaces.Box(-1.0, 1.0, (4,), np.float32)})
    PolicySpec(mlp(hidden=(8,)), groups, spaces.Discrete(2)).build()
    assert torch.rand(1) == drawn
