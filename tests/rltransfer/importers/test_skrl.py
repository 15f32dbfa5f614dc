"""A checkpoint of skrl acts as skrl's own sources say, and others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.torch_file import load_torch_file
from rltransfer.policies.network import Network

SHOWN = spaces.Dict({"policy": spaces.Box(-np.inf, np.inf, (5,), np.float32)})
MOVES = spaces.Box(-1.0, 1.0, (2,), np.float32)
CHOICES = spaces.Discrete(2)


class Shared(nn.Module):
    """What skrl's `shared_model` builds from a network called "net" for the roles policy, value."""

    def __init__(self) -> None:
        super().__init__()
        self.net_container = nn.Sequential(nn.Linear(5, 8), nn.ELU(), nn.Linear(8, 6), nn.ELU())
        self.policy_layer = nn.Linear(6, 2)
        self.log_std_parameter = nn.Parameter(torch.tensor([-0.5, 7.0]))
        self.value_layer = nn.Linear(6, 1)

    def forward(self, seen: Tensor) -> Tensor:
        return self.policy_layer(self.net_container(seen))


class Single(nn.Module):
    """What `gaussian_model` (a log_std) and `categorical_model` build: a container with a head."""

    def __init__(self, log_std: bool) -> None:
        super().__init__()
        self.trunk_container = nn.Sequential(nn.Linear(5, 8), nn.ELU(), nn.Linear(8, 2))
        if log_std:
            self.log_std_parameter = nn.Parameter(torch.zeros(2))

    def forward(self, seen: Tensor) -> Tensor:
        return self.trunk_container(seen)


def scaler() -> dict[str, Tensor]:
    """A RunningStandardScaler's state, far from a mean of 0 and a variance of 1."""
    return {
        "running_mean": torch.tensor([1.0, -2.0, 3.0, 0.0, 5.0], dtype=torch.float64),
        "running_variance": torch.tensor([4.0, 0.25, 1e-6, 1.0, 9.0], dtype=torch.float64),
        "current_count": torch.tensor(99.0, dtype=torch.float64),
    }


def scaled(seen: Tensor) -> Tensor:
    """skrl's `RunningStandardScaler._compute`, with its defaults."""
    mean, variance = (scaler()[f"running_{one}"].float() for one in ("mean", "variance"))
    return torch.clamp((seen - mean) / (torch.sqrt(variance) + 1e-8), min=-5.0, max=5.0)


def checkpoint(model: nn.Module, **modules: Any) -> dict[str, Any]:
    """What `Agent.write_checkpoint` saves."""
    weights = model.state_dict()
    return {"policy": weights, "value": weights, "optimizer": {"state": {}}, **modules}


def load(path: Path, **options: str) -> Any:
    """The policy of a file."""
    return load_torch_file(path, {name: [value] for name, value in options.items()})


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "best_agent.pt"


@pytest.mark.parametrize("name", ["state_preprocessor", "observation_preprocessor", ""])
def test_a_shared_model_acts_as_in_skrl(name: str, path: Path) -> None:
    model = Shared()
    torch.save(checkpoint(model, **({name: scaler()} if name else {})), path)
    policy = load(path, activation="elu").fitted("a task", SHOWN, MOVES)
    seen = 4.0 * torch.randn(50, 5)
    assert bool((scaled(seen).abs() == 5.0).any()) and bool((scaled(seen).abs() < 5.0).any())
    found = policy({"policy": seen})
    torch.testing.assert_close(found.mean, model(scaled(seen) if name else seen))
    # A log standard deviation of 7 counts as 2, the largest of a Gaussian model.
    torch.testing.assert_close(found.log_std, torch.tensor([-0.5, 2.0]).expand(50, 2))
    assert policy.kind == "skrl"
    assert policy.architecture() == Network(encoder="mlp", hidden=(8, 6), activation="relu")
    told = policy.preprocessing()["normalizer"]
    assert (told is None) == (not name) and (told is None or told["limit"] == 5.0)
    # 5 x 8 + 8 + 8 x 6 + 6 + 6 x 2 + 2 = 116, without value and log_std.
    assert policy.num_parameters() == 116


def test_the_scaler_of_observations_comes_before_that_of_states(path: Path) -> None:
    model = Shared()
    states = {"running_mean": torch.zeros(9), "running_variance": torch.ones(9)}
    saved = checkpoint(model, state_preprocessor=states, observation_preprocessor=scaler())
    torch.save(saved, path)
    seen = torch.randn(6, 5)
    torch.testing.assert_close(
        load(path, activation="elu")({"policy": seen}).mean, model(scaled(seen))
    )


def test_a_container_may_end_with_the_head(path: Path) -> None:
    seen = torch.randn(6, 5)
    for log_std, actions in ((True, MOVES), (False, CHOICES)):
        model = Single(log_std)
        torch.save(checkpoint(model), path)
        found = load(path, activation="elu").fitted("a task", SHOWN, actions)({"policy": seen})
        torch.testing.assert_close(found.mean if log_std else found.logits, model(seen))
        assert (found.log_std is not None) == log_std
    named = {
        name.replace("trunk_container", "net"): part for name, part in model.state_dict().items()
    }
    torch.save({"policy": named}, path)
    assert load(path, activation="elu").num_actions == 2


def refused(path: Path, saved: Any, **options: str) -> str:
    """The sentence that refuses a file."""
    torch.save(saved, path)
    with pytest.raises(InputError) as caught:
        load(path, **options)
    sentence = str(caught.value)
    assert str(path) in sentence and sentence.endswith(".") and "\n" not in sentence
    return sentence


def test_what_cannot_be_read_is_refused(path: Path) -> None:
    missing = refused(path, checkpoint(Shared()))
    assert "is a checkpoint of skrl, which does not contain the activation" in missing
    assert "add `?activation=NAME` to the path" in missing

    def changed(activation: str = "elu", **tensors: Tensor) -> str:
        saved = checkpoint(Shared())
        more = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
        return refused(
            path, {**saved, "policy": {**saved["policy"], **more}}, activation=activation
        )

    assert "'lstm.weight_ih_l0' is not one of" in changed(lstm__weight_ih_l0=torch.zeros(4, 5))
    assert "a single container" in changed(other_container__0__weight=torch.zeros(4, 5))
    assert "not linear ones with an activation" in changed(
        net_container__5__weight=torch.ones(6, 6)
    )
    assert "does not consist of linear" in changed(net_container__0__weight=torch.ones(8, 5, 3, 3))
    assert "do not match" in changed(policy_layer__weight=torch.ones(2, 7))
    assert "has 3 values, and not 2" in changed(log_std_parameter=torch.zeros(3))
    assert "is not finite" in changed(policy_layer__bias=torch.tensor([1.0, float("inf")]))
    wrong = {**scaler(), "running_mean": torch.zeros(4)}
    saved = checkpoint(Shared(), state_preprocessor=wrong)
    assert "'running_mean' of the 5 values" in refused(path, saved, activation="elu")
    negative = {**scaler(), "running_variance": -torch.ones(5)}
    saved = checkpoint(Shared(), state_preprocessor=negative)
    assert "a negative variance" in refused(path, saved, activation="elu")
    torch.save(checkpoint(Shared()), path)
    with pytest.raises(InputError, match="reads 5 values and outputs 2 action dimensions, but the"):
        load(path, activation="elu").fitted("a task", SHOWN, CHOICES)
    with pytest.raises(InputError, match="no option of the teacher"):
        load(path, activation="elu", network="mlp:8,6")
