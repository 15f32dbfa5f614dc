"""ONNX files of `rltransfer export`, of Stable-Baselines3's recipe, of rsl_rl and of others."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from gymnasium import spaces
from onnx import TensorProto, helper
from stable_baselines3 import DQN, PPO, SAC
from torch import Tensor, nn

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.importers.onnx_policy import OnnxPolicy, load_onnx
from rltransfer.policies.scores import LOSING
from rltransfer.rollouts.evaluation import probe_spaces
from rltransfer.runs.onnx_export import export_run
from rltransfer.tasks.observation import space_to_json
from rltransfer.tasks.random_observation import random_observation
from rltransfer.tasks.task import Suite
from rltransfer.teachers.file_teacher import FileTeacher

TOLERANCE = 1e-5
ROWS = 64

CPU = torch.device("cpu")
VECTOR = spaces.Dict({"policy": spaces.Box(-1.0, 1.0, (5,), np.float32)})
THREE = spaces.Discrete(3)
MOVES = spaces.Box(-2.0, 2.0, (3,), np.float32)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.onnx"


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def export(
    module: nn.Module, example: tuple[Tensor, ...], path: Path, dynamo: bool = False, **more: Any
) -> Path:
    """Writes a file as torch does, with a fixed batch unless told otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), example, path, dynamo=dynamo, verbose=False, **more)
    return path


def run(path: Path, together: bool = False, **inputs: Tensor) -> list[Tensor]:
    """What onnxruntime computes, row by row unless told otherwise."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = {name: one.numpy() for name, one in inputs.items()}
    if together:
        return [torch.from_numpy(one) for one in session.run(None, given)]
    rows = len(next(iter(given.values())))
    each = [
        session.run(None, {name: one[n : n + 1] for name, one in given.items()})
        for n in range(rows)
    ]
    return [torch.from_numpy(np.concatenate(parts)) for parts in zip(*each, strict=True)]


def fitted(path: Path, space: spaces.Space[Any] = THREE, **options: str) -> OnnxPolicy:
    given = {name: [value] for name, value in options.items()}
    return load_onnx(path, given).fitted("a task", VECTOR, space)


@torch.no_grad()
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("batch", [1, "dynamic"])
def test_labels_are_those_of_onnxruntime(dynamo: bool, batch: Any, path: Path) -> None:
    more: dict[str, Any] = {"input_names": ["input"]}
    if batch == "dynamic":
        more["dynamic_axes"] = {"input": {0: "batch"}}
        if dynamo:
            more = {"input_names": ["input"], "dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    rows = torch.zeros(1 if batch == 1 else 2, 5)
    export(network(), (rows,), path, dynamo, external_data=False, **more)
    seen = torch.randn(ROWS, 5)
    (expected,) = run(path, together=batch != 1, input=seen)
    loaded = fitted(path)
    assert loaded.rows == "together"  # also of a fixed batch, as each row is computed by itself
    torch.testing.assert_close(loaded({"policy": seen}).logits, expected, rtol=0, atol=TOLERANCE)
    # 5 x 8 + 8 + 8 x 3 + 3 = 75
    assert loaded.num_parameters() == 75
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    torch.testing.assert_close(fitted(path, MOVES)({"policy": seen}).mean, expected)
    assert fitted(path, output="q_values")({"policy": seen}).q_values is not None


class OneRow(nn.Module):
    """Its batch of one is written into the file."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = network()

    def forward(self, seen: Tensor) -> Tensor:
        return self.layers(seen.reshape(1, -1).reshape(1, 5))


@torch.no_grad()
def test_a_batch_of_one_is_run_for_each_row(path: Path) -> None:
    export(OneRow(), (torch.zeros(1, 5),), path, input_names=["input"])
    loaded, seen = fitted(path), torch.randn(ROWS, 5)
    assert loaded.rows == "vmap"
    (expected,) = run(path, input=seen)
    torch.testing.assert_close(loaded({"policy": seen}).logits, expected, rtol=0, atol=TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["rows", "lstm"])
