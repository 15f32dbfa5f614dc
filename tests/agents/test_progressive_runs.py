"""Progressive runs work as any run does: exports, evaluations, resumes, teachers, reports."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from test_progressive import plain, progressive
from torch.profiler import ProfilerActivity, profile

import rltransfer as rt
from rltransfer.agents.progressive_policy import (
    MOST_COLUMNS,
    ProgressivePolicy,
    ProgressiveSpec,
    check_number_of_columns,
    num_columns,
)
from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.files.checkpoint import newest_checkpoint
from rltransfer.files.untrusted import parse_json
from rltransfer.learning import network_size
from rltransfer.learning.learner import Learner, Loss
from rltransfer.machine.free_memory import GIB
from rltransfer.policies.network import Network
from rltransfer.policies.policy import PolicySpec
from rltransfer.policies.saving import load_policy
from rltransfer.policies.stacked_policies import StackedPolicies, can_stack
from rltransfer.reports.fairness import differing_settings
from rltransfer.reports.grouping import Lineage, Names, group_runs
from rltransfer.reports.reading import find_runs
from rltransfer.runs.onnx_export import export_run
from rltransfer.tasks.task import Suite

PPO, PQN = rt.agents.Progressive, rt.agents.ProgressivePQN
BREAKOUT, FREEWAY, SEAQUEST = (
    f"rltransfer/MinAtar-{game}-v0" for game in ("Breakout", "Freeway", "Seaquest")
)
SMALL: dict[str, Any] = {"num_envs": 4, "rollout_length": 16, "batch_size": 32}
TINY = Network(channels=(4,), hidden=(16,))


def train(method: Any, task: Any, run_dir: Path, **options: Any) -> Any:
    return rt.train(
        method, suite=task, run_dir=run_dir, quiet=True, device="cpu",
        **{
            "total_steps": 128, "episodes": 1, "evaluate_episodes": 0, "evaluate_max_steps": 20,
            **options,
        },
    )  # fmt: skip


class Columns:
    """Runs that tests share, trained when they are first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, Callable[[Path], Any]] = {
            "freeway": lambda path: train(self._first(), FREEWAY, path),
            "seaquest": lambda path: train(self._first(0.5), SEAQUEST, path),
            "q": lambda path: train(rt.agents.PQN(network=TINY, **SMALL), FREEWAY, path),
            "cartpole": lambda path: train(rt.agents.PPO(**SMALL), "CartPole-v1", path),
            "two": lambda path: self._next(PPO, BREAKOUT, path, "freeway"),
            "three": lambda path: self._next(PPO, SEAQUEST, path, "two", "seaquest", width=2.0),
            "q two": lambda path: self._next(PQN, BREAKOUT, path, "q"),
            "q three": lambda path: self._next(PQN, FREEWAY, path, "q two", width=0.5),
            "vector two": lambda path: self._next(PPO, "Acrobot-v1", path, "cartpole"),
            "vector three": lambda path: self._next(PPO, "Pendulum-v1", path, "vector two"),
            "vector q": lambda path: self._next(PQN, "CartPole-v1", path, "vector two", width=0.5),
        }

    def __call__(self, name: str) -> Path:
        path = self.folder / name.replace(" ", "-")
        if not path.exists():
            self.made[name](path)
        return path

    @staticmethod
    def _first(width: float = 1.0) -> Any:
        network = Network(channels=(4,), hidden=(16,), width=width)
        return rt.agents.PPO(network=network, **SMALL)

    def _next(self, kind: Any, task: str, path: Path, *columns: str, width: float = 1.0) -> Any:
        sources = tuple(str(self(name)) for name in columns)
        return train(kind(columns=sources, network=_width(kind, width), **SMALL), task, path)


def _width(kind: Any, width: float) -> Network:
    """The method's network of another width, whose layers are those of the newest column."""
    return Network(width=width, layer_norm=kind.network.layer_norm)


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> Columns:
    return Columns(tmp_path_factory.mktemp("progressive"))


def policy_of(run_dir: Path) -> ProgressivePolicy:
    policy = load_policy(newest_checkpoint(run_dir) / "policy")
    assert isinstance(policy, ProgressivePolicy)
    return policy


def test_the_new_column_has_the_layers_of_the_newest_one(columns: Columns) -> None:
    for name, norm, width in (("two", False, 1.0), ("q two", True, 1.0), ("q three", True, 0.5)):
        network = policy_of(columns(name)).spec.network
        assert (network.channels, network.hidden, network.layer_norm) == ((4,), (16,), norm)
        assert network.width == width
    # Without normalisation below, PQN keeps its own.
    assert policy_of(columns("vector q")).spec.network.layer_norm
    assert policy_of(columns("vector q")).spec.network.activation == "tanh"


