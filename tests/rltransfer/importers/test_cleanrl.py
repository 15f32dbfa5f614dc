"""Each model of CleanRL acts as its script does, and others are refused.

The networks are those of the scripts, in plain torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError
from rltransfer.importers.torch_file import load_torch_file
from rltransfer.policies.network import Network

SHOWN = spaces.Dict({"policy": spaces.Box(-np.inf, np.inf, (4,), np.float32)})
IMAGES = spaces.Dict({"policy": spaces.Box(0, 255, (4, 84, 84), np.uint8)})
CHOICES = spaces.Discrete(3)
LOW, HIGH = np.float32([-2.0, 0.0]), np.float32([2.0, 3.0])
MOVES = spaces.Box(LOW, HIGH)

TOLERANCE = 2e-5
"""Sums of 3,136 products in float32, in another order."""


def tanh_layers(outputs: int) -> nn.Sequential:
    """Actor or critic of ppo.py."""
    return nn.Sequential(
        nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)
    )


def convolutions(*heads: nn.Module) -> nn.Sequential:
    """The network of the Atari scripts."""
    return nn.Sequential(
        nn.Conv2d(4, 32, 8, stride=4), nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), *heads,
    )  # fmt: skip


class Ppo(nn.Module):
    """ppo.py's Agent."""

    def __init__(self) -> None:
        super().__init__()
        self.critic, self.actor = tanh_layers(1), tanh_layers(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.actor(x)


class PpoContinuous(nn.Module):
    """ppo_continuous_action.py's Agent."""

    def __init__(self) -> None:
        super().__init__()
        self.critic, self.actor_mean = tanh_layers(1), tanh_layers(2)
        self.actor_logstd = nn.Parameter(torch.tensor([[-0.5, 0.25]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.actor_mean(x)


class QNetwork(nn.Module):
    """dqn.py's QNetwork."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(4, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class C51(nn.Module):
    """c51.py's QNetwork."""

    def __init__(self, network: nn.Sequential | None = None, divide: float = 1.0) -> None:
        super().__init__()
        self.divide = divide
        self.register_buffer("atoms", torch.linspace(-100, 100, steps=101))
        self.network = network or nn.Sequential(
            nn.Linear(4, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 3 * 101)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x / self.divide)
        pmfs = torch.softmax(logits.view(len(x), 3, 101), dim=2)
        return (pmfs * self.atoms).sum(2)


class PpoAtari(nn.Module):
    """ppo_atari.py's Agent."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.actor = convolutions(), nn.Linear(512, 3)
        self.critic = nn.Linear(512, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.actor(self.network(x / 255.0))


class DqnAtari(nn.Module):
    """dqn_atari.py's QNetwork."""

    def __init__(self) -> None:
        super().__init__()
        self.network = convolutions(nn.Linear(512, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x / 255.0)


class Actor(nn.Module):
    """The Actor of td3_continuous_action.py, and with `fc_logstd` of sac_continuous_action.py."""

    def __init__(self, is_sac: bool, rows: int = 0) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 256), nn.Linear(256, 256)
        if is_sac:
            self.fc_mean, self.fc_logstd = nn.Linear(256, 2), nn.Linear(256, 2)
        else:
            self.fc_mu = nn.Linear(256, 2)
        scale, bias = torch.tensor((HIGH - LOW) / 2), torch.tensor((HIGH + LOW) / 2)
        # ddpg_continuous_action.py has the bounds of all environments.
        self.register_buffer("action_scale", scale.expand(rows, 2).clone() if rows else scale)
        self.register_buffer("action_bias", bias.expand(rows, 2).clone() if rows else bias)

    def hidden(self, x: Tensor) -> Tensor:
        return F.relu(self.fc2(F.relu(self.fc1(x))))

    def forward(self, x: Tensor) -> Tensor:
        head = self.fc_mean if hasattr(self, "fc_mean") else self.fc_mu
        return torch.tanh(head(self.hidden(x))) * self.action_scale + self.action_bias

    def log_std(self, x: Tensor) -> Tensor:
        log_std = torch.tanh(self.fc_logstd(self.hidden(x)))
        return -5 + 0.5 * (2 - -5) * (log_std + 1)


def saved_c51(model: nn.Module) -> dict[str, Any]:
    """What c51.py saves."""
    arguments = {"exp_name": "c51", "n_atoms": 101, "v_min": -100.0, "wandb_entity": None}
    return {"model_weights": model.state_dict(), "args": arguments}


def weights(model: nn.Module) -> dict[str, Tensor]:
    """What most scripts save."""
    return model.state_dict()


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], Any], str]] = {
    "ppo": (Ppo, weights, "logits"),
    "ppo_continuous_action": (PpoContinuous, weights, "mean"),
    "dqn": (QNetwork, weights, "q_values"),
    "c51": (C51, saved_c51, "q_values"),
    "ppo_atari": (PpoAtari, weights, "logits"),
    "dqn_atari": (DqnAtari, weights, "q_values"),
    "c51_atari": (
        lambda: C51(convolutions(nn.Linear(512, 3 * 101)), 255.0),
        saved_c51,
        "q_values",
    ),
}