def test_nothing_is_read_from_the_device(kind: str, path: Path) -> None:
    # Tensors on "meta" have no values: shapes must not be computed from those on a device, which
    # would wait for a GPU in each step, and every weight must have moved there.
    module: nn.Module = OneRow()
    names, shapes = ["input"], [(1, 5)]
    if kind == "lstm":
        module, names = Steps(), ["obs", "h_in", "c_in"]
        shapes += [(2, 1, 4), (2, 1, 4)]
    outputs = ["actions", "h_out", "c_out"][: len(shapes)]
    example = tuple(torch.zeros(shape) for shape in shapes)
    export(module, example, path, input_names=names, output_names=outputs)
    loaded = fitted(path, MOVES).to("meta")
    found = loaded({"policy": torch.zeros(ROWS, 5, device="meta")})
    assert found.mean is not None and found.mean.shape == (ROWS, 3)


class Steps(nn.Module):
    """A recurrent actor as rsl_rl writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.layer = nn.LSTM(5, 4, 2), nn.Linear(4, 3)

    def forward(self, seen: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        steps, (h, c) = self.memory(seen.unsqueeze(0), (h, c))
        return self.layer(steps.squeeze(0)), h, c


def test_a_gradient_passes_through(path: Path) -> None:
    export(network(), (torch.zeros(1, 5),), path)
    seen = torch.randn(4, 5, requires_grad=True)
    logits = fitted(path)({"policy": seen}).logits
    assert logits is not None
    logits.sum().backward()
    assert seen.grad is not None and bool(seen.grad.abs().sum() > 0)


# What rltransfer exports.


@pytest.mark.parametrize(
    ("name", "task", "more"),
    [
        ("mlp", "CartPole-v1", {}),
        ("mlp", "Pendulum-v1", {}),
        ("gru", "CartPole-v1", {}),
        ("grid", "rltransfer/MinAtar-Breakout-v0", {}),
        ("actions", "CartPole-v1", {"actions_only": True}),
        ("actions", "Pendulum-v1", {"actions_only": True}),
    ],
)
def test_an_exported_run_acts_like_the_run(
    name: str, task: str, more: dict[str, Any], tmp_path: Path
) -> None:
    networks = {
        "gru": rt.policies.mlp(hidden=(8,), gru=4),
        "grid": rt.policies.conv(channels=(2,), hidden=(8,)),
    }
    method = rt.agents.PPO(
        network=networks.get(name, rt.policies.mlp(hidden=(8,))), num_envs=2, rollout_length=8
    )
    run_dir, path = tmp_path / "run", tmp_path / "policy.onnx"
    few = {"episodes": 0, "evaluate_episodes": 0, "quiet": True, "device": "cpu"}
    rt.train(method, suite=task, total_steps=64, run_dir=run_dir, **few)
    export_run(run_dir, path, **more)
    how: Any = {"episodes": 4, "num_envs": 4, "device": "cpu", "max_steps": 100}
    expected = rt.evaluate(run_dir, **how)
    found = rt.evaluate(path, task, **how)
    assert [one.returns for one in found.values()] == [one.returns for one in expected.values()]
    mine = rt.load_teacher(path, suite=task).fitted(_spaces(task))
    whose = rt.load_teacher(run_dir).fitted(_spaces(task))
    assert isinstance(mine, FileTeacher) and isinstance(mine.module, OnnxPolicy)
    assert mine.module.rows == "together"
    assert mine.module.state_size == (4 if name == "gru" else 0)
    if name == "actions":
        return
    groups = mine.module.observation_space
    assert groups is not None
    seen, rows = random_observation(groups, ROWS), torch.zeros(ROWS, dtype=torch.int64)
    for _ in range(3):
        one, other = mine(seen, rows), whose(seen, rows)
        for label in ("logits", "mean", "log_std"):
            wanted = getattr(other, label)
            if wanted is None:
                assert getattr(one, label) is None
            else:
                torch.testing.assert_close(getattr(one, label), wanted, rtol=0, atol=TOLERANCE)


def _spaces(task: str) -> Any:
    return probe_spaces(Suite.of(task), CPU)


def test_a_run_on_several_tasks_is_refused(tmp_path: Path) -> None:
    path, run_dir = tmp_path / "policy.onnx", tmp_path / "run"
    method = rt.agents.PPO(network=rt.policies.mlp(hidden=(8,)), num_envs=2, rollout_length=8)
    few = {"episodes": 0, "evaluate_episodes": 0, "quiet": True, "device": "cpu"}
    suite = ("CartPole-v1", "Acrobot-v1")
    rt.train(method, suite=suite, total_steps=64, run_dir=run_dir, **few)
    export_run(run_dir, path)
    with pytest.raises(InputError, match="on several tasks: use the run directory"):
        load_onnx(path)


def test_other_bounds_than_those_of_the_run_are_refused(tmp_path: Path) -> None:
    path, run_dir = tmp_path / "policy.onnx", tmp_path / "run"
    method = rt.agents.PPO(network=rt.policies.mlp(hidden=(8,)), num_envs=2, rollout_length=8)
    few = {"episodes": 0, "evaluate_episodes": 0, "quiet": True, "device": "cpu"}
    rt.train(method, suite="Pendulum-v1", total_steps=64, run_dir=run_dir, **few)
    export_run(run_dir, path)
    seen = spaces.Dict({"policy": spaces.Box(-1.0, 1.0, (3,), np.float32)})
    loaded = load_onnx(path)
    _, actions = loaded.known_spaces()
    assert isinstance(actions, spaces.Box) and actions.high == 2.0
    with pytest.raises(InputError, match=r"it acts in \[-2, 2\], but .* are in \[-1, 1\]"):
        loaded.fitted("a task", seen, spaces.Box(-1.0, 1.0, (1,), np.float32))
    with pytest.raises(InputError, match=r"in the units of its task, .*: leave out `.resc"):
        load_onnx(path, {"rescale": ["true"]})
    model = onnx.load(path)
    (space,) = (one for one in model.metadata_props if one.key == "action_space")
    space.value = "[" * 100_000
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="its metadata do not contain an action space"):
        load_onnx(path)


# Stable-Baselines3's documented recipe.


class Greedy(nn.Module):
    """The recipe: https://stable-baselines3.readthedocs.io/en/master/guide/export.html."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: Tensor) -> Any:
        return self.policy(observation, deterministic=True)


