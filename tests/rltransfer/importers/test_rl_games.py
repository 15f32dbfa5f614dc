"""A checkpoint of rl_games acts as rl_games' own sources say, and others are refused."""

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

SHOWN = spaces.Dict({"policy": spaces.Box(-np.inf, np.inf, (3,), np.float32)})
UNIT = spaces.Box(-1.0, 1.0, (2,), np.float32)
WIDE = spaces.Box(np.float32([-2.0, 0.0]), np.float32([2.0, 3.0]))
ENDLESS = spaces.Box(-np.inf, np.inf, (2,), np.float32)
CHOICES = spaces.Discrete(2)

MEAN, VARIANCE = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([4.0, 0.25, 1e-6])


class A2C(nn.Module):
    """The parts of rl_games' `A2CBuilder.Network`, with a critic of its own ("separate")."""

    def __init__(self, discrete: bool = False, fixed_sigma: bool = True) -> None:
        super().__init__()
        self.actor_mlp = nn.Sequential(nn.Linear(3, 8), nn.ELU(), nn.Linear(8, 6), nn.ELU())
        self.critic_mlp = nn.Sequential(nn.Linear(3, 8), nn.ELU(), nn.Linear(8, 6), nn.ELU())
        self.value = nn.Linear(6, 1)
        if discrete:
            self.logits = nn.Linear(6, 2)
            return
        self.mu = nn.Linear(6, 2)
        self.sigma = nn.Parameter(torch.tensor([-0.5, 0.25])) if fixed_sigma else nn.Linear(6, 2)


def normalized(seen: Tensor) -> Tensor:
    """rl_games' `RunningMeanStd.forward`, with its default of epsilon."""
    y = (seen - MEAN) / torch.sqrt(VARIANCE + 1e-05)
    return torch.clamp(y, min=-5.0, max=5.0)


STATISTICS = {
    "running_mean": MEAN.double(),
    "running_var": VARIANCE.double(),
    "count": torch.tensor(99.0, dtype=torch.float64),
}


def checkpoint(network: nn.Module, begin: str = "", statistics: bool = True) -> dict[str, Any]:
    """What `get_full_state_weights` returns; the best return is a number of NumPy."""
    model = {f"{begin}a2c_network.{name}": part for name, part in network.state_dict().items()}
    for name, part in STATISTICS.items():
        if statistics:
            model[f"{begin}running_mean_std.{name}"] = part
        model[f"{begin}value_mean_std.{name}"] = part[:1] if part.dim() else part
    optimizer = torch.optim.Adam(network.parameters()).state_dict()
    best = np.float32(12.5)
    return {"model": model, "epoch": 3, "optimizer": optimizer, "last_mean_rewards": best}


def load(path: Path, **options: str) -> Any:
    """The policy of a file."""
    return load_torch_file(path, {name: [value] for name, value in options.items()})


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "Ant.pth"


@pytest.mark.parametrize("begin", ["", "_orig_mod."])  # what torch.compile adds
@pytest.mark.parametrize("fixed_sigma", [True, False])
def test_a_continuous_actor_acts_as_in_rl_games(begin: str, fixed_sigma: bool, path: Path) -> None:
    network = A2C(fixed_sigma=fixed_sigma)
    torch.save(checkpoint(network, begin), path)
    policy = load(path, activation="elu").fitted("a task", SHOWN, UNIT)
    # Where the variance is small, epsilon matters near the mean.
    seen = torch.cat([4.0 * torch.randn(40, 3), MEAN + 2e-3 * torch.randn(10, 3)])
    assert bool((normalized(seen).abs() == 5.0).any())
    hidden = network.actor_mlp(normalized(seen))
    found = policy({"policy": seen})
    torch.testing.assert_close(found.mean, network.mu(hidden))
    sigma = network.sigma.expand(50, 2) if fixed_sigma else network.sigma(hidden)
    torch.testing.assert_close(found.log_std, sigma)
    torch.testing.assert_close(found.greedy(), network.mu(hidden).clamp(-1.0, 1.0))
    assert policy.kind == "rl_games"
    assert policy.architecture() == Network(encoder="mlp", hidden=(8, 6), activation="relu")
    # 3 x 8 + 8 + 8 x 6 + 6 + 6 x 2 + 2 = 100, without value and sigma.
    assert policy.num_parameters() == 100


def test_statistics_may_be_next_to_the_model_or_missing(path: Path) -> None:
    network = A2C()
    seen = torch.randn(5, 3)
    saved = checkpoint(network, statistics=False)
    torch.save(saved, path)
    found = load(path, activation="elu")({"policy": seen}).mean
    torch.testing.assert_close(found, network.mu(network.actor_mlp(seen)))
    torch.save({**saved, "running_mean_std": STATISTICS}, path)
    found = load(path, activation="elu")({"policy": seen}).mean
    torch.testing.assert_close(found, network.mu(network.actor_mlp(normalized(seen))))