# Frozen columns.


@pytest.mark.parametrize(
    ("kind", "task", "name", "options"),
    [
        (PPO, BREAKOUT, "freeway", {"precision": "bfloat16"}),
        (PQN, BREAKOUT, "q", {"precision": "bfloat16"}),
        # Over vectors, each column has statistics of its observations.
        (PPO, "Acrobot-v1", "cartpole", {}),
        (PQN, "Acrobot-v1", "cartpole", {}),
        (PPO, BREAKOUT, "freeway", {"init_from": "two", "l2_to_source": 0.1}),
    ],
    ids=["ppo-bfloat16", "pqn-bfloat16", "ppo-vectors", "pqn-vectors", "l2-to-source"],
)
def test_earlier_columns_are_bit_equal_however_the_new_one_trains(
    kind: Any, task: str, name: str, options: dict[str, Any], columns: Columns, tmp_path: Path
) -> None:
    of_run = {key: options[key] for key in ("init_from", "l2_to_source") if key in options}
    if of_run:
        of_run["init_from"] = columns(of_run["init_from"])
    of_method = {key: value for key, value in options.items() if key not in of_run}
    before: dict[str, torch.Tensor] = {}

    def keep(event: rt.RunEvent) -> None:
        if event.kind == "start":
            before.update({n: t.clone() for n, t in event.policy.state_dict().items()})

    method = kind(columns=(str(columns(name)),), learning_rate=0.01, **SMALL, **of_method)
    run = train(method, task, tmp_path / "run", callbacks=[keep], **of_run)
    after = run.agent.policy.state_dict()
    moved = {key for key, tensor in after.items() if not torch.equal(tensor, before[key])}
    column = load_policy(newest_checkpoint(columns(name)) / "policy").state_dict()
    for key, tensor in column.items():
        assert torch.equal(after[f"earlier.0.{key}"], tensor), key
    assert not any(key.startswith("earlier.") for key in moved)
    assert {"encoder.layers.0.weight", "adapters.0.alpha", "action_head.laterals.0.weight"} <= moved
    assert ("encoder.normalizer.mean" in moved) == (task == "Acrobot-v1")
    learned = {id(parameter) for parameter in run.agent.learner.parameters}
    policy = run.agent.policy
    assert learned == {
        id(parameter) for key, parameter in policy.named_parameters() if "earlier." not in key
    }


# Exports.


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("q two", BREAKOUT), ("three", SEAQUEST), ("q three", FREEWAY),
        ("vector two", "Acrobot-v1"), ("vector three", "Pendulum-v1"), ("vector q", "CartPole-v1"),
    ],
)  # fmt: skip
def test_a_file_acts_as_its_policy_over_whole_episodes(
    name: str, task: str, columns: Columns, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    policy = policy_of(columns(name))
    exported = export_run(columns(name), tmp_path / "policy.onnx", samples=64)
    assert exported.largest_difference < 1e-4
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    env: Any = gymnasium.make(task)
    seen, _ = env.reset(seed=0)
    outputs = {one.name for one in session.get_outputs()}
    (score,) = outputs & {"logits", "q_values", "mean"}
    for _ in range(500):
        action, found = session.run(["action", score], {"observation_policy": seen[None]})
        with torch.no_grad():
            output = policy({"policy": torch.from_numpy(seen[None])})
        expected = getattr(output, score).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        if score != "mean" and np.ptp(np.sort(expected)[0, -2:]) > 1e-3:
            assert action == output.greedy().numpy()
        seen, _, terminated, truncated, _ = env.step(action[0])
        if terminated or truncated:
            break
    env.close()


# Evaluations.

BRIEF: dict[str, Any] = {"episodes": 2, "device": "cpu", "num_envs": 2, "max_steps": 60}


@pytest.mark.parametrize("checkpoint", ["final", 64])
def test_each_task_is_played_by_its_column(checkpoint: Any, columns: Columns) -> None:
    how = {**BRIEF, "checkpoint": checkpoint}
    # A later run plays Freeway and Breakout as the runs did whose policies it contains.
    for task, name in ((FREEWAY, "freeway"), (BREAKOUT, "two")):
        known = rt.evaluate(columns(name), task, **BRIEF)[task]
        assert rt.evaluate(columns("three"), task, **how)[task] == known
    final = rt.evaluate(columns("three"), SEAQUEST, **BRIEF)
    assert rt.evaluate(columns("three"), **BRIEF) == final


# Resuming.


def begun(columns: Columns, folder: Path, **options: Any) -> tuple[Any, Path]:
    """A run of two columns that a callback stops halfway, and a copy of its first column."""
    first = folder / "first"
    shutil.copytree(columns("freeway"), first)
    method = PPO(columns=(str(first),), **SMALL)

    def stop(event: rt.RunEvent) -> None:
        if event.kind == "checkpoint" and event.step == 128:
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        train(method, BREAKOUT, folder / "run", total_steps=256, callbacks=[stop], **options)
    return method, first


def tensors(run_dir: Path) -> dict[str, torch.Tensor]:
    return dict(policy_of(run_dir).state_dict())


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_resumed_run_ends_as_an_unbroken_one_even_without_its_columns(
    is_gone: bool, columns: Columns, tmp_path: Path
) -> None:
    method, first = begun(columns, tmp_path)
    whole = train(method, BREAKOUT, tmp_path / "whole", total_steps=256)
    if is_gone:
        shutil.rmtree(first)
    words = ["train", "--resume", str(tmp_path / "run"), "--quiet"]
    assert main(words) == 0
    resumed, expected = tensors(tmp_path / "run"), tensors(whole.run_dir)
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in expected.items())
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["sources"]
    hashes = json.loads((newest_checkpoint(columns("freeway")) / "sha256.json").read_text())
    assert stored == [{"source": str(first), "sha256": hashes["policy.safetensors"]}]