@pytest.mark.parametrize(
    ("algorithm", "task"), [(PPO, "CartPole-v1"), (PPO, "Pendulum-v1"), (DQN, "CartPole-v1")]
)
@pytest.mark.parametrize("dynamo", [False, True])
def test_the_recipe_of_stable_baselines3(
    algorithm: Any, task: str, dynamo: bool, path: Path
) -> None:
    if dynamo and (algorithm, task) != (DQN, "CartPole-v1"):
        pytest.skip("torch.export does not support torch.distributions with checks")
    model = algorithm("MlpPolicy", task, device="cpu", seed=0)
    shape = model.observation_space.shape
    example = (torch.randn(1, *shape),)
    export(Greedy(model.policy), example, path, dynamo, input_names=["input"])
    teacher = rt.load_teacher(path, suite=task).fitted(_spaces(task))
    seen = torch.randn(ROWS, *shape)
    found = teacher({"policy": seen}, torch.zeros(ROWS, dtype=torch.int64))
    (action, *others) = run(path, input=seen)
    if task == "Pendulum-v1":
        torch.testing.assert_close(found.mean, action, rtol=0, atol=TOLERANCE)
    else:
        assert torch.equal(found.greedy(), action)
        assert found.logits is not None
        assert bool(((found.logits == 0).sum(1) == 1).all()) and found.logits.min() == LOSING
    assert bool(others) == any("has several outputs" in note for note in teacher.notes())
    if dynamo:  # torch writes the weights next to the file
        assert path.with_name("policy.onnx.data").exists()


