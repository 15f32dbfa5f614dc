"""`rltransfer train --config FILE`: a run is repeated, or changed, and nothing else is run."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from toy import TASK

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.runs.config_file import changed_weights
from rltransfer.runs.generations import Chain

SIZES = "--num-envs 2 --rollout-length 8 --batch-size 16 --epochs 1 --quiet --threads 1"
SHORT = "--total-steps 32 --episodes 1 --evaluate-episodes 0"
PPO = ["train", "ppo", "--task", TASK, *SIZES.split(), *SHORT.split()]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def repeat(*words: str, config: str = "first/config.json", out: str = "second") -> int:
    return main(["train", "--config", config, "--run-dir", out, "--quiet", *words])


def config_of(run_dir: str) -> dict[str, Any]:
    return dict(json.loads((Path(run_dir) / "config.json").read_text()))


def weights_of(run_dir: str) -> str | None:
    return rt.load_teacher(run_dir).sha256


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The sentence by which `train` refuses a configuration, before it writes anything."""
    before = set(Path().rglob("*"))
    capsys.readouterr()
    assert main(["train", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert set(Path().rglob("*")) == before
    return captured.err


def test_a_run_is_repeated(here: Path) -> None:
    first = [*PPO, "--seed", "3", "--hidden", "8", "--clip-range", "0.1", "--run-dir", "first"]
    assert main(first) == 0
    assert repeat() == 0
    assert (here / "second" / "config.json").read_bytes() == (
        (here / "first" / "config.json").read_bytes()
    )
    assert weights_of("second") == weights_of("first")
    # Other options replace those of the file; the agent may be named.
    words = ["train", "ppo", "--config=first/config.json", "--seed", "4", "--run-dir", "third"]
    assert main([*words, "--clip", "0.2", "--task", "CartPole-v1", "--quiet"]) == 0
    found, changed = config_of("third"), config_of("first")
    changed["options"]["seed"], changed["method"]["surrogate"]["clip_range"] = 4, 0.2
    changed["suite"] = rt.Suite.of("CartPole-v1").to_json()
    assert found == changed
    assert weights_of("third") != weights_of("first")


def test_a_part_of_a_configuration_is_enough(here: Path) -> None:
    part = {
        "agent": "ppo", "method": {"num_envs": 2, "horizon": 8, "network": {"hidden": [8]}},
        "options": {"total_timesteps": 16, "episodes": 1, "evaluate_episodes": 0},
    }  # fmt: skip
    (here / "part.json").write_text(json.dumps(part))
    assert repeat("--task", TASK, config="part.json") == 0
    found = config_of("second")
    assert found["method"]["rollout_length"] == 8 and found["method"]["network"]["hidden"] == [8]
    assert found["options"]["total_steps"] == 16
    assert found["method"]["epochs"] == rt.agents.PPO().epochs


def test_tasks_keep_their_arguments_unless_others_are_named(here: Path) -> None:
    rooms = rt.Task("rltransfer/TwoRooms-v0", {"observation": "one-hot"})
    part = {"agent": "ppo", "suite": rt.Suite.of(rooms).to_json()}
    (here / "part.json").write_text(json.dumps(part))
    words = [*SIZES.split()[:-3], *SHORT.split()]
    assert repeat(*words, "--task-option", "goal=3", config="part.json") == 0
    assert config_of("second")["suite"]["tasks"] == [
        {"id": rooms.id, "kwargs": {"observation": "one-hot", "goal": 3}}
    ]


def test_what_is_not_a_configuration_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PPO, "--run-dir", "first"]) == 0
    whole = config_of("first")
    files: dict[str, Any] = {
        "agent": {**whole, "agent": "pp0"},
        "entry": {**whole, "optinos": {}},
        "option": {**whole, "options": {**whole["options"], "total_stesp": 3}},
        "method": {**whole, "method": {**whole["method"], "learning_rte": 1}},
        "nested": {**whole, "method": {"network": {"hiden": [8]}}},
        "twice": {**whole, "method": {"clip": 0.1, "num_envs": 2, "n_envs": 3}},
        "value": {**whole, "method": {"learning_rate": -1}},
        "type": {**whole, "method": {"learning_rate": []}},
        "list": {**whole, "method": [1]},
        "tasks": {**whole, "suite": {"name": "x", "tasks": [3]}},
        "count": {**whole, "generations": 2},
        "nothing": {},
        "no tasks": {"agent": "ppo"},
    }
    for name, content in files.items():
        (here / f"{name}.json").write_text(json.dumps(content))
    (here / "text.json").write_text("not JSON")
    (here / "deep.json").write_text("[" * 100_000)
    os.mkfifo(here / "pipe.json")
    cases = {
        "agent": "did you mean 'ppo'?",
        "entry": "entry.json: There is no entry 'optinos': did you mean 'options'?",
        "option": "option.json: There is no option 'total_stesp': did you mean 'total_steps'?",
        "method": "There is no option 'learning_rte': did you mean 'learning_rate'?",
        "nested": "There is no option 'hiden': did you mean 'hidden'?",
        "twice": "twice.json: num_envs and n_envs are the same option",
        "value": "value.json: learning_rate is -1: it must be",
        "type": "type.json: learning_rate is",
        "list": "list.json: one of its entries has the wrong type.",
        "tasks": "tasks.json: one of its entries has the wrong type.",
        "count": "ppo has no teacher",
        "nothing": "nothing.json is not a configuration: pass the config.json of a run.",
        "no tasks": "Pass either --task ID or --suite NAME",
        "text": "text.json is not a configuration",
        "deep": "deep.json is not a configuration",
        "pipe": "pipe.json is not a configuration",
        "missing": "There is no file missing.json: pass the config.json of a run.",
    }
    for name, sentence in cases.items():
        assert sentence in refused(capsys, "--config", f"{name}.json", "--run-dir", "x"), name
    for words, sentence in {
        "--config first": "first is a folder: pass the file first/config.json.",
        "pqn --config first/config.json": "use `rltransfer train ppo --config first/config.json`",
        "ppo --config first/config.json --resume first": "pass only one of them",
        "--config first/config.json --learning-rte 1": "did you mean '--learning-rate'?",
        "--config first/config.json --run-dir first": "first already exists",
    }.items():
        assert sentence in refused(capsys, *words.split()), words