def test_a_column_with_other_weights_is_refused_when_a_run_resumes(
    columns: Columns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, first = begun(columns, tmp_path)
    shutil.rmtree(first)
    train(rt.agents.PPO(network=TINY, **SMALL), FREEWAY, first, seed=1)
    assert main(["train", "--resume", str(tmp_path / "run"), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert f"{first} has other weights now than the column of {tmp_path / 'run'}" in said
    # Before the first checkpoint, the hashes are compared.
    shutil.copytree(tmp_path / "run", tmp_path / "early")
    shutil.rmtree(tmp_path / "early" / "checkpoints")
    assert main(["train", "--resume", str(tmp_path / "early"), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert f"{first} has other weights now than when {tmp_path / 'early'} began: put back" in said
    other = ["--columns", str(columns("seaquest"))]
    shutil.rmtree(first)
    assert main(["train", "--resume", str(tmp_path / "run"), "--quiet", *other]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_configuration_of_another_run_starts_one(
    columns: Columns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = columns("two") / "config.json"
    words = ["train", "--config", str(config), "--run-dir", str(tmp_path / "again"), "--quiet"]
    assert main(words) == 0
    assert "other weights" not in capsys.readouterr().err
    again, known = tensors(tmp_path / "again"), tensors(columns("two"))
    assert all(torch.equal(again[name], tensor) for name, tensor in known.items())
    entries = json.loads(config.read_text())
    entries["sources"][0]["sha256"] = "0" * 64
    (tmp_path / "changed.json").write_text(json.dumps(entries))
    words = ["train", "--config", str(tmp_path / "changed.json"), "--quiet"]
    assert main([*words, "--run-dir", str(tmp_path / "third")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"{columns('freeway')} has other weights than in {tmp_path / 'changed.json'}." in said


# Teachers and sources.


def test_a_progressive_run_teaches_alone_and_in_a_composition(
    columns: Columns, tmp_path: Path, brief_check: None
) -> None:
    two, other = columns("two"), tmp_path / "other"
    train(PPO(columns=(str(columns("freeway")),), **SMALL), BREAKOUT, other, seed=1)
    for index, teacher in enumerate((f"{two}", f"Ensemble('{two}', Noisy('{other}', 0.1))")):
        method = rt.agents.PolicyDistillation(
            teacher=teacher, objective="kl", student=TINY, memory_steps=64, **SMALL
        )
        run = train(method, BREAKOUT, tmp_path / f"student-{index}")
        assert len(run.result["tasks"]) == 1
    seen = {"policy": torch.randint(0, 2, (6, 4, 10, 10), dtype=torch.uint8)}
    policies = [policy_of(two), policy_of(other)]
    assert can_stack(policies)
    expected = [policy(seen).logits for policy in policies]
    twice = {"policy": torch.cat([seen["policy"]] * 2)}
    torch.testing.assert_close(StackedPolicies(policies)(twice).logits, torch.cat(expected))
    with pytest.raises(InputError, match=r"MonteCarloDropout .* is a ProgressivePolicy: use a te"):
        rt.MonteCarloDropout(rt.load_teacher(two), 2, 0.5)


def test_initial_weights_of_a_progressive_run(columns: Columns, tmp_path: Path) -> None:
    # The columns of the new run are those that it was given, not those of the source.
    other = tmp_path / "other"
    train(rt.agents.PPO(network=TINY, **SMALL), FREEWAY, other, seed=1)
    source = policy_of(columns("two")).state_dict()
    method = PPO(columns=(str(other),), learning_rate=0.0, **SMALL)
    run = train(method, BREAKOUT, tmp_path / "run", init_from=columns("two"), l2_to_source=0.1)
    column = load_policy(newest_checkpoint(other) / "policy").state_dict()
    for name, tensor in run.agent.policy.state_dict().items():
        inside = name.removeprefix("earlier.0.")
        assert torch.equal(tensor, source[name] if inside == name else column[inside]), name
    notes = {row.name: row.note for row in run.initial_weights if row.status == "left out"}
    assert set(notes) == {f"earlier.0.{name}" for name in column}
    assert set(notes.values()) == {"frozen, of an earlier column"}

    with pytest.raises(
        InputError, match=r"contains earlier columns, which .* with it as --columns"
    ):
        plain = rt.agents.PPO(network=TINY, **SMALL)
        train(plain, BREAKOUT, tmp_path / "plain", init_from=columns("two"))
    assert not (tmp_path / "plain").exists()
    # A plain run starts a new column.
    begins = train(method, FREEWAY, tmp_path / "begins", init_from=columns("freeway"))
    known = load_policy(newest_checkpoint(columns("freeway")) / "policy").encoder.state_dict()
    new = begins.agent.policy.encoder.state_dict()
    assert all(torch.equal(new[name], tensor) for name, tensor in known.items())
    words = ["train", "--config", str(begins.run_dir / "config.json"), "--quiet"]
    assert main([*words, "--run-dir", str(tmp_path / "again")]) == 0


@pytest.mark.parametrize(
    ("freeze", "trains"),
    [
        ("encoder", {"action_head", "value_head"}),
        ("layers:1", {"encoder.layers.3", "adapters.0", "action_head", "value_head"}),
        ("layers:2", {"action_head", "value_head"}),
    ],
)
def test_frozen_layers_have_frozen_adapters(
    freeze: str, trains: set[str], columns: Columns, tmp_path: Path
) -> None:
    before: dict[str, torch.Tensor] = {}

    def keep(event: rt.RunEvent) -> None:
        if event.kind == "start":
            before.update({n: t.clone() for n, t in event.policy.state_dict().items()})

    method = PPO(columns=(str(columns("freeway")),), learning_rate=0.1, **SMALL)
    run = train(
        method, BREAKOUT, tmp_path / "run", freeze=freeze, callbacks=[keep],
        init_from=columns("two"),
    )  # fmt: skip
    moved = {n for n, t in run.agent.policy.state_dict().items() if not torch.equal(t, before[n])}
    assert all(name.startswith(tuple(trains)) for name in moved)
    assert all(any(name.startswith(one) for name in moved) for one in trains)


# Reports.


def test_reports_compare_plain_and_progressive_runs(columns: Columns, tmp_path: Path) -> None:
    for seed in range(2):
        first = train(
            rt.agents.PPO(network=TINY, **SMALL), FREEWAY, tmp_path / f"first-{seed}", seed=seed
        )
        with_curves = {"seed": seed, "evaluate_episodes": 1, "evaluate_every": 64}
        progressive = PPO(columns=(str(first.run_dir),), **SMALL)
        train(progressive, BREAKOUT, tmp_path / "runs" / f"progressive-{seed}", **with_curves)
        plain = rt.agents.PPO(network=TINY, **SMALL)
        train(plain, BREAKOUT, tmp_path / "runs" / f"plain-{seed}", **with_curves)
    report = rt.report(tmp_path, baseline="ppo")
    # The runs of both seeds are one group, as their columns are.
    runs, _ = find_runs([tmp_path])
    names = Names(runs)
    groups = {group.label: group for group in group_runs(runs, names, Lineage(runs))}
    two = groups["progressive"]
    assert two.seeds == [0, 1] and not two.is_from_scratch
    assert two.settings["columns"] == f"ppo ({FREEWAY})"
    # A source is listed although plain runs have none.
    (listed,) = (one for one in differing_settings([*groups.values()]) if one.setting == "columns")
    assert listed.values == {"progressive": f"ppo ({FREEWAY})"}
    assert any(one.startswith("Networks differ: progressive") for one in report.warnings)
    assert any(one.startswith("The steps of the source are") for one in report.warnings)
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "report.html")]) == 0
    assert "progressive" in (tmp_path / "report.html").read_text()


# Input that cannot be used.


def test_columns_that_cannot_be_used(columns: Columns, tmp_path: Path) -> None:
    def begin(task: Any, *names: Any, kind: Any = PPO, **options: Any) -> None:
        method = kind(columns=tuple(map(str, names)), **{**SMALL, **options})
        train(method, task, tmp_path / "run")

    def refused(words: str, *arguments: Any, **options: Any) -> None:
        with pytest.raises(InputError, match=words) as error:
            begin(*arguments, **options)
        assert str(error.value).count(". ") == 0  # one sentence

    first, second = columns("freeway"), columns("two")
    refused(r"There is no run nowhere: pass finished runs, or zoo:ID", BREAKOUT, "nowhere")
    refused("no teacher in the zoo for the task 'x'", BREAKOUT, "zoo:x")
    archive = tmp_path / "model.zip"
    archive.write_bytes(b"PK")
    refused(r"model.zip is not a run .*: distil it first, as the --teacher of", BREAKOUT, archive)
    refused("is a checkpoint of .*: pass the run", BREAKOUT, newest_checkpoint(first))

    unfinished = tmp_path / "unfinished"
    shutil.copytree(first, unfinished)
    (unfinished / "result.json").unlink()
    refused("unfinished is not finished: resume it with --resume", BREAKOUT, unfinished)

    recurrent, many, scaled, deep = (tmp_path / name for name in ("gru", "many", "scaled", "deep"))
    train(rt.agents.PPO(network=Network(gru=4), **SMALL), FREEWAY, recurrent)
    refused("gru is recurrent, and columns are not: train it without --gru", BREAKOUT, recurrent)
    train(rt.agents.Distral(**SMALL), FREEWAY, many)
    refused("many has several networks, .*: distil it into a run", BREAKOUT, many)
    network = Network(statistics="per-task")
    train(rt.agents.PPO(network=network, **SMALL), ["CartPole-v1", "Acrobot-v1"], scaled)
    refused("scaled scales the observations of each task by itself", "CartPole-v1", scaled)

    train(rt.agents.PPO(network=Network(channels=(4, 4), hidden=(8,)), **SMALL), FREEWAY, deep)
    other = f"{re.escape(str(first))} has the layers convolution 3 x 3 / 1, linear on 64 pixels"
    refused(other, BREAKOUT, first, deep)
    refused(other, BREAKOUT, first, network=Network(channels=(4, 4), hidden=(8,)))
    refused("observes images of 10 x 10 pixels, and the task shows v", "CartPole-v1", first)
    refused("cartpole observes vectors, and the task shows images", BREAKOUT, columns("cartpole"))
    refused("reads the observation group 'x', but", BREAKOUT, first, network=Network(groups=("x",)))
    refused("but there are 2: train them one after the other", [BREAKOUT, FREEWAY], first)

    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    refused("freeway and .*copy are the same policy: pass each column once", BREAKOUT, first, copy)
    refused("progressive-pqn needs discrete", "Pendulum-v1", columns("cartpole"), kind=PQN)
    # Another action space matters only to a column that starts as the previous policy.
    refused("outputs differ", "Pendulum-v1", columns("cartpole"), start="previous")
    refused("outputs differ", FREEWAY, first, kind=PQN, start="previous")
    assert not (tmp_path / "run").exists()
    begin("Pendulum-v1", columns("cartpole"))
    assert second.exists()


def test_as_many_columns_as_a_file_may_have() -> None:
    first = plain(TINY, (4, 10, 10))
    fields = {field.name: getattr(first, field.name) for field in dataclasses.fields(first)}
    nested: PolicySpec = first
    for _ in range(MOST_COLUMNS):
        nested = ProgressiveSpec(**fields, earlier=(nested,), suites=(Suite.of(FREEWAY),))
    assert num_columns(nested) == MOST_COLUMNS + 1
    check_number_of_columns(MOST_COLUMNS)
    assert ProgressiveSpec.from_json(parse_json(json.dumps(nested.to_json()))) == nested
    two = {**fields, "earlier": (nested,), "suites": (Suite.of(FREEWAY),)}
    with pytest.raises(ValueError, match="takes time to build"):
        ProgressiveSpec.from_json(ProgressiveSpec(**two).to_json())
    with pytest.raises(InputError, match="are 101 earlier columns, but at most 100 are possible"):
        check_number_of_columns(num_columns(nested))


# Memory.


@pytest.mark.parametrize(
    ("network", "shape", "number", "rows", "precision"),
    [
        (Network(encoder="grid"), (4, 10, 10), 3, 512, "float32"),
        (Network(encoder="grid", width=2.0), (4, 10, 10), 1, 16, "float32"),
        (Network(encoder="grid"), (4, 10, 10), 3, 512, "bfloat16"),
        (Network(encoder="grid", layer_norm=True), (4, 10, 10), 2, 256, "float32"),
        (Network(encoder="nature", width=0.5), (4, 84, 84), 2, 32, "float32"),
        (Network(encoder="mlp", hidden=(256, 256)), (17,), 20, 256, "float32"),
    ],
)
def test_the_estimate_of_memory_is_within_a_factor_of_two(
    network: Network, shape: tuple[int, ...], number: int, rows: int, precision: Any
) -> None:
    spec = plain(network, shape)
    policy = progressive(spec, *[spec] * number)
    learner = Learner(policy, learning_rate=1e-3, precision=precision)
    size = network_size.network_size(policy, learner, rows)
    assert size.weights == sum(4 * tensor.numel() for tensor in policy.state_dict().values())
    batch = {"observation": {"policy": torch.rand(rows, *shape)}}

    def loss(batch: Any) -> Loss:
        output = policy(batch["observation"], torch.zeros(rows, dtype=torch.int64))
        return Loss(output.logits.float().logsumexp(-1).mean() + output.value.square().mean())

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        learner.update([batch] * 2, loss)
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    peak = max(itertools.accumulate(event.nbytes() for event in events))
    assert peak / 2 < size.added < 2 * peak


def test_columns_that_do_not_fit_are_refused_and_large_ones_are_announced(
    columns: Columns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    free = {"ram": 0}
    monkeypatch.setattr(network_size, "free_memory", lambda device: free["ram"])
    source, run_dir = str(columns("freeway")), str(tmp_path / "run")
    words = [
        "train", "progressive", "--task", BREAKOUT, "--columns", source, "--num-envs", "4",
        "--rollout-length", "16", "--total-steps", "64", "--episodes", "0",
        "--evaluate-episodes", "0", "--run-dir", run_dir,
    ]  # fmt: skip
    assert main(words) == 2
    assert (
        "in addition to its weights, but 0.0 GiB are free in RAM: use a smaller --batch-size or "
        "--width, or fewer --columns." in capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()
    free["ram"] = 8 * GIB
    monkeypatch.setattr(network_size, "LARGE", 1)
    assert main(words) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "with 2 columns, training takes up to 0.0 GiB of the 8.0 GiB that are free in" in said
    # A minibatch is at most a rollout.
    assert "a minibatch of 64 0.0 GiB), in addition to the network's weights of 0.0 GiB" in said


# Learning.


def last_return(column: Any, run_dir: Path) -> float:
    """The mean training return over the last quarter of a short run on Breakout."""
    returns: list[float] = []

    def keep(event: rt.RunEvent) -> None:
        returns.extend(v for n, v in event.metrics.items() if n == f"rollout/return/{BREAKOUT}")

    method = PPO(
        columns=(str(column),), network=Network(width=0.5), alpha=0.3, learning_rate=3e-3,
        num_envs=64, rollout_length=32, batch_size=256, epochs=2,
    )  # fmt: skip
    train(method, BREAKOUT, run_dir, total_steps=24_576, episodes=0, callbacks=[keep])
    assert len(returns) == 12
    return float(np.mean(returns[-3:]))


def test_a_column_on_one_that_knows_the_task_learns_faster(tmp_path: Path) -> None:
    # On a trained column three seeds reach 3.0 to 3.5; on one with random weights 1.2 to 1.5, and
    # without lateral connections 1.3 to 1.7.
    untrained = train(rt.agents.PPO(learning_rate=0.0, **SMALL), BREAKOUT, tmp_path / "untrained")
    trained = last_return(f"zoo:{BREAKOUT}", tmp_path / "on-trained")
    assert trained > 2.2
    assert trained > 1.4 * last_return(untrained.run_dir, tmp_path / "on-untrained")
