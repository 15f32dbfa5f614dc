"""Convolutions over a history: sizes, what they compute, and what a student learns by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from toy import TASK

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.learning.layers import layer_of, num_layers
from rltransfer.learning.student_network import like_teacher
from rltransfer.policies.encoder import Encoder
from rltransfer.policies.network import Network
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.policies.work import row_work
from rltransfer.tasks.history import OPTION

BOTH = ("policy", "history")
TOLERANCE = 1e-5
DELAYED = "tests/Delayed-v0"


class Delayed(gymnasium.Env[np.ndarray, np.int64]):
    """A new symbol in each step; the one of two steps before has to be named, ten times."""

    observation_space = spaces.Box(0, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def _show(self) -> np.ndarray:
        self.symbols.append(int(self.np_random.integers(2)))
        return np.eye(2, dtype=np.float32)[self.symbols[-1]]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.symbols: list[int] = []
        return self._show(), {}

    def step(self, action: np.int64) -> Any:
        named = len(self.symbols) > 2 and action == self.symbols[-3]
        done = len(self.symbols) == 12
        return self._show(), float(named), done, False, {}


gymnasium.register(DELAYED, Delayed)


class Delay(nn.Module):
    """Names the symbol of two steps before, from the state that it is passed."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return 10 * h[:, :2], torch.cat([h[:, 2:], x], 1)


def groups(steps: int, size: int = 3, other: int = 2) -> spaces.Dict:
    """A vector, its history and another vector."""

    def box(numbers: int) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (numbers,), np.float32)

    return spaces.Dict(policy=box(size), history=box(steps * size), other=box(other))


def conv1d(**options: Any) -> Network:
    """A network with 1-D convolutions, without normalisation."""
    return Network(encoder="conv1d", normalize=False, **{"groups": BOTH, **options})


@pytest.mark.parametrize(
    ("steps", "options", "weights", "features"),
    [
        # An embedding of 32 (3 + 1), kernels of 8, 5 and 5; 50 steps become 11, 7 and 3.
        (50, {}, 128 + 32 * (32 * 8 + 1) + 2 * 32 * (32 * 5 + 1), 3 * 32 + 3),
        # Three kernels of 3; 8 steps become 6, 4 and 2.
        (8, {}, 128 + 3 * 32 * (32 * 3 + 1), 2 * 32 + 3),
        # Kernels of 2, 1 and 1, as no more steps are left.
        (2, {}, 128 + 32 * (32 * 2 + 1) + 2 * 32 * (32 + 1), 32 + 3),
        (1, {}, 128 + 3 * 32 * (32 + 1), 32 + 3),
        # Half the channels: 16 (3 + 1), and 16 (16 * 3 + 1).
        (8, {"width": 0.5}, 64 + 3 * 16 * 49, 2 * 16 + 3),
        # An embedding of 4 (3 + 1), and one convolution of 3 steps; 8 steps become 6.
        (8, {"channels": (4,)}, 16 + 4 * (4 * 3 + 1), 6 * 4 + 3),
        # A layer of 10 units follows, which reads the vector, too.
        (8, {"channels": (4,), "hidden": (10,)}, 68 + 10 * (27 + 1), 10),
    ],
)
def test_sizes(steps: int, options: dict[str, Any], weights: int, features: int) -> None:
    encoder = Encoder(conv1d(**{"hidden": (), **options}), groups(steps))
    assert sum(one.numel() for one in encoder.parameters()) == weights
    seen = {"policy": torch.rand(7, 3), "history": torch.rand(7, 3 * steps)}
    assert encoder(seen).shape == (7, encoder.num_features) == (7, features)


