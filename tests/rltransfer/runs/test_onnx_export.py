"""An exported policy acts as the run's policy does, and says what it needs to."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from toy import TASK

from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.files.checkpoint import newest_checkpoint
from rltransfer.policies.network import Network
from rltransfer.policies.output import MASKED
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.policies.saving import load_policy, save_policy
from rltransfer.runs import onnx_export
from rltransfer.runs.onnx_export import Exportable, export_run, largest_difference
from rltransfer.tasks.observation import space_from_json
from rltransfer.tasks.task import Suite

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TOLERANCE = 1e-5
"""Both compute in float32, but sum in another order."""

QUICK = [
    *("--num-envs", "4", "--rollout-length", "10", "--batch-size", "40", "--steps", "400"),
    *("--evaluate-episodes", "0", "--episodes", "1", "--quiet"),
]


def trained(folder: Path, *words: str) -> Path:
    """Trains for a moment and returns the run's folder."""
    assert main(["train", *words, *QUICK, "--run-dir", str(folder / "run")]) == 0
    return folder / "run"


def run_of(policy: Policy, folder: Path, suite: Suite) -> Path:
    """Writes what a run of this policy leaves."""
    checkpoint = folder / "run" / "checkpoints" / "step-000000000001"
    checkpoint.mkdir(parents=True)
    save_policy(policy, checkpoint / "policy")
    config = {"suite": suite.to_json()}
    (folder / "run" / "config.json").write_text(json.dumps(config))
    return folder / "run"


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def names(values: list[Any]) -> list[str]:
    return [value.name for value in values]


def metadata(path: Path) -> dict[str, str]:
    return {one.key: one.value for one in onnx.load(path).metadata_props}


