"""Generations: each learns from the one before; killed and resumed they end the same."""

from __future__ import annotations

import dataclasses
import itertools
import json
import signal
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import stable_baselines3
import torch
import toy
from processes import kill_at_iteration, shell
from safetensors.torch import load_file
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from toy import TASK

import rltransfer as rt
from rltransfer.agents import PPO, PolicyDistillation
from rltransfer.cli import export as export_command
from rltransfer.cli.main import main
from rltransfer.files.checkpoint import newest_checkpoint, newest_generation
from rltransfer.runs.config import read_config
from rltransfer.runs.folder import lock
from rltransfer.runs.generations import SEED_STEP, generation_results
from rltransfer.runs.run import Run

QUICK = {"total_steps": 160, "episodes": 2, "evaluate_episodes": 0, "quiet": True}
SMALL = {"num_envs": 4, "rollout_length": 10, "batch_size": 40}
STUDENT = {**SMALL, "student": rt.policies.mlp(hidden=(8,))}
WORDS = ["--num-envs", "4", "--rollout-length", "10", "--batch-size", "40", "--hidden", "8"]
QUICK_WORDS = ["--episodes", "2", "--evaluate-episodes", "0", "--quiet", "--threads", "1"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("teacher") / "run"
    rt.train(PPO(**SMALL), suite=TASK, run_dir=run_dir, **QUICK)
    return run_dir


def chain(folder: Path, teacher: object, generations: int = 3, **options: object) -> Run:
    return rt.train(
        PolicyDistillation(teacher=teacher, **STUDENT), suite=TASK, run_dir=folder,
        generations=generations, **{**QUICK, **options},
    )  # fmt: skip


def policy_of(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(newest_checkpoint(run_dir) / "policy.safetensors")


def test_each_generation_learns_from_the_one_before(tmp_path: Path, teacher: Path) -> None:
    folder = tmp_path / "chain"
    run = chain(folder, str(teacher), seed=7)
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock", "config.json", "generation-1", "generation-2", "generation-3", "result.json",
    ]  # fmt: skip
    configs = [read_config(folder / f"generation-{number}") for number in (1, 2, 3)]
    taught_by = [str(teacher), str(folder / "generation-1"), str(folder / "generation-2")]
    assert [config["method"]["teacher"] for config in configs] == taught_by
    # The policy that the run before ended with.
    assert configs[2]["teacher"]["sha256"] == rt.load_teacher(folder / "generation-2").sha256
    seeds = [config["options"]["seed"] for config in configs]
    assert seeds == [7, 7 + SEED_STEP, 7 + 2 * SEED_STEP]
    # All else is the same, the steps too.
    for config in configs:
        config["method"]["teacher"], config["options"]["seed"] = "", 0
    assert configs[0]["method"] == configs[1]["method"] == configs[2]["method"]
    assert configs[0]["options"] == configs[2]["options"]
    results = generation_results(folder)
    assert [result["env_steps"] for result in results] == [160] * 3
    assert run.result == results[-1] == json.loads((folder / "result.json").read_text())
    assert run.run_dir == folder / "generation-3"


def test_a_student_starts_from_other_weights(tmp_path: Path, teacher: Path) -> None:
    # A step size of zero leaves the weights where they start.
    method = PolicyDistillation(teacher=str(teacher), learning_rate=0.0, **STUDENT)
    rt.train(method, suite=TASK, run_dir=tmp_path / "chain", generations=3, **QUICK)
    # The last two have teachers of one size, so that nothing but the seed can make a difference.
    second, third = (policy_of(tmp_path / "chain" / f"generation-{n}") for n in (2, 3))
    assert not torch.equal(second["action_head.weight"], third["action_head.weight"])


def test_a_chain_of_one_is_a_run(tmp_path: Path, teacher: Path) -> None:
    alone = chain(tmp_path / "alone", str(teacher), generations=0)
    one = chain(tmp_path / "one", str(teacher), generations=1)
    assert one.result["tasks"] == alone.result["tasks"]
    first, second = policy_of(tmp_path / "alone"), policy_of(tmp_path / "one" / "generation-1")
    assert all(torch.equal(first[name], second[name]) for name in first)


def fall_in_the_second_generation() -> None:
    """Lets this process be killed at the 15th iteration of 30 of the second generation."""
    toy.register()
    kill_at_iteration(30 + 15)


def test_killed_and_resumed_equals_unbroken(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "train", "policy-distillation", "--task", TASK, "--teacher", str(teacher), *WORDS,
        *QUICK_WORDS, "--steps", "1200", "--checkpoint-every", "400", "--generations", "3",
    ]  # fmt: skip
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    assert main([*words, "--run-dir", str(unbroken)]) == 0
    process = shell(
        *words, "--run-dir", broken, folder=tmp_path / "shell", before=fall_in_the_second_generation
    )
    assert process.code() == -signal.SIGKILL, process.errors
    assert not (broken / "generation-2" / "result.json").exists()
    done = broken / "generation-1" / "result.json"
    when = done.stat().st_mtime_ns
    iterations, iterate = itertools.count(), Run.iterate

    def counted(run: Run) -> dict[str, float]:
        next(iterations)
        return iterate(run)

    monkeypatch.setattr(Run, "iterate", counted)
    assert main(["train", "policy-distillation", "--resume", str(broken), "--quiet"]) == 0
    # What was done already was not done again: not the first generation, nor the 10 iterations of
    # 30 that the second's first checkpoint holds.
    assert done.stat().st_mtime_ns == when
    assert next(iterations) == 20 + 30
    for one in (1, 2, 3):
        first, second = (policy_of(chain / f"generation-{one}") for chain in (unbroken, broken))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    first, second = (generation_results(chain) for chain in (unbroken, broken))
    assert [result["tasks"] for result in first] == [result["tasks"] for result in second]


def test_a_chain_that_is_done_resumes_to_the_same_result(tmp_path: Path, teacher: Path) -> None:
    first = chain(tmp_path / "chain", str(teacher)).result
    again = chain(tmp_path / "chain", str(teacher), resume=True).result
    assert first["tasks"] == again["tasks"]


def test_a_chain_resumes_once_at_a_time_and_with_its_own_steps(
    tmp_path: Path, teacher: Path
) -> None:
    folder = tmp_path / "chain"
    chain(folder, str(teacher), generations=1)
    with lock(folder), pytest.raises(rt.InputError, match="chain is in use by the process"):
        chain(folder, str(teacher), generations=1, resume=True)
    with pytest.raises(rt.InputError, match="another total_steps"):
        chain(folder, str(teacher), generations=1, resume=True, total_steps=10_000)
    again = chain(folder, str(teacher), generations=1, resume=True, episodes=3)
    assert again.result["tasks"][TASK]["episodes"] == 3
    assert read_config(folder)["options"]["episodes"] == 3


def test_a_chain_that_was_moved_goes_on(tmp_path: Path, teacher: Path) -> None:
    first = chain(tmp_path / "chain", str(teacher)).result
    moved = (tmp_path / "chain").rename(tmp_path / "moved")
    (moved / "generation-3" / "result.json").unlink()
    assert chain(moved, str(teacher), resume=True).result["tasks"] == first["tasks"]
    # The teacher's weights must be the same.
    path = moved / "generation-3" / "config.json"
    config = json.loads(path.read_text())
    config["teacher"]["sha256"] = "another"
    path.write_text(json.dumps(config))
    with pytest.raises(rt.InputError, match="another sha256"):
        chain(moved, str(teacher), resume=True)


def test_killed_before_the_first_run_it_begins_anew(tmp_path: Path, teacher: Path) -> None:
    chain(tmp_path / "chain", str(teacher))
    only = tmp_path / "only"
    only.mkdir()
    (only / "config.json").write_bytes((tmp_path / "chain" / "config.json").read_bytes())
    words = ["train", "policy-distillation", "--resume", str(only), "--quiet"]
    assert main(words) == 0
    assert len(generation_results(only)) == 3


def test_statistics_are_the_first_teachers_alone(tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([lambda: gymnasium.make("CartPole-v1")]))
    env.reset()
    env.step(np.array([0]))
    stable_baselines3.PPO("MlpPolicy", env, device="cpu").save(tmp_path / "ppo.zip")
    env.save(str(tmp_path / "vec_normalize.pkl"))
    method = PolicyDistillation(
        teacher=str(tmp_path / "ppo.zip"), vecnormalize=tmp_path / "vec_normalize.pkl", **STUDENT
    )
    folder = tmp_path / "chain"
    rt.train(method, suite="CartPole-v1", run_dir=folder, generations=2, **QUICK)
    assert read_config(folder / "generation-1")["method"]["vecnormalize"] is not None
    assert read_config(folder / "generation-2")["method"]["vecnormalize"] is None


def test_a_function_may_teach_the_first(tmp_path: Path) -> None:
    teacher = rt.CallableTeacher(lambda seen, task: rt.PolicyOutput(logits=3 * seen["policy"]))
    run = chain(tmp_path / "chain", teacher, generations=2)
    assert run.agent.teacher.source == str(tmp_path / "chain" / "generation-1")
    assert chain(tmp_path / "chain", teacher, generations=2, resume=True).result["seed"] > 0


def test_what_cannot_be_done_writes_nothing(tmp_path: Path, teacher: Path) -> None:
    folder = tmp_path / "chain"
    distil = PolicyDistillation(teacher=str(teacher), **STUDENT)
    recurrent = dataclasses.replace(distil, student=rt.policies.mlp(gru=4))
    cases = [
        (PPO(**SMALL), {}, "ppo has no teacher"),
        (distil, {"generations": -1}, "generations is -1: it must be at least 0"),
        (distil, {"total_steps": -1}, "total_steps is -1"),
        (distil, {"suite": "CartPole-v1"}, "does not fit the task 'CartPole-v1'"),
        (recurrent, {}, "A recurrent student cannot teach the next generation"),
    ]
    for method, options, sentence in cases:
        with pytest.raises(rt.InputError, match=sentence):
            rt.train(
                method, run_dir=folder, **{"suite": TASK, "generations": 2, **QUICK, **options}
            )
        assert not folder.exists()
    # The last generation teaches nobody.
    rt.train(recurrent, suite=TASK, run_dir=folder, generations=1, **QUICK)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, teacher: Path) -> None:
    chain(tmp_path / "chain", str(teacher), generations=1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "chain").rglob("*")}
    for generations in (0, 1, 2):
        with pytest.raises(rt.InputError, match="already exists"):
            chain(tmp_path / "chain", str(teacher), generations=generations)
    for generations, asked in ((0, "a single run"), (2, "a chain with --generations 2")):
        with pytest.raises(rt.InputError, match=f"a chain with --generations 1, not {asked}:"):
            chain(tmp_path / "chain", str(teacher), generations=generations, resume=True)
    with pytest.raises(rt.InputError, match="a single run, not a chain with --generations 2:"):
        chain(tmp_path / "chain" / "generation-1", str(teacher), generations=2, resume=True)
    with pytest.raises(rt.InputError, match="another learning_rate"):
        method = PolicyDistillation(teacher=str(teacher), learning_rate=1.0, **STUDENT)
        rt.train(
            method, suite=TASK, run_dir=tmp_path / "chain", generations=1, resume=True, **QUICK
        )
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "chain").rglob("*")} == before