def load(path: Path, **options: str) -> Any:
    """The policy of a file."""
    return load_torch_file(path, {name: [value] for name, value in options.items()})


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "script.cleanrl_model"


@pytest.mark.parametrize("script", MODELS)
def test_a_model_outputs_the_same(script: str, path: Path) -> None:
    build, save, output = MODELS[script]
    model = build()
    torch.save(save(model), path)
    policy = load(path)
    images = script.endswith("_atari")
    shown, actions = IMAGES if images else SHOWN, MOVES if output == "mean" else CHOICES
    seen = torch.randint(0, 256, (5, 4, 84, 84)).byte() if images else 3.0 * torch.randn(5, 4)
    policy = policy.fitted("a task", shown, actions)
    with torch.no_grad():
        found, expected = policy({"policy": seen}), model(seen)
    scale = 1.0 + expected.abs().max().item()
    torch.testing.assert_close(
        getattr(found, output), expected, rtol=TOLERANCE, atol=TOLERANCE * scale
    )
    assert policy.kind == "cleanrl" and policy.script == script
    assert policy.preprocessing()["scale"] == (1 / 255 if images else 1.0)
    if images:
        assert policy.architecture() == Network(encoder="nature", activation="relu")
        assert policy({"policy": seen}, frozenset({"maps"})).maps.shape == (5, 64, 7, 7)
    else:
        hidden = (120, 84) if output == "q_values" else (64, 64)
        activation = "relu" if output == "q_values" else "tanh"
        assert policy.architecture() == Network(encoder="mlp", hidden=hidden, activation=activation)


def test_continuous_ppo_is_clipped_and_says_what_is_missing(path: Path) -> None:
    model = PpoContinuous()
    with torch.no_grad():
        model.actor_mean[4].bias += torch.tensor([5.0, -5.0])
    torch.save(model.state_dict(), path)
    policy = load(path).fitted("a task", SHOWN, MOVES)
    (note,) = policy.notes()
    assert "saves no statistics" in note and note.endswith(".")
    found = policy({"policy": torch.randn(5, 4)})
    torch.testing.assert_close(found.log_std, torch.tensor([-0.5, 0.25]).expand(5, 2))
    # The wrapper ClipAction: means near 5 and -5 act as 2 and 0.
    assert found.greedy().tolist() == [[2.0, 0.0]] * 5
    assert (found.mean - torch.tensor([5.0, -5.0])).abs().max() < 1.0
    with pytest.raises(InputError, match="bounds of one task"):
        policy.fitted("another task", SHOWN, spaces.Box(-1.0, 1.0, (2,), np.float32))


