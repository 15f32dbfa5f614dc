"""The best policy of a run is kept: which one, for how long, and how it is used."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy import SHORT_TASK, TASK

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.files.checkpoint import best_folder, checkpoints
from rltransfer.rollouts.evaluation import Evaluation
from rltransfer.runs import evaluator as module
from rltransfer.runs import onnx_export
from rltransfer.runs.best import EVALUATION, Best, load_best, score
from rltransfer.runs.config import RunOptions
from rltransfer.runs.run import Run

METHOD = rt.agents.PPO(num_envs=4, rollout_length=10, batch_size=40, epochs=1)
QUICK: dict[str, Any] = {"evaluate_every": 40, "checkpoint_every": 40, "episodes": 1, "threads": 1}


def begun(run_dir: Path, resume: bool = False, total_steps: int = 200, **options: Any) -> Run:
    """A run of 40 steps an iteration that has begun, with an evaluation after each."""
    options = {**QUICK, "total_steps": total_steps, **options}
    run = Run("ppo", METHOD, rt.Suite.of(TASK), RunOptions(**options), run_dir, quiet=True)
    run.begin(resume)
    return run


@pytest.fixture
def returns(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the mean returns of a run's evaluations, one after the other."""

    def set_returns(*means: float) -> None:
        left: Iterator[float] = iter(means)

        def evaluated(policy: Any, suite: rt.Suite, *rest: Any, **how: Any) -> Any:
            mean = next(left)
            return {name: Evaluation((mean,), (1,)) for name in suite.names()}

        monkeypatch.setattr(module, "evaluate_policy", evaluated)
        monkeypatch.setattr(module.Evaluator, "evaluate_finally", lambda _: {})

    return set_returns


def best_step(run_dir: Path) -> int:
    stored = json.loads((best_folder(run_dir) / EVALUATION).read_text())
    return int(stored["env_steps"])


def stop_at(run: Run, number: int) -> None:
    """Ends a run in its iteration of this number, counted from 1, as a crash does."""
    numbers, iterate = itertools.count(1), run.iterate

    def failing() -> dict[str, float]:
        if next(numbers) == number:
            raise ZeroDivisionError
        return iterate()

    run.iterate = failing  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        run.execute()


def test_the_score_is_the_mean_return_unless_a_good_teacher_is_known() -> None:
    found, teacher, random = {"a": 6.0, "b": 200.0}, {"a": 10.0, "b": 300.0}, {"a": 2.0, "b": 100.0}
    assert score(found, {}, {}) == 103.0
    # (6 - 2) / (10 - 2) = 0.5 and (200 - 100) / (300 - 100) = 0.5
    assert score(found, teacher, random) == 0.5
    # A task counts as much as the other, although its rewards are smaller.
    assert score({"a": 9.0, "b": 190.0}, teacher, random) > 0.5
    # With a teacher worse than random play, the sign of the difference would be wrong.
    assert score(found, {**teacher, "b": 50.0}, random) == 103.0
    assert score({"a": 7.0}, {"a": 2.0}, {"a": 2.0}) == 7.0


def test_the_first_policy_with_the_highest_score_is_kept(
    tmp_path: Path, returns: Callable[..., None]
) -> None:
    returns(1.0, 3.0, 2.0, 3.0, -1.0)
    run = begun(tmp_path / "run")
    weights: list[dict[str, torch.Tensor]] = []
    iterate = run.iterate

    def recorded() -> dict[str, float]:
        metrics = iterate()
        weights.append({name: one.clone() for name, one in run.agent.policy.state_dict().items()})
        return metrics

    run.iterate = recorded  # type: ignore[method-assign]
    result = run.execute()
    assert result["best"] == {"env_steps": 80, "returns": {TASK: 3.0}}
    assert load_best(run.run_dir) == Best(80, {TASK: 3.0})
    kept = load_file(best_folder(run.run_dir) / "policy.safetensors")
    assert all(torch.equal(kept[name], weights[1][name]) for name in kept)
    # The checkpoint of that step is gone, and this one is not one to resume from.
    assert [path.name[-3:] for path in checkpoints(run.run_dir)] == ["160", "200"]


