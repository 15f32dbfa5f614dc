"""A run's policy in a zip of Stable-Baselines3 acts as in the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.policies.network import Network
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.policies.saving import load_policy, save_policy
from rltransfer.rollouts.evaluation import probe_spaces
from rltransfer.runs.exporters import export_as
from rltransfer.tasks.random_observation import random_observation
from rltransfer.tasks.task import Suite

OBSERVATIONS = 256
TOLERANCE = 1e-5
"""Relative to the largest action: both compute in float32, but sum in different orders."""

FEW: dict[str, Any] = {"episodes": 0, "evaluate_episodes": 0, "quiet": True, "device": "cpu"}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def train(run_dir: Path, task: str, method: Any = None) -> Path:
    """Trains for 2,000 steps."""
    method = method or rt.agents.PPO(num_envs=4, rollout_length=50)
    rt.train(method, suite=task, total_steps=2_000, run_dir=run_dir, **FEW)
    return run_dir


def assert_acts_alike(task: str, run_dir: Path, path: Path, algorithm: Any) -> None:
    """Compares a run, what Stable-Baselines3 loads, and the zip as a teacher."""
    venv = DummyVecEnv([lambda: gymnasium.make(task)])
    statistics = VecNormalize.load(str(path.with_suffix(".vecnormalize.pkl")), venv)
    assert not statistics.training and not statistics.norm_reward
    model = algorithm.load(path, env=statistics, device="cpu")  # the spaces are those of the task
    own = probe_spaces(Suite.of(task), torch.device("cpu"))
    run = rt.load_teacher(run_dir).fitted(own)
    again = rt.load_teacher(path, suite=task).fitted(own)
    assert any("statistics" in note for note in again.notes())  # found next to the zip
    shown = random_observation(own.observation_space, OBSERVATIONS)
    rows = torch.zeros(OBSERVATIONS, dtype=torch.int64)
    shown["policy"][::2] *= 1000.0
    expected, found = run(shown, rows), again(shown, rows)
    seen = statistics.normalize_obs(shown["policy"].numpy())
    assert isinstance(seen, np.ndarray)
    assert float(np.abs(seen).max()) == 10.0  # also where observations are clipped
    actions, _ = model.predict(seen, deterministic=True)
    if isinstance(model.action_space, spaces.Discrete):
        assert torch.equal(torch.from_numpy(actions), expected.greedy())
        assert len(set(actions.tolist())) == int(model.action_space.n)
    else:
        low, high = model.action_space.low, model.action_space.high
        wanted = expected.mean.numpy().clip(low, high)
        np.testing.assert_allclose(actions, wanted, TOLERANCE, TOLERANCE)
    for label in ("logits", "q_values", "mean", "log_std"):
        one, other = getattr(expected, label), getattr(found, label)
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(other, one, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("task", ["CartPole-v1", "Pendulum-v1"])
def test_ppo_acts_like_the_run(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, path = tmp_path / "run", tmp_path / "student.zip"
    words = ["train", "ppo", "--task", task, "--total-steps", "2000", "--num-envs", "4"]
    words += ["--rollout-length", "50", "--episodes", "0", "--evaluate-episodes", "0", "--quiet"]
    assert main([*words, "--run-dir", str(run_dir)]) == 0
    capsys.readouterr()
    assert main(["export", str(run_dir), "--to", "sb3", "--out", str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["samples"] == 256 and said["largest_difference"] < 1e-4
    assert said["others"] == [str(path.with_suffix(".vecnormalize.pkl"))]
    assert_acts_alike(task, run_dir, path, PPO)
    # Nothing is overwritten.
    before = path.read_bytes()
    assert main(["export", str(run_dir), "--to", "sb3", "--out", str(path)]) == 2
    assert "already exists" in capsys.readouterr().err and path.read_bytes() == before
    path.unlink()
    assert main(["export", str(run_dir), "--to", "sb3", "--out", str(path)]) == 2
    assert "student.vecnormalize.pkl already exists" in capsys.readouterr().err
    path.with_suffix(".vecnormalize.pkl").unlink()
    assert main(["export", str(run_dir), "--to", "sb3", "--out", str(path)]) == 0
    assert "stable_baselines3.PPO.load(" in capsys.readouterr().out


def test_the_value_of_ppo_is_the_runs(tmp_path: Path) -> None:
    run_dir, path = train(tmp_path / "run", "CartPole-v1"), tmp_path / "student.zip"
    assert not any("untrained" in note for note in export_as("sb3", run_dir, path).notes)
    own = probe_spaces(Suite.of("CartPole-v1"), torch.device("cpu"))
    shown = random_observation(own.observation_space, OBSERVATIONS)
    rows = torch.zeros(OBSERVATIONS, dtype=torch.int64)
    expected = rt.load_teacher(run_dir).fitted(own)(shown, rows).value
    found = rt.load_teacher(path, suite="CartPole-v1").fitted(own)(shown, rows).value
    assert expected is not None and float(expected.std()) > 0.01
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_q_values_are_a_dqn(tmp_path: Path) -> None:
    network = Network(hidden=(32,), layer_norm=False)
    method = rt.agents.PQN(network=network, num_envs=4, rollout_length=50)
    run_dir, path = train(tmp_path / "run", "CartPole-v1", method), tmp_path / "student.zip"
    export_as("sb3", run_dir, path)
    assert_acts_alike("CartPole-v1", run_dir, path, DQN)
    model = DQN.load(path)
    assert model.buffer_size == 1_000_000
    for name, weights in model.q_net.state_dict().items():
        assert torch.equal(weights, model.q_net_target.state_dict()[name])


def test_a_value_function_of_other_observations_is_left_out(tmp_path: Path) -> None:
    run_dir = run_of(tmp_path, "CartPole-v1", Network())
    stem = run_dir / "checkpoints" / "step-000000000001" / "policy"
    policy = load_policy(stem)
    assert policy.value_encoder is not None and policy.value_encoder.normalizer is not None
    assert not any(
        "untrained" in one for one in export_as("sb3", run_dir, tmp_path / "a.zip").notes
    )
    policy.value_encoder.normalizer.mean.add_(1.0)
    save_policy(policy, stem)
    assert any("untrained" in one for one in export_as("sb3", run_dir, tmp_path / "b.zip").notes)


@pytest.mark.parametrize("task", ["CartPole-v1", "Pendulum-v1"])
def test_a_zip_that_acts_differently_is_not_written(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = run_of(tmp_path, task, Network())
    monkeypatch.setattr(
        "rltransfer.agents.sb3_export._action_layer",
        lambda policy: (-policy.action_head.weight.detach(), policy.action_head.bias.detach() + 1),
    )
    with pytest.raises(RuntimeError, match=r"differ from the policy's by .*; it was not written"):
        export_as("sb3", run_dir, tmp_path / "a.zip")
    assert [one.name for one in tmp_path.iterdir()] == ["run"]


def test_a_student_learns_on(tmp_path: Path) -> None:
    teacher = train(tmp_path / "run", "CartPole-v1")
    method = rt.agents.PolicyDistillation(
        teacher=str(teacher), student=rt.policies.mlp(hidden=(16, 16)), num_envs=4,
        rollout_length=50, memory_steps=1_000,
    )  # fmt: skip
    run_dir, path = train(tmp_path / "student", "CartPole-v1", method), tmp_path / "student.zip"
    exported = export_as("sb3", run_dir, path, samples=16)
    assert any("value function" in note and "untrained" in note for note in exported.notes)
    assert_acts_alike("CartPole-v1", run_dir, path, PPO)
    venv = DummyVecEnv([lambda: gymnasium.make("CartPole-v1")])
    statistics = VecNormalize.load(str(path.with_suffix(".vecnormalize.pkl")), venv)
    model = PPO.load(path, env=statistics, device="cpu", n_steps=32, batch_size=32)
    model.learn(64)


# Policies that Stable-Baselines3 does not have.


def run_of(folder: Path, task: str | tuple[str, ...], network: Network, **rest: Any) -> Path:
    """What a run with fresh weights leaves."""
    suite = Suite.of(*task) if isinstance(task, tuple) else Suite.of(task)
    spec = PolicySpec.of_suite(network, probe_spaces(suite, torch.device("cpu")), **rest)
    checkpoint = folder / "run" / "checkpoints" / "step-000000000001"
    checkpoint.mkdir(parents=True)
    save_policy(Policy(spec), checkpoint / "policy")
    (folder / "run" / "config.json").write_text(json.dumps({"suite": suite.to_json()}))
    return folder / "run"


@pytest.mark.parametrize(
    ("task", "network", "sentence"),
    [
        ("CartPole-v1", Network(gru=4), "it has a GRU"),
        ("CartPole-v1", Network(layer_norm=True), "its layers are not only linear"),
        ("rltransfer/MinAtar-Breakout-v0", Network(), "it reads images"),
        ("rltransfer/MinAtar-Breakout-v0", Network(encoder="mlp"), "it reads images"),
        (("CartPole-v1", "Acrobot-v1"), Network(), "it is for several tasks"),
    ],
)
def test_other_policies_are_refused(
    task: Any, network: Network, sentence: str, tmp_path: Path
) -> None:
    run_dir = run_of(tmp_path, task, network)
    with pytest.raises(InputError, match=rf"cannot be exported to sb3: .*{sentence}.*--to onnx"):
        export_as("sb3", run_dir, tmp_path / "student.zip")
    assert [one.name for one in tmp_path.iterdir()] == ["run"]


def test_discrete_observations_are_one_hot(tmp_path: Path) -> None:
    run_dir, path = run_of(tmp_path, "FrozenLake-v1", Network()), tmp_path / "student.zip"
    assert any("one-hot" in note for note in export_as("sb3", run_dir, path).notes)
    found = rt.evaluate(path, "FrozenLake-v1", episodes=4, device="cpu")
    expected = rt.evaluate(run_dir, episodes=4, device="cpu")
    assert found["FrozenLake-v1"].returns == expected["FrozenLake-v1"].returns


def test_columns_are_refused(tmp_path: Path) -> None:
    method = rt.agents.Progressive(
        columns=(str(train(tmp_path / "run", "CartPole-v1")),), num_envs=4, rollout_length=50
    )
    run_dir = train(tmp_path / "columns", "CartPole-v1", method)
    with pytest.raises(InputError, match="it consists of several networks"):
        export_as("sb3", run_dir, tmp_path / "student.zip")


def test_options_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = run_of(tmp_path, "CartPole-v1", Network(normalize=False))
    for words, sentence in (
        (["--out", "a.onnx"], "a.onnx is not the name of a zip: use --out a.zip"),
        (["--out", "a.zip", "--actions-only"], "--actions-only is for ONNX files"),
        (["--out", str(tmp_path / "no" / "a.zip")], "there is no folder"),
        (["--out", "a.zip", "--samples", "0"], "at least 1"),
        (["--out", "a.zip", "--to", "sb4"], "did you mean 'sb3'"),
    ):
        to = [] if "--to" in words else ["--to", "sb3"]
        assert main(["export", str(run_dir), *to, *words]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["export", str(run_dir), "--out", str(tmp_path / "a.zip")]) == 2
    assert "add --to sb3, or use --out a.onnx" in capsys.readouterr().err
    # Without statistics there is one file.
    exported = export_as("sb3", run_dir, tmp_path / "a.zip")
    assert exported.others == () and {one.name for one in tmp_path.iterdir()} == {"run", "a.zip"}


@pytest.mark.parametrize(
    "name", ["a.vecnormalize.pkl", "vec_normalize.pkl", "vecnormalize.pkl", "a/vecnormalize.pkl"]
)
def test_statistics_of_another_policy_are_refused(name: str, tmp_path: Path) -> None:
    run_dir = run_of(tmp_path, "CartPole-v1", Network(normalize=False))
    folder = tmp_path / "out"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(InputError, match=f"{name}, but the policy has none: use another --out"):
        export_as("sb3", run_dir, folder / "a.zip")
    assert not list(folder.glob("*.zip"))
    (folder / "config.yml").write_text("normalize: false\n")  # so that no zip reads them
    assert export_as("sb3", run_dir, folder / "a.zip").others == ()


@pytest.mark.parametrize("name", ["a/vecnormalize.pkl", "config.yml"])
def test_files_that_hide_the_statistics_are_refused(name: str, tmp_path: Path) -> None:
    run_dir = run_of(tmp_path, "CartPole-v1", Network())
    folder = tmp_path / "out"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("normalize: false\n")
    (folder / "vec_normalize.pkl").write_bytes(b"")  # which comes after the zip's own
    with pytest.raises(InputError, match=f"because of .*{name}: use --out in another folder"):
        export_as("sb3", run_dir, folder / "a.zip")
    (folder / name).unlink()
    assert len(export_as("sb3", run_dir, folder / "a.zip").others) == 1