@torch.no_grad()
@pytest.mark.parametrize("order", [BOTH, ("other", "history", "policy"), ("history",)])
def test_each_window_of_steps_has_the_same_weights(order: tuple[str, ...]) -> None:
    encoder = Encoder(conv1d(groups=order, channels=(5,), hidden=()), groups(6))
    for parameter in encoder.parameters():
        parameter.normal_()
    seen = {name: torch.rand(4, *space.shape) for name, space in groups(6).items()}
    embed, convolve = (one for one in encoder.layers[0].layers if isinstance(one, nn.Conv1d))
    steps = [part @ embed.weight[:, :, 0].T + embed.bias for part in seen["history"].split(3, 1)]
    steps = [step.relu() for step in steps]  # oldest first
    windows = [
        sum(step @ convolve.weight[:, :, k].T for k, step in enumerate(steps[t : t + 3]))
        for t in range(4)
    ]
    maps = torch.stack([(one + convolve.bias).relu() for one in windows], 2)
    expected = torch.cat([maps.flatten(1), *(seen[name] for name in order if name != "history")], 1)
    torch.testing.assert_close(encoder(seen), expected, atol=TOLERANCE, rtol=TOLERANCE)
    # Two axes are the same history.
    space = spaces.Dict({**groups(6), "history": spaces.Box(-1.0, 1.0, (6, 3), np.float32)})
    plain = Encoder(conv1d(groups=order, channels=(5,), hidden=()), space)
    plain.load_state_dict(encoder.state_dict())
    again = {**seen, "history": seen["history"].unflatten(1, (6, 3))}
    assert torch.equal(plain(again), encoder(seen))
    # The order of the steps matters.
    mixed = {**seen, "history": again["history"].flip(1).flatten(1)}
    assert (encoder(mixed) - expected).abs().max() > 0.1


@pytest.mark.parametrize("layer_norm", [False, True])
def test_every_parameter_has_a_gradient(layer_norm: bool) -> None:
    torch.manual_seed(0)
    network = Network(encoder="conv1d", groups=BOTH, layer_norm=layer_norm)
    policy = Policy(PolicySpec(network, groups(50), spaces.Discrete(3)))
    assert policy.value_encoder is not None
    seen = {"policy": torch.randn(64, 3), "history": torch.randn(64, 150)}
    policy.update_statistics(seen)
    assert policy.encoder.normalizer is not None and policy.encoder.normalizer.count == 64
    output = policy(seen)
    (output.logits.square().sum() + output.value.sum()).backward()
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_layers_and_work_are_counted() -> None:
    policy = Policy(PolicySpec(conv1d(hidden=(10,)), groups(8), spaces.Discrete(3), value=False))
    assert num_layers(policy) == 3
    found = {name: layer_of(name, policy) for name in policy.state_dict()}
    assert found["encoder.layers.0.layers.0.weight"] == 1
    assert found["encoder.layers.1.weight"] == 2 and found["action_head.weight"] == 3
    # 8 embeddings, 6, 4 and 2 windows, a layer that reads 67 numbers, and a head.
    assert row_work(policy) == 8 * 96 + (6 + 4 + 2) * 32 * 96 + 67 * 10 + 30
    (layers,) = policy.feature_layers()
    assert len(layers) == 2