def test_discrete_actions_are_logits(path: Path) -> None:
    network = A2C(discrete=True)
    torch.save(checkpoint(network), path)
    seen = torch.randn(5, 3)
    policy = load(path, activation="elu").fitted("a task", SHOWN, CHOICES)
    expected = network.logits(network.actor_mlp(normalized(seen)))
    torch.testing.assert_close(policy({"policy": seen}).logits, expected)


def test_actions_are_scaled_to_the_bounds_if_rl_games_did(path: Path) -> None:
    network = A2C()
    torch.save(checkpoint(network), path)
    seen = torch.randn(5, 3)
    mu = network.mu(network.actor_mlp(normalized(seen)))
    with pytest.raises(InputError, match=r"add `clip_actions=true` .* or clip_actions=false"):
        load(path, activation="elu").fitted("a task", SHOWN, WIDE)
    policy = load(path, activation="elu", clip_actions="true").fitted("a task", SHOWN, WIDE)
    found = policy({"policy": seen})
    # rescale_actions: halves of the ranges 2 and 1.5, centers 0 and 1.5.
    half, center = torch.tensor([2.0, 1.5]), torch.tensor([0.0, 1.5])
    torch.testing.assert_close(found.greedy(), mu.clamp(-1.0, 1.0) * half + center)
    torch.testing.assert_close(found.log_std.exp(), (network.sigma.exp() * half).expand(5, 2))
    kept = load(path, activation="elu", clip_actions="false").fitted("a task", SHOWN, WIDE)
    torch.testing.assert_close(kept({"policy": seen}).greedy(), mu)
    with pytest.raises(InputError, match="give each its own teacher, with PerTask"):
        policy.fitted("another task", SHOWN, UNIT)
    # Without bounds nothing can be scaled.
    free = load(path, activation="elu").fitted("a task", SHOWN, ENDLESS)
    torch.testing.assert_close(free({"policy": seen}).greedy(), mu)
    with pytest.raises(InputError, match="which have no bounds: set clip_actions=false"):
        load(path, activation="elu", clip_actions="true").fitted("a task", SHOWN, ENDLESS)


def refused(path: Path, saved: Any, **options: str) -> str:
    """The sentence that refuses a file."""
    torch.save(saved, path)
    with pytest.raises(InputError) as caught:
        load(path, **options)
    sentence = str(caught.value)
    assert str(path) in sentence and sentence.endswith(".") and "\n" not in sentence
    return sentence


def test_what_cannot_be_read_is_refused(path: Path) -> None:
    missing = refused(path, checkpoint(A2C()))
    assert "is a checkpoint of rl_games, which does not contain the activation" in missing
    assert "add `?activation=NAME` to the path" in missing and "have elu" in missing

    def changed(**tensors: Tensor) -> str:
        saved = checkpoint(A2C())
        for name, part in tensors.items():
            saved["model"][f"a2c_network.{name.replace('__', '.')}"] = part
        return refused(path, saved, activation="elu")

    assert "'a2c_network.rnn.rnn.weight'" in changed(rnn__rnn__weight=torch.ones(2))
    assert "'a2c_network.actor_cnn.0.weight'" in changed(actor_cnn__0__weight=torch.ones(2))
    assert "'a2c_network.logits.0.weight'" in changed(logits__0__weight=torch.ones(2, 6))
    assert "'actor_mlp.linears.0.weight'" in changed(actor_mlp__linears__0__weight=torch.ones(2))
    assert "do not match" in changed(mu__weight=torch.ones(2, 9))
    assert "has 3 values, and not 2" in changed(sigma=torch.zeros(3))
    assert "is not finite" in changed(mu__bias=torch.tensor([1.0, float("nan")]))
    few = checkpoint(A2C())
    few["model"]["running_mean_std.running_var"] = torch.ones(4)
    assert "'running_var' of the 3 values" in refused(path, few, activation="elu")
    few["model"]["running_mean_std.running_var"] = -torch.ones(3)
    assert "a negative variance" in refused(path, few, activation="elu")
    torch.save(checkpoint(A2C()), path)
    with pytest.raises(InputError, match="no value of clip_actions"):
        load(path, activation="elu", clip_actions="yes")
    with pytest.raises(InputError, match="reads 3 values and outputs 2 action dimensions"):
        load(path, activation="elu").fitted("a task", SHOWN, CHOICES)
