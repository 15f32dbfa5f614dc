"""Sequences of tasks: what each method begins with, what it forgets, and resuming."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import kill_at_iteration, shell
from safetensors.torch import load_file
from signs import FIRST, SECOND, settings
from tensorboard_reader import events_of
from toy import TASK

import rltransfer as rt
from rltransfer.agents import PPO, PQN, PolicyDistillation, Progressive
from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.files.checkpoint import newest_checkpoint
from rltransfer.policies.network import mlp
from rltransfer.rollouts.evaluation import evaluate_policy
from rltransfer.runs.config import read_config
from rltransfer.runs.generations import SEED_STEP
from rltransfer.runs.sequence import evaluations, returns_matrix

BREAKOUT = "rltransfer/MinAtar-Breakout-v0"
SIGNS = rt.Suite("signs", (FIRST, SECOND))
SMALL: dict[str, Any] = {"episodes": 20, "evaluate_episodes": 0, "quiet": True, "device": "cpu"}
PQN_SETTINGS = {name: value for name, value in settings().items() if name != "surrogate"}


def learn(method: Any, folder: Path, **options: Any) -> Any:
    given = {"suite": SIGNS, "total_steps": 12_000, "run_dir": folder, **SMALL, **options}
    return rt.train(method, sequential=True, **given)


def matrix(folder: Path) -> list[list[float]]:
    return [[one["return_mean"] for one in row.values()] for row in evaluations(folder)]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(newest_checkpoint(run_dir) / "policy.safetensors")


@pytest.mark.usefixtures("brief_check")
def test_finetuning_forgets_ewc_and_columns_do_not(tmp_path: Path) -> None:
    learn(PPO(**settings()), tmp_path / "finetuning", seed=3)
    assert matrix(tmp_path / "finetuning")[0] == [10]
    first, second = matrix(tmp_path / "finetuning")[1]
    assert first <= 7 and second == 10

    learn(PPO(**settings()), tmp_path / "ewc", ewc_weight=30, seed=3)
    assert matrix(tmp_path / "ewc") == [[10], [10, 10]]

    learn(Progressive(**settings()), tmp_path / "progressive")
    assert matrix(tmp_path / "progressive") == [[10], [10, 10]]

    options = {"ewc_weight": 30, "compress_steps": 12_000}
    learn(Progressive(**settings()), tmp_path / "compressed", **options)
    assert matrix(tmp_path / "compressed") == [[10], [10, 10]]

    results = {
        name: json.loads((tmp_path / name / "result.json").read_text())
        for name in ("finetuning", "ewc", "progressive", "compressed")
    }
    forgotten = {name: one["sequence"]["forgetting"] for name, one in results.items()}
    assert forgotten["finetuning"] >= 3
    assert forgotten["ewc"] == forgotten["progressive"] == forgotten["compressed"] == 0
    # The knowledge base has the size of one column; progressive networks grow.
    sizes = {name: one["student_parameters"] for name, one in results.items()}
    assert sizes["compressed"] == sizes["finetuning"] < sizes["progressive"]

    names = SIGNS.names()
    found = rt.evaluate(tmp_path / "progressive", episodes=20)
    assert {name: one.mean for name, one in found.items()} == dict.fromkeys(names, 10)
    found = rt.evaluate(tmp_path / "finetuning", episodes=20)
    assert found[names[0]].mean <= 7 and found[names[1]].mean == 10

    # Each task's run is found, the sequence itself is not another one.
    found = rt.report(tmp_path / "finetuning")
    assert len(found.runs) == 2


def test_each_run_begins_with_what_the_last_one_learned(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = learn(PPO(**settings()), folder, total_steps=160, seed=3, ewc_weight=2.0)
    assert sorted(one.name for one in folder.iterdir() if "tfevents" not in one.name) == [
        ".lock", "config.json", "evaluations.json", "result.json", "task-1", "task-2",
    ]  # fmt: skip
    first, second = (read_config(folder / f"task-{number}") for number in (1, 2))
    assert [one["options"]["seed"] for one in (first, second)] == [3, 3 + SEED_STEP]
    assert [one["suite"]["tasks"][0]["kwargs"]["second"] for one in (first, second)] == [0, 1]
    assert first["options"]["init_from"] is None and first["options"]["ewc_weight"] == 0
    assert second["init_from"]["source"] == str(folder / "task-1")
    assert second["options"]["ewc_from"] == [str(folder / "task-1")]
    assert second["options"]["ewc_weight"] == 2.0
    assert read_config(folder)["sequential"] == {"compress_steps": 0}
    assert run.run_dir == folder / "task-2"
    result = json.loads((folder / "result.json").read_text())
    assert result["env_steps"] == 320 and [*result["tasks"]] == [*SIGNS.names()]
    tags = {point.tag for point in rt.curves(folder)}
    assert "sequence/forgetting" in tags and "rollout/return/tests/Signs-v0" in tags
    curves = events_of(folder)
    steps = [one.step for one in curves.Scalars(f"sequence/return/{SIGNS.names()[0]}")]
    assert steps == [160, 320]
    assert [one.step for one in curves.Scalars("sequence/forgetting")] == [320]


@pytest.mark.usefixtures("brief_check")
def test_a_knowledge_base_begins_with_the_last_one_and_is_the_next_column(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    tasks = [FIRST, SECOND, rt.Task("tests/Signs-v0")]
    learn(
        Progressive(**settings()), folder, suite=tasks, total_steps=160, compress_steps=320,
        ewc_weight=2.0, episodes=2,
    )  # fmt: skip
    configs = {one.name: read_config(one) for one in folder.glob("task-*")}
    assert sorted(configs) == [f"task-{n}{end}" for n in (1, 2, 3) for end in ("", "-column")]
    for number in (1, 2, 3):
        base, column = configs[f"task-{number}"], configs[f"task-{number}-column"]
        assert base["method"]["teacher"] == str(folder / f"task-{number}-column")
        assert base["options"]["total_steps"] == 320 and column["options"]["total_steps"] == 160
        earlier = [str(folder / f"task-{one}") for one in range(1, number)]
        assert base["options"]["ewc_from"] == earlier
        assert base["options"]["init_from"] == (earlier[-1] if earlier else None)
        assert column["options"]["ewc_from"] == []
        assert column["method"].get("columns", []) == earlier[-1:]


def test_evaluations_cut_episodes_as_the_options_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def watched(*args: Any, **how: Any) -> Any:
        given.append(how["max_steps"])
        return evaluate_policy(*args, **how)

    monkeypatch.setattr("rltransfer.runs.sequence.evaluate_policy", watched)
    learn(PPO(**settings()), tmp_path / "run", total_steps=160, evaluate_max_steps=7, episodes=2)
    assert given == [7] * 3
    # Resumed, finished tasks are not played again.
    learn(
        PPO(**settings()), tmp_path / "run", total_steps=160, evaluate_max_steps=7, episodes=2,
        resume=True,
    )  # fmt: skip
    assert given == [7] * 3 and [len(row) for row in matrix(tmp_path / "run")] == [1, 2]
    # With other episodes they are.
    learn(
        PPO(**settings()), tmp_path / "run", total_steps=160, evaluate_max_steps=7, episodes=3,
        resume=True,
    )  # fmt: skip
    rows = evaluations(tmp_path / "run")
    assert len(given) == 6
    assert [{one["episodes"] for one in row.values()} for row in rows] == [{3}, {3}]


@pytest.mark.parametrize("method", [Progressive, rt.agents.ProgressivePQN])
def test_columns_of_other_observations_and_actions(method: Any, tmp_path: Path) -> None:
    given = {name: PQN_SETTINGS[name] for name in ("num_envs", "rollout_length", "batch_size")}
    learn(method(**given), tmp_path / "run", suite=[TASK, FIRST, SECOND], total_steps=160)
    assert [len(row) for row in matrix(tmp_path / "run")] == [1, 2, 3]
    agents = [read_config(tmp_path / f"run/task-{number}")["agent"] for number in (1, 2, 3)]
    name = "progressive" if method is Progressive else "progressive-pqn"
    assert agents == [name.removeprefix("progressive-").replace("progressive", "ppo"), name, name]
    columns = read_config(tmp_path / "run/task-3")["method"]["columns"]
    assert columns == [str(tmp_path / "run/task-2")]
    # Earlier columns play their tasks after the sequence exactly as before.
    rows = matrix(tmp_path / "run")
    assert rows[2][:2] == rows[1][:2] and rows[1][0] == rows[0][0]


def third() -> None:
    """Lets this process be killed at its third iteration."""
    kill_at_iteration(3)


def test_killed_and_resumed_it_ends_the_same(tmp_path: Path) -> None:
    words = [
        "--task", "rltransfer/MinAtar-Breakout-v0", "rltransfer/MinAtar-SpaceInvaders-v0",
        "--sequential", "--num-envs", "4", "--rollout-length", "10", "--batch-size", "40",
        "--total-steps", "160", "--episodes", "2", "--evaluate-episodes", "0", "--threads", "1",
        "--checkpoint-every", "40", "--quiet",
    ]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(["train", "progressive", *words, "--run-dir", str(whole)]) == 0
    process = shell(
        "train", "progressive", *words, "--run-dir", killed, folder=tmp_path / "one", before=third
    )
    assert process.code() == -signal.SIGKILL
    process = shell("train", "--resume", killed, "--quiet", folder=tmp_path / "two", before=third)
    assert process.code() == -signal.SIGKILL
    assert main(["train", "progressive", "--resume", str(killed), "--quiet"]) == 0
    for number in (1, 2):
        one, other = (weights(folder / f"task-{number}") for folder in (whole, killed))
        assert all(torch.equal(other[name], tensor) for name, tensor in one.items())
    assert matrix(whole) == matrix(killed)
    # A finished one is left as it is.
    before = (killed / "result.json").read_text()
    assert main(["train", "--resume", str(killed), "--quiet"]) == 0
    assert (killed / "result.json").read_text() == before


@pytest.mark.parametrize(
    ("method", "options", "sentence"),
    [
        (PPO(), {"suite": FIRST}, "has one task: a sequence needs at least two"),
        (PPO(), {"compress_steps": 10}, "ppo has no columns to compress: use progressive"),
        (PPO(), {"suite": [TASK, FIRST]}, "other observations or actions than 'tests/Echo-v0'"),
        (PPO(), {"generations": 2}, "A sequence of tasks has no generations"),
        (Progressive(), {"ewc_weight": 1.0}, "never changes what earlier tasks learned"),
        (PPO(), {"compress_steps": -1}, "compress_steps is -1"),
        (PPO(), {"ewc_from": ["a"]}, "ewc_from names earlier runs, but ewc_weight is 0"),
        (PPO(), {"ewc_from": ["a", "a"], "ewc_weight": 1.0}, "ewc_from contains a run twice"),
        (Progressive(), {"freeze": "layers:1"}, "begins with fresh weights, which freeze"),
        (Progressive(columns=("a",)), {}, "a column of its own: leave out --columns"),
        (Progressive(), {"suite": ["CartPole-v1", "Bogus-v1"]}, "Bogus-v1"),
        (Progressive(), {"suite": ["CartPole-v1", BREAKOUT]}, "shows images of another size"),
        (
            PPO(network=mlp(hidden=(8,), gru=4)),
            {"ewc_weight": 1.0},
            "needs policies without recurrent state",
        ),
        (PolicyDistillation(teacher="zoo"), {}, "zoo"),
    ],
)
def test_refusals(method: Any, options: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        learn(method, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_sequence_may_be_moved_and_named_by_another_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for method, options in ((PPO, {"ewc_weight": 1.0}), (Progressive, {})):
        here, there = Path(method.__name__), tmp_path / f"moved-{method.__name__}"
        learn(method(**settings()), here, total_steps=160, **options)
        before = (here / "evaluations.json").read_text()
        learn(method(**settings()), here.absolute(), total_steps=160, resume=True, **options)
        here.rename(there)
        # As if the process had been killed when it made the second folder.
        shutil.rmtree(there / "task-2")
        (there / "task-2").mkdir()
        (there / "task-2" / ".lock").touch()
        (there / "task-2" / ".config.json.partial").write_text("{")
        learn(method(**settings()), there, total_steps=160, resume=True, **options)
        assert (there / "evaluations.json").read_text() == before


def test_q_networks_are_consolidated(tmp_path: Path) -> None:
    learn(PQN(**PQN_SETTINGS), tmp_path / "run", total_steps=160, ewc_weight=1.0)
    assert [len(row) for row in matrix(tmp_path / "run")] == [1, 2]


def test_compressing_needs_a_sequence_and_kinds_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="compress_steps is an option of sequences"):
        rt.train(PPO(), suite=FIRST, run_dir=tmp_path / "run", compress_steps=5)
    with pytest.raises(InputError, match="needs earlier columns: pass --columns RUN"):
        rt.train(Progressive(**settings()), suite=FIRST, run_dir=tmp_path / "run", **SMALL)
    learn(PQN(**PQN_SETTINGS), tmp_path / "sequence", total_steps=160)
    with pytest.raises(InputError, match="contains a sequence of tasks, not a single run"):
        rt.train(
            PQN(**PQN_SETTINGS), suite=SIGNS, run_dir=tmp_path / "sequence", resume=True, **SMALL
        )
    with pytest.raises(InputError, match="total_steps"):
        learn(PQN(**PQN_SETTINGS), tmp_path / "sequence", total_steps=320, resume=True)


def test_the_matrix_leaves_out_what_was_not_played() -> None:
    rows = [{"a": 3.0}, {"a": 1.0, "b": 5.0}, {"a": 2.0, "b": 4.0, "c": 6.0}]
    found = [{name: {"return_mean": value} for name, value in row.items()} for row in rows]
    expected = [[3, 4, 6], [1, 5, 6], [2, 4, 6]]
    assert returns_matrix(found).tolist() == expected
    # Chaudhry 2018: (3 - 2 + 5 - 4) / 2.
    assert rt.metrics.forgetting(returns_matrix(found)).estimate == 1