def test_without_evaluations_there_is_none(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", total_steps=40, evaluate_episodes=0)
    assert run.execute()["best"] is None
    with pytest.raises(rt.InputError) as refused:
        rt.evaluate(run.run_dir, checkpoint="best")
    assert str(refused.value) == (
        f"There is no checkpoint 'best' in {run.run_dir}, as no evaluation during training has "
        "kept one: there are 40 (final)."
    )


def test_a_score_that_is_not_finite_is_never_the_best(
    tmp_path: Path, returns: Callable[..., None]
) -> None:
    returns(float("nan"), -5.0, float("inf"))
    assert begun(tmp_path / "run", total_steps=120).execute()["best"]["env_steps"] == 80


def test_the_best_is_known_after_a_resume(tmp_path: Path, returns: Callable[..., None]) -> None:
    returns(1.0, 3.0, 2.0, 2.5, 2.0)
    # It stops at step 80, after its best evaluation, with a checkpoint of step 40 at most.
    stop_at(begun(tmp_path / "run", checkpoint_every=1_000), 3)
    assert not checkpoints(tmp_path / "run") and best_step(tmp_path / "run") == 80
    run = begun(tmp_path / "run", resume=True, total_steps=120)
    assert run.evaluator.best == Best(80, {TASK: 3.0})
    assert run.execute()["best"]["env_steps"] == 80
    # A finished run that is extended knows it too.
    returns(2.9, 3.5)
    assert begun(tmp_path / "run", resume=True).execute()["best"]["env_steps"] == 200


def test_killed_and_resumed_keeps_the_same_best(tmp_path: Path) -> None:
    begun(tmp_path / "whole", total_steps=120).execute()
    stop_at(begun(tmp_path / "killed", total_steps=120, checkpoint_every=80), 3)
    begun(tmp_path / "killed", total_steps=120, resume=True).execute()
    whole, killed = (best_folder(tmp_path / name) for name in ("whole", "killed"))
    for path in whole.iterdir():
        assert path.read_bytes() == (killed / path.name).read_bytes(), path.name


def test_a_damaged_best_is_said_and_replaced(
    tmp_path: Path, returns: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    returns(3.0, 1.0, 0.5)
    stop_at(begun(tmp_path / "run"), 2)
    folder = best_folder(tmp_path / "run")
    content = bytearray((folder / "policy.safetensors").read_bytes())
    content[-2] ^= 1
    (folder / "policy.safetensors").write_bytes(content)
    with pytest.raises(rt.InputError, match=r"best is not a complete checkpoint: one of its files"):
        rt.load_teacher(tmp_path / "run", checkpoint="best")
    capsys.readouterr()
    assert load_best(tmp_path / "run") is None
    assert capsys.readouterr().err == f"{folder} is damaged: the next evaluation replaces it.\n"
    begun(tmp_path / "run", resume=True, total_steps=120).execute()
    assert best_step(tmp_path / "run") == 80


@pytest.mark.parametrize(
    "content", ["", "[]", '{"env_steps": 4}', '{"env_steps": 1, "returns": {"a": NaN}}', "[" * 9999]
)
def test_a_damaged_evaluation_is_no_evaluation(
    content: str, tmp_path: Path, returns: Callable[..., None]
) -> None:
    returns(3.0)
    begun(tmp_path / "run", total_steps=40).execute()
    folder = best_folder(tmp_path / "run")
    (folder / "sha256.json").unlink()  # as if somebody had written all of it
    (folder / EVALUATION).write_text(content)
    assert load_best(tmp_path / "run", quiet=True) is None


def test_an_evaluation_without_a_hash_is_no_evaluation(
    tmp_path: Path, returns: Callable[..., None]
) -> None:
    returns(3.0)
    begun(tmp_path / "run", total_steps=40).execute()
    hashes = best_folder(tmp_path / "run") / "sha256.json"
    stored = json.loads(hashes.read_text())
    del stored[EVALUATION]
    hashes.write_text(json.dumps(stored))
    assert load_best(tmp_path / "run", quiet=True) is None
    # Earlier versions stored no hashes at all.
    hashes.unlink()
    assert load_best(tmp_path / "run") == Best(40, {TASK: 3.0})


def test_a_kill_between_two_renames_loses_none(
    tmp_path: Path, returns: Callable[..., None]
) -> None:
    returns(3.0, 1.0)
    stop_at(begun(tmp_path / "run"), 2)
    folder = best_folder(tmp_path / "run")
    folder.rename(folder.with_name(".best.old"))
    (folder.parent / ".best.partial").mkdir()
    assert rt.load_teacher(tmp_path / "run", checkpoint="best").sha256
    run = begun(tmp_path / "run", resume=True, total_steps=80)
    assert run.execute()["best"]["env_steps"] == 40
    returns(9.0)
    begun(tmp_path / "run", resume=True, total_steps=120).execute()
    assert [path.name for path in folder.parent.glob("*best*")] == ["best"]
    assert best_step(tmp_path / "run") == 120


def test_evaluations_of_a_student_count_relative_to_its_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean return is higher at first, the mean relative to the teacher at the end."""
    begun(tmp_path / "teacher", total_steps=40).execute()
    # Relative to 10 and 100: (0.5 + 0.6) / 2 = 0.55 and (0.9 + 0.55) / 2 = 0.725
    played = iter([{TASK: 5.0, SHORT_TASK: 60.0}, {TASK: 9.0, SHORT_TASK: 55.0}])

    def evaluation(means: dict[str, float]) -> dict[str, Evaluation]:
        return {name: Evaluation((mean,), (1,)) for name, mean in means.items()}

    teacher, random = ({TASK: a, SHORT_TASK: b} for a, b in ((10.0, 100.0), (0.0, 0.0)))
    checked = evaluation(teacher), evaluation(random), []
    monkeypatch.setattr(module, "teacher_check", lambda *_, **how: checked)
    monkeypatch.setattr(module, "evaluate_policy", lambda *_, **how: evaluation(next(played)))
    method = rt.agents.PolicyDistillation(
        teacher=rt.PerTask(dict.fromkeys(teacher, rt.load_teacher(tmp_path / "teacher"))),
        num_envs=2, rollout_length=10, batch_size=40,
    )  # fmt: skip
    run = rt.train(
        method, suite=[TASK, SHORT_TASK], run_dir=tmp_path / "run", total_steps=80, quiet=True,
        **{**QUICK, "episodes": 0},
    )  # fmt: skip
    assert run.result["best"]["env_steps"] == 80


@pytest.fixture
def run_with_best(tmp_path: Path) -> Path:
    """A run whose best policy is not its final one."""
    run = begun(tmp_path / "run", total_steps=120)
    found = iter([9.0, 1.0, 2.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module, "evaluate_policy",
            lambda *_, **how: {TASK: Evaluation((next(found),), (1,))},
        )  # fmt: skip
        patch.setattr(module.Evaluator, "evaluate_finally", lambda _: {})
        run.execute()
    return run.run_dir


def sha256_of(run_dir: Path, name: str) -> str:
    return str(json.loads((run_dir / "checkpoints" / name / "sha256.json").read_text())[
        "policy.safetensors"
    ])  # fmt: skip


def test_a_checkpoint_is_evaluated_by_its_name(
    run_with_best: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"best": "best", "final": "step-000000000120", "80": "step-000000000080"}
    assert len({sha256_of(run_with_best, folder) for folder in names.values()}) == 3
    for name, folder in names.items():
        teacher = rt.load_teacher(run_with_best, checkpoint=name)
        assert teacher.sha256 == sha256_of(run_with_best, folder)
        expected = rt.evaluate(teacher, TASK, 20, deterministic=False)
        assert rt.evaluate(run_with_best, episodes=20, checkpoint=name, deterministic=False) == (
            expected
        )
        command = ["evaluate", str(run_with_best), "--checkpoint", name, "--episodes", "20"]
        assert main([*command, "--json", "--stochastic"]) == 0
        captured = capsys.readouterr()
        found = json.loads(captured.out)
        assert tuple(found["tasks"][TASK]["returns"]) == expected[TASK].returns
        assert found["checkpoint"] == name
        assert (f"run, checkpoint {name}" in captured.err) == (name != "final")
    assert main(["evaluate", "zoo", "--task", TASK, "--checkpoint", "best"]) == 2
    assert "--checkpoint applies to runs, but zoo is not a run" in capsys.readouterr().err


def test_a_checkpoint_is_exported_by_its_name(
    run_with_best: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def metadata(policy: rt.Policy, suite: rt.Suite, sha256: str) -> None:
        raise rt.InputError(sha256)  # the rest of the export takes seconds

    monkeypatch.setattr(onnx_export, "_metadata", metadata)
    export = ["export", str(run_with_best), "--out", str(tmp_path / "x.onnx"), "--checkpoint"]
    assert main([*export, "best"]) == 2
    assert capsys.readouterr().err == f"{sha256_of(run_with_best, 'best')}\n"
    assert main([*export, "60"]) == 2
    assert "no checkpoint '60' in" in capsys.readouterr().err
    with pytest.raises(rt.InputError, match=r"there are best, 80, 120 \(final\)"):
        onnx_export.export_run(run_with_best, tmp_path / "other.onnx", checkpoint="bset")


def test_a_student_learns_from_the_best_and_resumes(
    run_with_best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = f"load_teacher({str(run_with_best)!r}, checkpoint='best')"
    words = ["train", "policy-distillation", "--task", TASK, "--run-dir", str(tmp_path / "student")]
    sizes = "--num-envs 4 --rollout-length 10 --batch-size 40 --total-steps 80 --episodes 1 --quiet"
    words += [*sizes.split(), "--evaluate-episodes", "0", "--teacher", teacher]
    assert main(words) == 0
    config = json.loads((tmp_path / "student" / "config.json").read_text())
    assert config["teacher"]["sha256"] == sha256_of(run_with_best, "best")
    assert config["teacher"]["spec"]["source"] == config["method"]["teacher"] == teacher
    # What result.json says is measured with the final policy.
    assert config["teacher"]["spec"]["recorded_return"] == {}
    resume = ["train", "--resume", str(tmp_path / "student"), "--total-steps", "120", "--quiet"]
    assert main(resume) == 0
    loaded = rt.load_teacher(f"Noisy({teacher}, sigma=0.1)")
    assert str(loaded) == f"Noisy({teacher}, sigma=0.1)" and loaded.loadable
    # In Python, the teacher itself is stored in the same form.
    method = rt.agents.PolicyDistillation(
        teacher=rt.load_teacher(run_with_best, checkpoint="best"), num_envs=2
    )
    run = Run("policy-distillation", method, rt.Suite.of(TASK), RunOptions(), tmp_path / "x", True)
    assert run.config()["method"]["teacher"] == teacher
    run.engine.close()


def test_the_best_of_a_chain_is_that_of_its_newest_generation(tmp_path: Path) -> None:
    begun(tmp_path / "teacher", total_steps=40).execute()
    method = rt.agents.PolicyDistillation(
        teacher=str(tmp_path / "teacher"), num_envs=4, rollout_length=10, batch_size=40
    )
    rt.train(
        method, suite=TASK, run_dir=tmp_path / "chain", total_steps=40, generations=2, quiet=True,
        **QUICK,
    )  # fmt: skip
    teacher = rt.load_teacher(tmp_path / "chain", checkpoint="best")
    assert teacher.sha256 == sha256_of(tmp_path / "chain" / "generation-2", "best")


def test_a_checkpoint_in_the_place_of_its_run_is_named(run_with_best: Path) -> None:
    for name, folder in (("best", "best"), ("80", "step-000000000080")):
        path = run_with_best / "checkpoints" / folder
        for opening in (rt.evaluate, rt.load_teacher):
            with pytest.raises(rt.InputError, match=rf"is a checkpoint of .* --checkpoint {name},"):
                opening(path)