def train(encoder: str, names: tuple[str, ...], folder: Path) -> float:
    """The return of a student of the teacher with a memory."""
    method = rt.agents.PolicyDistillation(
        teacher=f"{folder.parent / 'delay.pt'}?state=4", num_envs=16, rollout_length=24,
        batch_size=96, learning_rate=3e-3, epochs=4,
        student=Network(encoder=encoder, groups=names, hidden=(16,)),
    )  # fmt: skip
    run = rt.train(
        method, suite=rt.Task(DELAYED, {OPTION: 8}), total_steps=6_000, episodes=40,
        run_dir=folder, evaluate_episodes=0, quiet=True,
    )  # fmt: skip
    (task,) = run.result["tasks"].values()
    found: float = task["return_mean"]
    return found


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_student_does_what_its_teacher_remembers(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Delay()), tmp_path / "delay.pt")
    returns = {"conv1d": train("conv1d", BOTH, tmp_path / "conv1d")}
    returns["mlp"] = train("mlp", ("policy",), tmp_path / "mlp")
    # The teacher is right ten times; who guesses, five times.
    assert returns["conv1d"] > 9 and returns["mlp"] < 7


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--task", "CartPole-v1", "--history", "8", "--groups", *BOTH, "--encoder", "conv1d"]
    small = ["--total-steps", "64", "--num-envs", "2", "--rollout-length", "8", "--episodes", "1"]
    quiet = ["--evaluate-episodes", "0", "--quiet", "--run-dir"]
    assert main(["train", "ppo", *words, "--width", "0.5", *small, *quiet, "run"]) == 0
    assert main(["evaluate", "run", "--episodes", "1"]) == 0
    teacher = rt.load_teacher("run")
    network = teacher.network()
    assert network is not None and network.encoder == "conv1d" and network.activation == "tanh"
    # A student that reads the history has the same layers, one that does not has none for it.
    assert like_teacher(Network(groups=BOTH), teacher).encoder == "conv1d"
    assert like_teacher(Network(), teacher).encoder == "mlp"
    distil = ["train", "policy-distillation", *words[:-2], "--teacher", "run", "--size", "25%"]
    assert main([*distil, *small, *quiet, "student"]) == 0
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    # Compared with the run on random observations.
    assert main(["export", "student", "--out", "student.onnx"]) == 0
    task = rt.Task("CartPole-v1", {OPTION: 8})
    played = [rt.evaluate(name, task, episodes=2) for name in ("student", "student.onnx")]
    assert played[0] == played[1]


IMAGE = spaces.Dict(policy=spaces.Box(0, 1, (2, 6, 6), np.float32))
VECTOR = spaces.Dict(policy=spaces.Box(0, 1, (3,), np.float32))
ODD = spaces.Dict(policy=VECTOR["policy"], history=spaces.Box(0, 1, (7,), np.float32))
REFUSED = {
    "no group": (conv1d(groups=("policy",)), groups(4), "but its groups are 'policy': pass --hist"),
    "no history": (
        conv1d(),
        VECTOR,
        "there are only 'policy': pass --history K, e.g. 16, and --gr",
    ),
    "an image": (conv1d(groups=("policy",)), IMAGE, "pass --history K"),
    "parts": (
        conv1d(),
        ODD,
        r"the shape of 'history' is \(7,\) and 'policy' has 3 numbers: use an",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    network, space, sentence = REFUSED[case]
    with pytest.raises(InputError, match=sentence) as error:
        Encoder(network, space)
    assert str(error.value).endswith(".")


def test_methods_without_it_say_so(tmp_path: Path) -> None:
    network = Network(encoder="conv1d", groups=BOTH)
    with pytest.raises(InputError, match="Distral's networks have no 1-D convolutions: use --enc"):
        rt.agents.Distral(network=network)
    few: dict[str, Any] = {"total_steps": 64, "episodes": 1, "evaluate_episodes": 0, "quiet": True}
    small: dict[str, Any] = {"num_envs": 2, "rollout_length": 8, "network": network}
    task = rt.Task("CartPole-v1", {OPTION: 4})
    rt.train(rt.agents.PPO(**small), suite=task, run_dir=tmp_path / "first", **few)
    column = rt.agents.Progressive(columns=(str(tmp_path / "first"),), **small)
    with pytest.raises(InputError, match="columns of progressive networks have no 1-D conv"):
        rt.train(column, suite=task, run_dir=tmp_path / "second", **few)
    with pytest.raises(InputError, match="those of the tasks are 4 x 4, 4 x 2: use an mlp, or ta"):
        suite = rt.Suite.of(task, rt.Task(DELAYED, {OPTION: 4}))
        rt.train(rt.agents.PPO(**small), suite=suite, run_dir=tmp_path / "third", **few)
    with pytest.raises(InputError, match="there are only 'policy': pass --history"):
        rt.train(rt.agents.PPO(**small), suite=TASK, run_dir=tmp_path / "fourth", **few)