def test_a_configuration_imports_no_module(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PPO, "--run-dir", "first"]) == 0
    task = "strange.evil:CartPole-v1"
    path = here / "first" / "config.json"
    path.write_text(path.read_text().replace(TASK, task))
    (here / "strange").mkdir()
    (here / "strange" / "evil.py").write_text("open('imported', 'w').close()\n")
    monkeypatch.syspath_prepend(here)
    for name in ("strange", "strange.evil"):
        monkeypatch.setitem(sys.modules, name, sys)
        del sys.modules[name]
    words = ["--config", "first/config.json", "--run-dir", "second"]
    sentence = refused(capsys, *words)
    assert "import the module 'strange.evil'" in sentence and f"pass --task {task}" in sentence
    assert f"pass --task {task}" in refused(capsys, *words, "--task-option", "sutton_barto=true")
    assert not (here / "imported").exists()
    assert repeat("--task", task, "--task-option", "sutton_barto_reward=true") == 0
    assert (here / "imported").exists()
    (played,) = config_of("second")["suite"]["tasks"]
    assert played == {"id": task, "kwargs": {"sutton_barto_reward": True}}


def test_a_teacher_that_has_changed_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("teacher", "0"), ("other", "1")):
        assert main([*PPO, "--seed", seed, "--run-dir", name]) == 0
    student = ["train", "policy-distillation", "--task", TASK, *SIZES.split(), *SHORT.split()]
    noisy = "Noisy('teacher', sigma=0.1)"
    for name, teacher in (("first", "teacher"), ("noisy", noisy)):
        assert main([*student, "--teacher", teacher, "--run-dir", name]) == 0
    assert repeat() == 0 and repeat(config="noisy/config.json", out="noisy again") == 0
    assert weights_of("second") == weights_of("first")
    assert "other weights" not in capsys.readouterr().err
    shutil.rmtree("teacher")
    shutil.copytree("other", "teacher")
    line = "The teacher {} has other weights than in {}/config.json.\n"
    assert repeat(out="third") == 0
    assert line.format("teacher", "first") in capsys.readouterr().err
    assert repeat(config="noisy/config.json", out="noisy third") == 0
    assert line.format(noisy, "noisy") in capsys.readouterr().err
    assert repeat("--teacher", "other", out="fourth") == 0
    assert "other weights" not in capsys.readouterr().err


def test_a_teacher_from_python_is_passed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PPO, "--run-dir", "teacher"]) == 0
    method = rt.agents.PolicyDistillation(
        teacher=rt.CallableTeacher(rt.load_teacher("teacher")), num_envs=2, rollout_length=8,
        batch_size=16,
    )  # fmt: skip
    options: dict[str, Any] = {"total_steps": 16, "episodes": 1, "evaluate_episodes": 0}
    rt.train(method, suite=TASK, run_dir="first", quiet=True, **options)
    sentence = refused(capsys, "--config", "first/config.json", "--run-dir", "second")
    assert "was built in Python" in sentence and sentence.endswith("a function: pass --teacher.\n")
    assert repeat("--teacher", "teacher") == 0
    del (config := config_of("first"))["method"]["teacher"]
    (here / "part.json").write_text(json.dumps(config))
    sentence = refused(capsys, "--config", "part.json", "--run-dir", "third")
    assert "The teacher of a PolicyDistillation is missing: add it, or pass --teacher." in sentence
    assert repeat("--teacher", "teacher", config="part.json", out="third") == 0


def test_a_chain_is_repeated(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Chain] = []
    monkeypatch.setattr(Chain, "train", lambda chain, resume: begun.append(chain))
    monkeypatch.setattr("rltransfer.cli.train.generation_results", lambda folder: [])
    monkeypatch.setattr("rltransfer.cli.train.print_results", lambda *_, **how: None)
    method = rt.agents.PolicyDistillation(teacher="zoo")
    chain = Chain(
        "policy-distillation", method, rt.Suite.of(TASK), rt.RunOptions(seed=2), here, generations=3
    )
    (here / "chain.json").write_text(json.dumps(chain.config()))
    assert repeat(config="chain.json") == 0
    assert begun[-1].config() == chain.config() and begun[-1].folder == Path("second")
    assert repeat("--generations", "2", config="chain.json") == 0
    assert begun[-1].generations == 2


def test_the_configuration_of_an_earlier_version_starts_a_run(here: Path) -> None:
    runs = Path(__file__).parents[1] / "runs" / "earlier_version"
    shutil.copytree(runs / "teacher", here / "first")
    assert repeat("--total-steps", "32", "--episodes", "1") == 0
    assert config_of("second")["method"]["surrogate"]["clip_range"] == 0.3


def test_weights_of_teachers_are_compared_by_their_hashes() -> None:
    one = {"sha256": "a", "spec": {"members": [{"sha256": "b"}, {"sha256": None}]}}
    assert not changed_weights(one, one) and not changed_weights(None, one)
    # Earlier versions stored fewer of them.
    assert not changed_weights({"sha256": "a"}, one)
    assert changed_weights(one, {"sha256": "a"})
    assert not changed_weights("odd", None)