def test_squashed_actions_are_scaled_to_the_bounds(path: Path) -> None:
    model = SAC("MlpPolicy", "Pendulum-v1", device="cpu", seed=0)
    export(Greedy(model.actor), (torch.randn(1, 3),), path, input_names=["input"])
    teacher = rt.load_teacher(f"{path}?rescale=true", suite="Pendulum-v1")
    teacher = teacher.fitted(_spaces("Pendulum-v1"))
    seen = torch.randn(ROWS, 3)
    found = teacher({"policy": seen}, torch.zeros(ROWS, dtype=torch.int64)).mean
    expected, _ = model.predict(seen.numpy(), deterministic=True)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=TOLERANCE)
    plain = rt.load_teacher(path, suite="Pendulum-v1")
    (note,) = plain.fitted(_spaces("Pendulum-v1")).notes()
    assert "outputs actions in [-1, 1], but those of the task are in [-2, 2]: add `?resc" in note
    assert plain.notes() == teacher.notes() == ()
    seen_space = spaces.Dict({"policy": spaces.Box(-1.0, 1.0, (3,), np.float32)})
    same = load_onnx(path).fitted("a task", seen_space, spaces.Box(-1.0, 1.0, (1,), np.float32))
    assert same.notes() == ()
    with pytest.raises(
        InputError, match=r"unknown: leave out .*; add `\?rescale=true` to its path"
    ):
        rt.load_teacher(path, rescale_actions=True).fitted(_spaces("Pendulum-v1"))
    rescaled = rt.load_teacher(f"{path}?rescale=true", rescale_actions=True)
    with pytest.raises(InputError, match=r"or leave out --rescale-actions\.$"):
        rescaled.fitted(_spaces("Pendulum-v1"))
    with pytest.raises(InputError, match="scales actions to bounds"):
        fitted(simple(path), THREE, rescale="true")
    with pytest.raises(InputError, match="write true or false"):
        fitted(path, THREE, rescale="1")


def test_the_first_action_of_a_file_is_the_first_of_the_task(path: Path) -> None:
    class Sixth(nn.Module):
        def forward(self, seen: Tensor) -> Tensor:
            return seen.abs().sum(1).mul(0).long() + 6

    export(Sixth(), (torch.zeros(1, 5),), path, output_names=["action"])
    model = onnx.load(path)
    space = json.dumps(space_to_json(spaces.Discrete(3, start=5)))
    for key, value in (("format", "rltransfer policy 1"), ("action_space", space)):
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    found = fitted(path)({"policy": torch.ones(2, 5)}).logits
    assert found is not None and found.argmax(1).tolist() == [1, 1]