def test_a_policy_over_vectors_acts_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = trained(tmp_path, "ppo", "--task", TASK), tmp_path / "policy.onnx"
    capsys.readouterr()
    assert main(["export", str(run), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["inputs"] == {"observation_policy": "float32[batch, 4]"}
    assert said["outputs"] == {"action": "int64[batch]", "logits": "float32[batch, 4]"}
    assert said["samples"] == 256 and said["largest_difference"] < TOLERANCE
    assert said["num_bytes"] == out.stat().st_size

    policy = load_policy(newest_checkpoint(run) / "policy")
    for batch in (1, 7):  # any number of rows
        seen = torch.randn(batch, 4)
        action, logits = session(out).run(None, {"observation_policy": seen.numpy()})
        output = policy({"policy": seen})
        np.testing.assert_array_equal(action, output.greedy().numpy())
        np.testing.assert_allclose(logits, output.logits.detach().numpy(), atol=TOLERANCE)

    known = metadata(out)
    weights = (newest_checkpoint(run) / "policy.safetensors").read_bytes()
    assert known["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert json.loads(known["tasks"]) == [{"id": TASK, "kwargs": {}}]
    assert space_from_json(json.loads(known["action_space"])) == spaces.Discrete(4)
    assert known["format"] == "rltransfer policy 1"
    model = onnx.load(out)
    assert [one.version for one in model.opset_import] == [18]
    # The exporter would leave the paths of this machine in the file.
    assert str(Path(onnx_export.__file__).parent).encode() not in out.read_bytes()


def test_continuous_actions_are_clipped_to_their_bounds(tmp_path: Path) -> None:
    run, out = trained(tmp_path, "ppo", "--task", "Pendulum-v1"), tmp_path / "policy.onnx"
    export_run(run, out)
    acting = session(out)
    assert names(acting.get_outputs()) == ["action", "mean", "log_std"]
    policy = load_policy(newest_checkpoint(run) / "policy")
    env = gymnasium.make("Pendulum-v1")
    seen, _ = env.reset(seed=0)
    for _ in range(20):
        action, mean, log_std = acting.run(None, {"observation_policy": seen[None]})
        output = policy({"policy": torch.from_numpy(seen[None])})
        np.testing.assert_allclose(mean, output.mean.detach().numpy(), atol=TOLERANCE)
        np.testing.assert_allclose(log_std, output.log_std.detach().numpy(), atol=TOLERANCE)
        np.testing.assert_array_equal(action, mean.clip(-2.0, 2.0))
        seen, *_ = env.step(action[0])
    # Far away, the mean leaves the bounds: -2 to 2 Newton metres.
    with torch.no_grad():
        policy.action_head.bias.fill_(5.0)
        said = Exportable(policy, 1)([torch.from_numpy(seen[None])])
    assert said["mean"].item() > 2.0 and said["action"].item() == 2.0


def test_a_policy_over_images_acts_the_same(tmp_path: Path) -> None:
    run = trained(tmp_path, "ppo", "--task", "rltransfer/MinAtar-Breakout-v0")
    exported = export_run(run, tmp_path / "policy.onnx", samples=32)
    assert exported.inputs == {"observation_policy": "uint8[batch, 4, 10, 10]"}
    assert exported.largest_difference < TOLERANCE


def test_a_policy_of_several_tasks_knows_them_by_index(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = spaces.Dict({"policy": spaces.Box(0, 1, (2, 5, 5), np.uint8)})
    mask = ((True, True, False), (False, True, True))
    policy = Policy(PolicySpec(Network(width=0.25), image, spaces.Discrete(3), mask)).eval()
    run, out = run_of(policy, tmp_path, Suite.of(TASK, "CartPole-v1")), tmp_path / "policy.onnx"
    assert main(["export", str(run), "--out", str(out)]) == 0
    assert f"task: 0 for {TASK}, 1 for CartPole-v1. Pad shorter" in capsys.readouterr().out
    acting = session(out)
    assert names(acting.get_inputs()) == ["observation_policy", "task"]
    seen = np.ones((2, 2, 5, 5), np.uint8)
    action, logits = acting.run(None, {"observation_policy": seen, "task": np.arange(2)})
    output = policy({"policy": torch.from_numpy(seen)}, torch.arange(2))
    np.testing.assert_array_equal(action, output.greedy().numpy())
    np.testing.assert_array_equal(logits == MASKED, ~np.array(mask))
    known = metadata(out)
    assert [task["id"] for task in json.loads(known["tasks"])] == [TASK, "CartPole-v1"]
    assert json.loads(known["action_mask"]) == [list(row) for row in mask]


def test_a_policy_of_continuous_actions_of_other_sizes(tmp_path: Path) -> None:
    vector = spaces.Dict({"policy": spaces.Box(-9, 9, (3,), np.float32)})
    both, mask = spaces.Box(-2, 2, (2,), np.float32), ((True, False), (True, True))
    policy = Policy(PolicySpec(Network(), vector, both, mask)).eval()
    run, out = run_of(policy, tmp_path, Suite.of(TASK, "CartPole-v1")), tmp_path / "policy.onnx"
    export_run(run, out)
    seen, task = torch.randn(6, 3), torch.tensor([0, 1] * 3)
    action, mean, log_std = session(out).run(
        None, {"observation_policy": seen.numpy(), "task": task.numpy()}
    )
    output = policy({"policy": seen}, task)
    np.testing.assert_allclose(mean, output.mean.detach().numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(log_std, output.log_std.detach().numpy(), atol=TOLERANCE)
    assert not action[::2, 1].any() and action[1::2, 1].all()


def test_what_never_varied_in_a_task_is_normalised_as_the_policy_does(tmp_path: Path) -> None:
    network = Network(hidden=(8,), statistics="per-task")
    space = spaces.Dict(policy=spaces.Box(0, 1, (6,), np.float32))
    policy = PolicySpec(network, space, spaces.Discrete(3), num_tasks=2).build()
    seen = torch.rand(64, 6)
    seen[:, 3:] = 0.0  # a variance of 0, to which a tiny epsilon is added
    policy.update_statistics({"policy": seen}, torch.arange(64) % 2)
    run = run_of(policy.eval(), tmp_path, Suite.of("CartPole-v1", "Acrobot-v1"))
    export_run(run, tmp_path / "policy.onnx")
    task, slightly = torch.tensor([0, 1]), torch.full((2, 6), 3e-4)
    said = session(tmp_path / "policy.onnx").run(
        ["logits"], {"observation_policy": slightly.numpy(), "task": task.numpy()}
    )
    logits = policy({"policy": slightly}, task).logits.detach().numpy()
    np.testing.assert_allclose(said[0], logits, atol=TOLERANCE)


def test_a_recurrent_policy_hands_its_state_on(tmp_path: Path) -> None:
    run = trained(tmp_path, "ppo", "--task", TASK, "--gru", "8")
    out = tmp_path / "policy.onnx"
    export_run(run, out)
    acting = session(out)
    policy = load_policy(newest_checkpoint(run) / "policy")
    seen = torch.randn(6, 3, 4)
    state = policy.initial_state(3).numpy()
    said = []
    for step in seen.numpy():
        _, logits, state = acting.run(None, {"observation_policy": step, "state": state})
        said.append(logits)
    expected = policy({"policy": seen})  # the whole sequence at once
    np.testing.assert_allclose(np.stack(said), expected.logits.detach().numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(state, expected.state.detach().numpy(), atol=TOLERANCE)


GROUPS = spaces.Dict(
    {
        "policy": spaces.Box(-np.inf, np.inf, (3,), np.float32),
        "privileged": spaces.Box(-3.4e38, 3.4e38, (2,), np.float32),
        "unread": spaces.Box(-1.0, 1.0, (4,), np.float32),
    }
)


# The second is the option's name in earlier versions.
@pytest.mark.parametrize("option", ["--actions-only", "--stochastic-free"])
def test_groups_are_inputs_and_the_rest_can_be_left_out(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = Network(hidden=(8,), groups=("privileged", "policy"))
    spec = PolicySpec(network, GROUPS, spaces.Discrete(3), q_values=True)
    run = run_of(Policy(spec).eval(), tmp_path, Suite.of(TASK))
    out = tmp_path / f"{option}.onnx"
    assert main(["export", str(run), "--out", str(out), option]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "float32[batch, 2]" in said and "match the policy's on 256 random observations" in said
    acting = session(out)
    assert names(acting.get_inputs()) == ["observation_privileged", "observation_policy"]
    assert names(acting.get_outputs()) == ["action"]


def test_a_file_that_acts_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = PolicySpec(
        Network(hidden=(8,)), spaces.Dict({"policy": GROUPS["policy"]}), spaces.Discrete(3)
    )
    policy, other = Policy(spec).eval(), Policy(spec).eval()
    with torch.no_grad():
        other.action_head.weight.neg_()
    run = run_of(policy, tmp_path, Suite.of(TASK))
    content = onnx_export._exported(Exportable(other, 1), {})[0]
    monkeypatch.setattr(onnx_export, "_exported", lambda *arguments: (content, {}, {}))
    with pytest.raises(RuntimeError, match=r"action differs .* in \d+ of 64 observations"):
        export_run(run, tmp_path / "policy.onnx", samples=64)
    assert not (tmp_path / "policy.onnx").exists()
    assert largest_difference(Exportable(other, 1), content, 64) < TOLERANCE


def test_of_two_actions_that_scores_hardly_tell_apart_each_is_right() -> None:
    scores = np.array([[50.0, 50.001, 0.0], [1.0, 2.0, MASKED]], np.float32)
    own = np.array([1, 1])
    # A ten-thousandth of the largest, 50.001, is 0.005.
    onnx_export._check_actions(own, np.array([0, 1]), scores)
    with pytest.raises(RuntimeError, match="in 1 of 2"):
        onnx_export._check_actions(own, np.array([0, 0]), scores)
    with pytest.raises(RuntimeError, match="in 1 of 2"):
        onnx_export._check_actions(own, np.array([1, 2]), scores)


def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = PolicySpec(
        Network(hidden=(8,)), spaces.Dict({"policy": GROUPS["policy"]}), spaces.Discrete(3)
    )
    run = str(run_of(Policy(spec).eval(), tmp_path, Suite.of(TASK)))
    there = tmp_path / "there.onnx"
    there.write_text("kept")
    link = tmp_path / "link.onnx"
    link.symlink_to(tmp_path / "nothing")
    out = str(tmp_path / "policy.onnx")
    cases = {
        (): "RUN is missing",
        ("--out", out): "RUN is missing",
        (run,): "--out is missing",
        (str(tmp_path / "nowhere"), "--out", out): "is not a run: it has no config.json",
        (run, "--out", str(there)): "already exists",
        (run, "--out", str(link)): "already exists",
        (run, "--out", str(tmp_path / "no" / "policy.onnx")): "there is no folder",
        (run, "--out", out, "--samples", "0"): "samples is 0",
        (run, "--out", out, "--opset", "3"): "no option '--opset'",
    }
    for words, sentence in cases.items():
        assert main(["export", *words]) == 2, words
        captured = capsys.readouterr()
        assert sentence in captured.err and captured.err.count("\n") == 1
        assert captured.out == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package onnx: .*rltransfer\[export\]"):
        export_run(Path(run), Path(out))
    assert there.read_text() == "kept" and not Path(out).exists()
    (newest_checkpoint(Path(run)) / "policy.safetensors").write_bytes(b"cut short")
    with pytest.raises(InputError, match="damaged"):
        export_run(Path(run), Path(out))