@pytest.mark.parametrize("name", ["td3", "ddpg", "sac"])
def test_an_actor_squashes_its_actions(name: str, path: Path) -> None:
    actor = Actor(name == "sac", rows=3 if name == "ddpg" else 0)
    critic = nn.Linear(6, 1).state_dict()
    saved = {
        "td3": (actor.state_dict(), critic, critic),
        "ddpg": (actor.state_dict(), critic),
        "sac": actor.state_dict(),
    }
    torch.save(saved[name], path)
    policy = load(path).fitted("a task", SHOWN, MOVES)
    seen = 4.0 * torch.randn(3, 4)
    with torch.no_grad():
        found, expected = policy({"policy": seen}), actor(seen)
    torch.testing.assert_close(found.mean, expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert found.log_std is None and (found.squashed is not None) == (name == "sac")
    if name == "sac":
        with torch.no_grad():
            torch.testing.assert_close(found.squashed.log_std, actor.log_std(seen))
            torch.testing.assert_close(
                found.squashed.mean, actor.fc_mean(actor.hidden(seen)), rtol=1e-5, atol=1e-6
            )
    assert policy.known_spaces()[1] == MOVES
    # 4 x 256 + 256 + 256 x 256 + 256 + 256 x 2 + 2, without fc_logstd.
    assert policy.num_parameters() == 67_586
    with pytest.raises(InputError, match=r"acts in .*, but the actions of the task are in"):
        load(path).fitted("a task", SHOWN, spaces.Box(-1.0, 1.0, (2,), np.float32))


def test_a_suffix_or_an_option_tells_cleanrl(tmp_path: Path) -> None:
    path = tmp_path / "ppo.pth"
    torch.save(Ppo().state_dict(), path)
    with pytest.raises(InputError, match=r"add `\?activation=NAME`"):
        load(path)
    assert load(path, library="cleanrl").kind == "cleanrl"
    assert load(path, activation="relu").kind == "state_dict"
    # Only CleanRL saves these forms.
    torch.save(saved_c51(C51()), path)
    assert load(path).script == "c51"
    actor = Actor(is_sac=False).state_dict()
    torch.save((actor, actor), path)
    assert load(path).script == "td3_continuous_action"
    own = tmp_path / "own.cleanrl_model"
    torch.save(tanh_layers(3).state_dict(), own)
    assert load(own, library="state_dict", activation="relu").kind == "state_dict"


def refused(path: Path, saved: Any, **options: str) -> str:
    """The sentence that refuses a file."""
    torch.save(saved, path)
    with pytest.raises(InputError) as caught:
        load(path, **options)
    sentence = str(caught.value)
    assert str(path) in sentence and sentence.endswith(".") and "\n" not in sentence
    return sentence


def test_what_cannot_be_read_is_refused(path: Path) -> None:
    model = Ppo().state_dict()
    other = refused(path, {**model, "lstm.weight_ih_l0": torch.ones(4, 4)})
    assert "does not contain the tensors of a CleanRL script" in other
    assert "add `?library=state_dict&activation=NAME`" in other
    assert "the tensors of a CleanRL script" in refused(path, [1, 2])
    assert "do not match" in refused(path, {**model, "actor.2.weight": torch.ones(64, 9)})
    endless = {**model, "actor.4.bias": torch.full((3,), float("inf"))}
    assert "'actor.4.bias' is not finite" in refused(path, endless)
    with pytest.raises(InputError, match="no option of the teacher"):
        torch.save(model, path)
        load(path, activation="relu")

    def changed(module: nn.Module, **tensors: Tensor) -> str:
        named = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
        return refused(path, {**module.state_dict(), **named})

    assert "multiple of its 50 atoms" in changed(C51(), atoms=torch.ones(50))
    assert "has 3 values, and not 2" in changed(PpoContinuous(), actor_logstd=torch.ones(1, 3))
    actor = Actor(is_sac=True)
    assert "one value for each of the 2" in changed(actor, action_scale=torch.ones(3))
    several = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    assert "one value for each of the 2" in changed(actor, action_bias=several)
    assert "are not those of bounds" in changed(actor, action_scale=torch.zeros(2))
    assert "are not those of bounds" in changed(
        actor, action_scale=torch.full((2,), 3e38), action_bias=torch.full((2,), 3e38)
    )
    assert "do not match" in changed(actor, fc_logstd__weight=torch.ones(2, 9))
    three = {"fc_logstd__weight": torch.ones(3, 256), "fc_logstd__bias": torch.ones(3)}
    assert "do not match" in changed(actor, **three)
    wrong = changed(DqnAtari(), network__0__weight=torch.ones(32, 4, 5, 5))
    assert "is not the convolution of 32 8x8 filters" in wrong


def test_a_task_of_other_observations_is_refused(path: Path) -> None:
    torch.save(DqnAtari().state_dict(), path)
    policy = load(path)
    for shape, dtype in (
        ((4, 64, 64), np.uint8),
        ((3, 84, 84), np.uint8),
        ((4, 84, 84), np.float32),
    ):
        shown = spaces.Dict({"policy": spaces.Box(0, 1, shape, dtype)})
        with pytest.raises(InputError, match="reads images of 4 channels"):
            policy.fitted("a task", shown, CHOICES)
    torch.save(Ppo().state_dict(), path)
    with pytest.raises(InputError, match="reads 4 values and outputs 3 logits, but the task"):
        load(path).fitted("a task", SHOWN, spaces.Discrete(2))