@pytest.mark.parametrize("words", [["evaluate"], ["teachers", "check"]])
def test_the_commands_say_that_actions_seem_not_scaled(
    words: list[str], path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(nn.Sequential(nn.Linear(3, 1), nn.Tanh()), (torch.zeros(1, 3),), path)
    task = ["--task", "Pendulum-v1", "--episodes", "1", "--device", "cpu", "--json"]
    assert main([*words, str(path), *task]) == 0
    assert capsys.readouterr().err.count("add `?rescale=true` to its path") == 1


def test_actions_are_scaled_where_all_of_the_output_is(path: Path) -> None:
    class Gaussian(nn.Module):
        def forward(self, seen: Tensor) -> tuple[Tensor, Tensor]:
            return seen[:, :3].tanh(), seen[:, 2:]

    export(Gaussian(), (torch.zeros(1, 5),), path, output_names=["mean", "log_std"])
    with pytest.raises(InputError, match=r"outputs 'log_std', which `.rescale=true` does not"):
        fitted(path, MOVES, rescale="true")
    assert fitted(path, MOVES).notes() == ()


@pytest.mark.parametrize("space", [THREE, MOVES])
def test_infinity_is_refused(space: spaces.Space[Any], path: Path) -> None:
    export(nn.Sequential(network(), Infinite()), (torch.zeros(1, 5),), path)
    with pytest.raises(InputError, match="it outputs NaN, infinity, or an action"):
        fitted(path, space)


class Infinite(nn.Module):
    def forward(self, found: Tensor) -> Tensor:
        return found.abs() * 1e38 * 1e38


def test_an_action_that_the_task_does_not_have_is_refused(path: Path) -> None:
    class Fourth(nn.Module):
        def forward(self, seen: Tensor) -> Tensor:
            return seen.abs().sum(1).mul(0).long() + 3

    export(Fourth(), (torch.zeros(1, 5),), path)
    with pytest.raises(InputError, match="an action that the task does not have"):
        fitted(path)


# rsl_rl's exporter.


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mlp", "lstm", "gru"])
def test_what_rsl_rl_exports(kind: str, path: Path) -> None:
    models = pytest.importorskip("rsl_rl.models")
    observed = {"policy": torch.zeros(1, 5)}
    recurrent = {"rnn_type": kind, "rnn_hidden_dim": 4, "rnn_num_layers": 2}
    model = (models.MLPModel if kind == "mlp" else models.RNNModel)(
        observed, {"actor": ["policy"]}, "actor", 3, [6], obs_normalization=True,
        **({} if kind == "mlp" else recurrent),
    ).eval()  # fmt: skip
    model.obs_normalizer.update(torch.randn(50, 5) * 3 + 1)
    program = model.as_onnx(verbose=False).eval()
    export(
        program, program.get_dummy_inputs(), path, dynamo=True, opset_version=18,
        input_names=program.input_names, output_names=program.output_names,
    )  # fmt: skip
    loaded = fitted(path, MOVES)
    assert loaded.rows == ("together" if kind == "mlp" else "vmap")
    assert loaded.state_size == {"mlp": 0, "gru": 8, "lstm": 16}[kind]
    state: Tensor | None = None
    shown = [torch.zeros(2, 1, 4) for _ in range({"mlp": 0, "gru": 1, "lstm": 2}[kind])]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    # Of two rows, the first is onnxruntime's, and the second begins an episode at each step.
    for step in range(4):
        seen = torch.randn(2, 5)
        start = torch.tensor([step == 0, True])
        found = loaded({"policy": seen}, state=state, start=start)
        given = dict(zip(names, [seen[:1], *shown], strict=True))
        action, *after = session.run(None, {name: one.numpy() for name, one in given.items()})
        shown = [torch.from_numpy(one) for one in after]
        torch.testing.assert_close(found.mean[:1], torch.from_numpy(action), rtol=0, atol=TOLERANCE)
        fresh = [torch.zeros(2, 1, 4).numpy() for _ in shown]
        again = dict(zip(names, [seen[1:].numpy(), *fresh], strict=True))
        action = session.run(None, again)[0]
        torch.testing.assert_close(found.mean[1:], torch.from_numpy(action), rtol=0, atol=TOLERANCE)
        state = found.state


class Growing(nn.Module):
    def forward(self, seen: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return seen[:, :3] + state, torch.cat([state, state], 1)


def test_a_state_that_grows_is_refused(path: Path) -> None:
    example, names = (torch.zeros(1, 5), torch.zeros(1, 3)), ["obs", "state"]
    export(Growing(), example, path, input_names=names, output_names=["actions", "next_state"])
    with pytest.raises(InputError, match="does not map observations of the shape"):
        fitted(path)


# Files that are damaged, or say too little.


def simple(path: Path, change: Any = None, **inputs: Any) -> Path:
    """A linear layer; `change` gets the model before it is written."""
    export(nn.Linear(5, 3), (torch.zeros(1, 5),), path, input_names=["input"])
    model = onnx.load(path)
    if change is not None:
        change(model)
    path.write_bytes(model.SerializeToString())
    return path


def custom(model: Any) -> None:
    model.graph.node[0].domain = "com.microsoft"
    model.graph.node[0].op_type = "FusedGemm"


def branch(model: Any) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("then_branch", model.graph))


def elsewhere(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def missing(model: Any) -> None:
    elsewhere(model)
    model.graph.initializer[0].external_data[0].value = "policy.onnx.data"


def old(model: Any) -> None:
    model.opset_import[0].version = 6


def huge(model: Any) -> None:
    model.graph.initializer[0].dims[:] = [2**20, 2**20]


def strange(model: Any) -> None:
    model.graph.initializer[0].data_type = TensorProto.COMPLEX64


def short(model: Any) -> None:
    model.graph.initializer[0].dims[:] = [3, 6]


def blind(model: Any) -> None:
    model.graph.node[0].input[0] = model.graph.initializer[0].name
    del model.graph.input[:]


def nameless(model: Any) -> None:
    del model.graph.node[0].output[:]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (custom, r"its operator 'com.microsoft.FusedGemm' is not one of ONNX's own"),
        (branch, "its operator 'Gemm' contains other operators"),
        (elsewhere, r"in another file, '../../etc/passwd', but only 'policy.onnx.data' next to it"),
        (missing, "there is no such file; copy both files, or export it again"),
        (old, "have the version 6, but those of 7 to 26"),
        (huge, "more than the limit of 512"),
        (strange, "has a type that is not read"),
        (short, "is not an ONNX file, or is damaged"),
        (blind, "it has no input for an observation"),
        (nameless, "nothing computes its output"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_files_that_are_refused(change: Any, sentence: str, path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        load_onnx(simple(path, change))


def test_damaged_files_are_refused(path: Path) -> None:
    content = simple(path).read_bytes()
    for changed in (b"", b"no protocol buffer", content[: len(content) // 2], b"\x3a" + content):
        path.write_bytes(changed)
        with pytest.raises(InputError, match="is not an ONNX file"):
            load_onnx(path)
    with pytest.raises(InputError, match="there is no such file"):
        load_onnx(path.with_name("none.onnx"))


def test_a_file_of_many_fields_is_refused(path: Path) -> None:
    graph = b"\x0a\x00" * 600_000  # nodes without content
    size = len(graph)
    length = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
    path.write_bytes(b"\x42\x04\x0a\x00\x10\x12" + b"\x3a" + length + graph)
    with pytest.raises(InputError, match="more than 500,000 fields"):
        load_onnx(path)


def test_weights_next_to_the_file_are_read(path: Path) -> None:
    export(nn.Linear(5, 300), (torch.zeros(1, 5),), path, dynamo=True, input_names=["input"])
    data = path.with_name("policy.onnx.data")
    assert data.exists()
    seen = torch.randn(ROWS, 5)
    (expected,) = run(path, input=seen)
    loaded = fitted(path, spaces.Discrete(300))
    torch.testing.assert_close(loaded({"policy": seen}).logits, expected, rtol=0, atol=TOLERANCE)
    content = path.read_bytes() + data.read_bytes()
    assert loaded.sha256 == hashlib.sha256(content).hexdigest()
    path.rename(path.with_name("other.onnx"))
    with pytest.raises(InputError, match="give both their names back"):
        load_onnx(path.with_name("other.onnx"))


def test_tasks_that_a_file_does_not_fit(path: Path) -> None:
    simple(path)
    with pytest.raises(InputError, match=r"outputs the shape \[3, 3\] for 3 observations"):
        fitted(path, spaces.Discrete(4))
    other = spaces.Dict({"policy": spaces.Box(-1.0, 1.0, (6,), np.float32)})
    with pytest.raises(InputError, match=r"reads observations of the shape \[5\]"):
        load_onnx(path).fitted("a task", other, THREE)
    with pytest.raises(InputError, match="outputs 'mean'"):
        fitted(path, output="mean")
    with pytest.raises(InputError, match="did you mean 'logits'"):
        fitted(path, output="logit")
    with pytest.raises(InputError, match="write a number, or a fraction"):
        fitted(path, scale="x")
    with pytest.raises(InputError, match="option of the teacher"):
        fitted(path, activation="tanh")
    with pytest.raises(InputError, match="it reads the group 'other'"):
        fitted(path, group="other")


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(2, 3), nn.Linear(3, 3)

    def forward(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(one), self.one(one) + self.two(two)


@torch.no_grad()
def test_several_inputs_and_outputs(path: Path) -> None:
    torch.manual_seed(0)
    module = Two()
    groups = spaces.Dict({
        "privileged": spaces.Box(-1.0, 1.0, (2,), np.float32),
        "policy": spaces.Box(-1.0, 1.0, (3,), np.float32),
    })  # fmt: skip
    example, names = (torch.zeros(1, 2), torch.zeros(1, 3)), ["one", "two"]
    export(module, example, path, input_names=names, output_names=["half", "sum"])
    with pytest.raises(InputError, match=r"takes the inputs 'one', 'two': add one `.group=NAME`"):
        load_onnx(path)
    seen = {"privileged": torch.randn(ROWS, 2), "policy": torch.randn(ROWS, 3)}
    half, both = module(*seen.values())
    options = {"group": ["privileged", "policy"]}
    loaded = load_onnx(path, options)
    assert "'half' is used, and not 'sum'" in loaded.notes()[0]
    torch.testing.assert_close(loaded.fitted("a task", groups, THREE)(seen).logits, half)
    loaded = load_onnx(path, {**options, "tensor": ["sum"]})
    assert not loaded.notes()
    torch.testing.assert_close(loaded.fitted("a task", groups, THREE)(seen).logits, both)
    with pytest.raises(InputError, match="did you mean 'half'"):
        load_onnx(path, {**options, "tensor": ["halb"]})
    # Named after the groups, they need no option.
    names = ["observation_privileged", "observation_policy"]
    export(module, example, path, input_names=names, output_names=["other", "logits"])
    loaded = load_onnx(path)
    assert loaded.groups == ("privileged", "policy") and not loaded.notes()
    torch.testing.assert_close(loaded.fitted("a task", groups, THREE)(seen).logits, both)


@torch.no_grad()
def test_images_are_scaled(path: Path) -> None:
    image = spaces.Dict({"policy": spaces.Box(0, 255, (2, 6, 6), np.uint8)})
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ELU(), nn.Flatten(), nn.Linear(48, 3))
    export(module, (torch.zeros(1, 2, 6, 6),), path, input_names=["input"])
    loaded = load_onnx(path, {"scale": ["1/255"]}).fitted("a task", image, THREE)
    seen = torch.randint(0, 256, (7, 2, 6, 6), dtype=torch.uint8)
    (expected,) = run(path, input=seen.float() / 255)
    torch.testing.assert_close(loaded({"policy": seen}).logits, expected, rtol=0, atol=TOLERANCE)
    assert loaded.preprocessing()["scale"] == pytest.approx(1 / 255)


def test_a_file_that_demands_memory_is_stopped(path: Path) -> None:
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [2], [2**16, 2**16])
    nodes = [
        helper.make_node("ConstantOfShape", ["sizes"], ["zeros"]),
        helper.make_node("Relu", ["zeros"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["number"]),
        helper.make_node("Add", ["x", "number"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "graph", [value("x", TensorProto.FLOAT, [1, 5])],
        [value("y", TensorProto.FLOAT, None)], [sizes],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"takes more than 1,024 MiB"):
        fitted(path, spaces.Discrete(5))
