"""A plain state_dict is read where its names tell the layers, and else says what is missing."""

from __future__ import annotations

import os
from collections import OrderedDict
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

TOLERANCE = 1e-6
"""Both compute in float32, in the same order."""

SHOWN = spaces.Dict({"policy": spaces.Box(-1.0, 1.0, (4,), np.float32)})
MOVES = spaces.Box(-2.0, 2.0, (2,), np.float32)
CHOICES = spaces.Discrete(2)


def layers(activation: type[nn.Module] = nn.Tanh, outputs: int = 2) -> nn.Sequential:
    """Four values, 8 and 6 units."""
    return nn.Sequential(
        nn.Linear(4, 8), activation(), nn.Linear(8, 6), activation(), nn.Linear(6, outputs)
    )


def named(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module as those of a part of another."""
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}


def load(path: Path, **options: str) -> Any:
    """The policy of a file."""
    return load_torch_file(path, {name: [value] for name, value in options.items()})


def refused(path: Path, content: Any = None, **options: str) -> str:
    """The sentence that refuses a file."""
    if content is not None:
        torch.save(content, path)
    with pytest.raises(InputError) as caught:
        load(path, **options)
    sentence = str(caught.value)
    assert str(path) in sentence and sentence.endswith((".", "?")) and "\n" not in sentence
    return sentence


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.pth"


@pytest.mark.parametrize("prefix", ["", "actor", "net", "policy_net", "a.b"])
@pytest.mark.parametrize("name", ["tanh", "relu", "elu", "silu"])
def test_a_sequential_outputs_the_same(prefix: str, name: str, path: Path) -> None:
    kinds = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}
    network = layers(kinds[name])
    torch.save(named(prefix, network) if prefix else network.state_dict(), path)
    seen = 3.0 * torch.randn(5, 4)
    policy = load(path, activation=name, network="mlp:8,6").fitted("a task", SHOWN, CHOICES)
    found = policy({"policy": seen})
    torch.testing.assert_close(found.logits, network(seen), rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(found.features, network[:-1](seen))
    other = load(path, activation="softsign").fitted("a task", SHOWN, CHOICES)
    assert (other({"policy": seen}).logits - network(seen)).abs().max() > 1e-3


def test_numbered_attributes_and_module_lists_are_chains(path: Path) -> None:
    network = layers(nn.ReLU)
    seen = torch.randn(5, 4)
    for names in (("fc1", "fc2", "fc3"), ("layers.0", "layers.1", "layers.2")):
        saved = {}
        for name, layer in zip(names, network[::2], strict=True):
            saved |= named(name, layer)
        torch.save(OrderedDict(reversed(saved.items())), path)
        policy = load(path, activation="relu").fitted("a task", SHOWN, CHOICES)
        torch.testing.assert_close(policy({"policy": seen}).logits, network(seen))


def test_a_linear_policy_needs_no_activation(path: Path) -> None:
    network = nn.Sequential(nn.Linear(4, 2))
    torch.save(network.state_dict(), path)
    policy = load(path).fitted("a task", SHOWN, CHOICES)
    seen = torch.randn(5, 4)
    torch.testing.assert_close(policy({"policy": seen}).logits, network(seen))
    assert policy.architecture() is None


def test_an_actor_is_found_among_chains(path: Path) -> None:
    actor, critic = layers(), layers(outputs=1)
    torch.save({**named("critic", critic), **named("actor", actor)}, path)
    seen = torch.randn(5, 4)
    policy = load(path, activation="tanh").fitted("a task", SHOWN, CHOICES)
    torch.testing.assert_close(policy({"policy": seen}).logits, actor(seen))
    # 4 x 8 + 8 + 8 x 6 + 6 + 6 x 2 + 2 = 108, without the critic.
    assert policy.num_parameters() == 108 and policy.kind == "state_dict"
    assert policy.architecture() == Network(encoder="mlp", hidden=(8, 6), activation="tanh")
    other = load(path, activation="tanh", prefix="critic")
    assert other.num_actions == 1
    torch.save({**named("first", actor), **named("second", critic)}, path)
    several = refused(path, activation="tanh")
    assert "several chains" in several and "prefix=first, prefix=second" in several
    assert load(path, activation="tanh", prefix="first").num_actions == 2
    assert "'third' is not one chain" in refused(path, activation="tanh", prefix="third")


def test_the_task_determines_the_output_unless_it_is_told(path: Path) -> None:
    network = layers()
    torch.save(network.state_dict(), path)
    seen = {"policy": torch.randn(5, 4)}
    loaded = load(path, activation="tanh")
    with pytest.raises(ValueError, match="is known when it is fitted to a task"):
        loaded(seen)
    discrete = loaded.fitted("a task", SHOWN, CHOICES)
    continuous = loaded.fitted("a task", SHOWN, MOVES)
    # Neither changes the other.
    assert discrete(seen).logits is not None
    assert continuous(seen).mean is not None and continuous(seen).log_std is None
    told = load(path, activation="tanh", output="q_values")
    assert told.fitted("a task", SHOWN, CHOICES)(seen).q_values is not None
    with pytest.raises(InputError, match="reads 4 values and outputs 2 Q-values, but the task"):
        told.fitted("a task", SHOWN, MOVES)


@pytest.mark.parametrize("name", ["log_std", "actor_logstd", "actor.log_std", "log_std_parameter"])
def test_a_log_std_belongs_to_the_mean(name: str, path: Path) -> None:
    network, log_std = layers(), torch.tensor([[-0.5, 0.25]])
    torch.save({**named("actor", network), name: nn.Parameter(log_std)}, path)
    seen = {"policy": torch.randn(5, 4)}
    policy = load(path, activation="tanh")
    found = policy.fitted("a task", SHOWN, MOVES)(seen)
    torch.testing.assert_close(found.mean, network(seen["policy"]))
    torch.testing.assert_close(found.log_std, log_std.expand(5, 2))
    with pytest.raises(InputError, match="outputs 2 action dimensions, but the task"):
        policy.fitted("a task", SHOWN, CHOICES)
    three = {**named("actor", network), name: torch.zeros(3)}
    assert "has 3 values, and not 2" in refused(path, three, activation="tanh")
    two = {**named("actor", network), "a.log_std": log_std, "b.log_std": log_std}
    assert "several log standard deviations" in refused(path, two, activation="tanh")


def test_a_missing_activation_names_the_option(path: Path) -> None:
    sentence = refused(path, layers().state_dict())
    assert "is a plain state_dict, which does not contain the activation" in sentence
    assert "add `?activation=NAME` to the path" in sentence and "tanh" in sentence
    with pytest.raises(InputError, match="did you mean 'relu'"):
        load(path, activation="relo")


def test_options_are_checked(path: Path) -> None:
    torch.save(layers().state_dict(), path)
    told = {"activation": "tanh"}
    assert "mlp:8,6, and not mlp:64,64" in refused(path, network="mlp:64,64", **told)
    assert "write its hidden layers" in refused(path, network="cnn", **told)
    for wrong in ({"output": "value"}, {"library": "torchrl"}, {"scale": "2"}):
        with pytest.raises(InputError, match="There is no "):
            load(path, **told, **wrong)


def test_what_does_not_tell_its_layers_is_refused(path: Path) -> None:
    told = {"activation": "tanh"}
    saved = layers().state_dict()
    assert "belongs to no chain" in refused(path, {**saved, "head.weight": torch.ones(2)}, **told)
    assert "without numbered layers" in refused(path, nn.Linear(4, 2).state_dict(), **told)
    # A module without tensors more between two layers may be anything.
    moved = {name.replace("4.", "5."): tensor for name, tensor in saved.items()}
    assert "the numbers 0, 2, 5" in refused(path, moved, **told)
    image = nn.Sequential(nn.Conv2d(4, 2, 3), nn.ReLU()).state_dict()
    assert "does not consist of linear layers" in refused(path, image, **told)
    recurrent = nn.LSTM(4, 2).state_dict()
    assert "without numbered layers" in refused(path, recurrent, **told)
    norm = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
    assert "do not tell how they are connected" in refused(path, norm.state_dict(), **told)
    wide = {**saved, "2.weight": torch.zeros(6, 9)}
    assert "sizes of its layers do not match" in refused(path, wide, **told)
    whole = {name: tensor.long() for name, tensor in saved.items()}
    assert "does not consist of linear layers" in refused(path, whole, **told)
    for bad in (float("nan"), 1e300):
        endless = {**saved, "0.bias": torch.full((8,), bad, dtype=torch.float64)}
        assert "'0.bias' is not finite" in refused(path, endless, **told)


class Bomb:
    """What a pickle of it would do when loaded: create a folder."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("exploded",))


def test_other_contents_are_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    wrapped = refused(path, {"state_dict": layers().state_dict(), "epoch": 3})
    assert "contains the entries 'epoch', 'state_dict'" in wrapped
    assert "save the policy's state_dict alone" in wrapped
    assert "contains no named entries" in refused(path, [torch.zeros(2)])
    assert "contains more than tensors" in refused(path, {**layers().state_dict(), "x": Bomb()})
    assert not (path.parent / "exploded").exists()
    assert "contains more than tensors" in refused(path, layers())
    path.write_bytes(b"PK no zip")
    assert "it is damaged" in refused(path)
    path.unlink()
    assert "there is no such file" in refused(path)


def test_an_image_is_read_as_the_environment_shows_it(path: Path) -> None:
    from rltransfer.tasks.image_layout import ImageBox, ImageLayout

    network = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 2))
    torch.save(network.state_dict(), path)
    layout = ImageLayout((3, 4, 2), (2, 0, 1))  # height, width, channels
    box = ImageBox(
        np.zeros((3, 4, 2), np.float32), np.ones((3, 4, 2), np.float32), np.float32, layout
    )
    policy = load(path, activation="relu")
    policy = policy.fitted("a task", spaces.Dict({"policy": box}), CHOICES)
    shown = torch.rand(5, 3, 4, 2)
    found = policy({"policy": shown.permute(0, 3, 1, 2)}).logits
    torch.testing.assert_close(found, network(shown.flatten(1)))