def test_from_the_shell(
    tmp_path: Path,
    teacher: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = str(tmp_path / "chain")
    words = ["train", "policy-distillation", "--task", TASK, "--teacher", str(teacher), *WORDS]
    quick = [*QUICK_WORDS, "--steps", "160"]
    assert main([*words, *quick, "--generations", "2", "--run-dir", folder]) == 0
    said = capsys.readouterr().out
    assert "generation" in said and said.count("tests/Echo-v0") == 2
    # A chain is its newest generation, to whoever evaluates it or learns from it.
    assert newest_generation(Path(folder)) == Path(folder) / "generation-2"
    shown = []
    for source in (folder, f"{folder}/generation-2"):
        assert main(["evaluate", source, "--episodes", "5", "--json"]) == 0
        shown.append(json.loads(capsys.readouterr().out)["tasks"])
    assert shown[0] == shown[1]
    assert rt.load_teacher(folder).source == f"{folder}/generation-2"
    exported: list[Path] = []

    def exported_to(run_dir: Path, *others: object, **options: object) -> None:
        exported.append(run_dir)
        raise rt.InputError("That is enough.")

    monkeypatch.setattr(export_command, "export_run", exported_to)
    assert main(["export", folder, "--out", "x"]) == 2 and "enough" in capsys.readouterr().err
    assert exported == [Path(folder) / "generation-2"]
    assert main(["train", "ppo", "--task", TASK, "--generations", "2", "--run-dir", "x"]) == 2
    assert "ppo has no teacher" in capsys.readouterr().err
    assert not Path("x").exists()
    assert main(["train", "policy-distillation", "--resume", folder, "--generations", "3"]) == 2
    assert "--generations 2, not a chain with --generations 3" in capsys.readouterr().err
