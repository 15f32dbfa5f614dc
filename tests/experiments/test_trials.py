"""Trials: run once, resumed after a stop, skipped when finished."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from in_turn import leave_a_mark, one_by_one, wait_in_parallel
from processes import Forked

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.experiments.common.intervals import interval_json
from rltransfer.experiments.common.page import Page, format_hardware
from rltransfer.experiments.common.pictures import bar_picture
from rltransfer.experiments.common.trials import (
    Trial,
    finished_results,
    run_parallel,
    run_trial,
    run_trials,
)
from rltransfer.experiments.compression.experiment import Compression
from rltransfer.metrics.intervals import geometric_mean_interval, mean_interval
from rltransfer.policies.network import Network
from rltransfer.runs.config import RunOptions, settings
from rltransfer.runs.run import Run
from rltransfer.tasks.task import Suite

SHORT = {"total_steps": 2_000, "episodes": 2, "evaluate_episodes": 0, "device": "cpu"}


EMPTY: dict[str, Any] = {"tasks": {}}
"""A result without content."""


def trial(seed: int, **options: Any) -> Trial:
    method = rt.agents.PPO(network=Network(hidden=(8,)), num_envs=8, rollout_length=16)
    return Trial(
        name=f"ppo-{seed}", method=method, suite="CartPole-v1",
        options={**SHORT, "seed": seed, **options},
    )  # fmt: skip


def test_each_trial_is_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    trials = [trial(0), trial(1)]
    first = run_trials(trials, tmp_path, jobs=1, report=lines.append)
    assert list(first) == ["ppo-0", "ppo-1"]
    assert lines[0] == "trials left to run: 2, 1 at a time"
    assert len(lines) == 3 and lines[2].startswith("2/2 ppo-")
    lines.clear()
    # A stored result is used as it is.
    path = tmp_path / "ppo-0" / "result.json"
    path.write_text(json.dumps({**first["ppo-0"], "marked": True}))
    monkeypatch.setattr("rltransfer.experiments.common.trials.run_parallel", one_by_one)
    again = run_trials([*trials, trial(2)], tmp_path, jobs=1, report=lines.append)
    assert again["ppo-0"]["marked"] and again["ppo-1"] == first["ppo-1"]
    assert lines[:2] == [
        "trials already finished: 2 of 3", "trials left to run: 1, 1 at a time",
    ]  # fmt: skip
    assert lines[2].startswith("3/3 ppo-2")
    lines.clear()
    run_trials(trials, tmp_path, report=lines.append)
    assert lines == ["trials already finished: 2 of 2"]


def stored(trial: Trial, folder: Path, **changes: Any) -> Path:
    """Writes the folder of a finished trial and returns its configuration file."""
    options = RunOptions(**{**trial.options, **changes})
    run_dir = folder / trial.name
    run_dir.mkdir(parents=True)
    config = settings("ppo", trial.method, Suite.of("CartPole-v1"), options)
    (run_dir / "config.json").write_text(json.dumps({**config, "teacher": None}))
    (run_dir / "result.json").write_text(json.dumps(EMPTY))
    return run_dir / "config.json"


def test_a_result_of_other_settings_is_refused(tmp_path: Path) -> None:
    stored(trial(0), tmp_path)
    assert finished_results([trial(0)], tmp_path) == {"ppo-0": EMPTY}
    with pytest.raises(
        InputError, match=r"ppo-0 contains a run with another total_steps \(2000, not 9\):"
    ):
        run_trials([trial(1), trial(0, total_steps=9)], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ppo-0"]
    for other, sentence in (
        (
            replace(trial(0), suite="Acrobot-v1"),
            r'another suite name \("CartPole-v1", not "Acrobot-v1"\)',
        ),
        (replace(trial(0), method=rt.agents.PQN()), r'another agent \("ppo", not "pqn"\)'),
        (
            replace(trial(0), method=replace(trial(0).method, network=Network(hidden=(9,)))),
            r"another hidden \(8, not 9\)",
        ),
    ):
        with pytest.raises(InputError, match=sentence):
            finished_results([other], tmp_path)
    # So is an unfinished run, before anything else runs.
    (tmp_path / "ppo-0" / "result.json").unlink()
    with pytest.raises(InputError, match="or another --out"):
        run_trials([trial(1), trial(0, total_steps=9)], tmp_path)


def test_a_result_of_another_machine_or_version_counts(tmp_path: Path) -> None:
    path = stored(trial(0), tmp_path, device="cuda", threads=7)
    assert finished_results([trial(0)], tmp_path)
    # A version without these options.
    config = json.loads(path.read_text())
    del config["method"]["precision"], config["method"]["network"]["layer_norm"]
    path.write_text(json.dumps(config))
    assert finished_results([trial(0)], tmp_path)


def test_a_chain_of_another_length_is_refused(tmp_path: Path) -> None:
    path = stored(trial(0), tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "generations": 2}))
    assert finished_results([trial(0, generations=2)], tmp_path)
    with pytest.raises(InputError, match=r"another generations \(2, not 5\)"):
        finished_results([trial(0, generations=5)], tmp_path)


def distilled(**changes: Any) -> Trial:
    """A trial that learns from the zoo's teacher of Breakout."""
    method = rt.agents.PolicyDistillation(teacher="zoo", student=Network(encoder="grid"))
    return replace(trial(0), method=method, suite="rltransfer/MinAtar-Breakout-v0", **changes)


def learned(folder: Path, config: dict[str, Any]) -> None:
    """Writes the configuration and an empty result of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "result.json").write_text(json.dumps(EMPTY))


def test_a_result_of_another_teacher_is_refused(tmp_path: Path) -> None:
    one = distilled()
    suite = Suite.of(str(one.suite))
    config = settings("policy-distillation", one.method, suite, RunOptions(**one.options))
    described = rt.load_teacher("zoo", suite=suite).describe()
    retrained = {**described, "sha256": "0" * 64}
    learned(tmp_path / one.name, {**config, "teacher": described})
    assert finished_results([one], tmp_path) == {one.name: EMPTY}
    learned(tmp_path / one.name, {**config, "teacher": retrained})
    with pytest.raises(InputError, match="ppo-0 was trained when zoo had other weights"):
        finished_results([one], tmp_path)
    # The first run of a chain contains its teacher.
    chain = distilled(name="chain", options={**one.options, "generations": 2})
    learned(tmp_path / "chain", {**config, "generations": 2})
    learned(tmp_path / "chain" / "generation-1", {**config, "teacher": described})
    assert finished_results([chain], tmp_path) == {"chain": EMPTY}
    learned(tmp_path / "chain" / "generation-1", {**config, "teacher": retrained})
    with pytest.raises(InputError, match="chain was trained when zoo had other weights"):
        finished_results([chain], tmp_path)


def test_nothing_starts_after_an_error(tmp_path: Path) -> None:
    calls = {str(number): (tmp_path / str(number), number == 1) for number in range(6)}
    done = []
    with pytest.raises(RuntimeError, match="on request"):
        for name, _ in run_parallel(leave_a_mark, calls, jobs=1):
            done.append(name)
    assert done == ["0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_results_have_the_names_of_their_calls(tmp_path: Path) -> None:
    calls = {str(number): (tmp_path / str(number), False) for number in range(5)}
    found = dict(run_parallel(leave_a_mark, calls, jobs=2))
    assert found == {name: f"made {name}" for name in calls}


def test_trials_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    path = tmp_path / "number"
    experiment = Forked(wait_in_parallel, path, folder=tmp_path / "output")
    experiment.wait_for(lambda: path.exists() and path.read_text())
    experiment.send(signal.SIGKILL)
    assert experiment.code() == -signal.SIGKILL
    until = time.monotonic() + 60
    while Path(f"/proc/{path.read_text()}").exists():
        assert time.monotonic() < until
        time.sleep(0.1)
    assert (tmp_path / "checkpoint").exists()


def test_a_stopped_trial_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_trial(trial(0), tmp_path / "whole")
    iterate, count = Run.iterate, iter(range(100))

    def stopped(self: Run) -> dict[str, float]:
        if next(count) == 8:
            raise KeyboardInterrupt
        return iterate(self)

    monkeypatch.setattr(Run, "iterate", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_trial(trial(0), tmp_path / "parts")
    monkeypatch.setattr(Run, "iterate", iterate)
    parts = run_trial(trial(0), tmp_path / "parts")
    assert parts["tasks"] == whole["tasks"]


def test_a_finished_trial_keeps_its_policy_and_no_replay_buffer(tmp_path: Path) -> None:
    method = rt.agents.PolicyDistillation(
        teacher=rt.CallableTeacher(lambda o, t: rt.PolicyOutput(logits=torch.zeros(len(t), 2))),
        student=Network(hidden=(8,)), num_envs=8, rollout_length=16,
    )  # fmt: skip
    done = Trial(name="one", method=method, suite="CartPole-v1", options=SHORT)
    run_trial(done, tmp_path)
    weights = {path.name for path in (tmp_path / "one").rglob("*.safetensors")}
    assert weights == {"policy.safetensors"}
    assert rt.load_teacher(tmp_path / "one").num_parameters > 0


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    for one in (mean_interval([0.5]), geometric_mean_interval({"a": [0.5]})):
        assert (one.format(2), one.format_percent()) == ("0.50 (one seed)", "50 (one seed)")
        assert interval_json(one) == {"mean": 0.5, "low": None, "high": None, "seeds": 1}
        pictures = {"picture.png": bar_picture(["a"], {"b": [one]})}
        Page(text="", data={}, pictures=pictures).write(tmp_path)
    assert (tmp_path / "picture.png").exists()


def test_a_page_ends_with_its_cost_and_its_command() -> None:
    machine = {"device": "a CPU", "cores": 2, "python": "3.11.7", "torch": "2.13.0+cpu"}
    results = [
        {"wall_seconds": 90.0, "hardware": machine},
        {"wall_seconds": 30.0, "hardware": {**machine, "device": "a GPU"}},
        {"wall_seconds": 60.0, "hardware": machine},
    ]
    same = "2 cores, Python 3.11.7, torch 2.13.0"
    assert format_hardware(results) == f"a CPU, {same}; a GPU, {same}"
    # A run of an earlier version does not contain its machine.
    assert "torch" in format_hardware([{"wall_seconds": 1.0}])
    experiment = Compression(sizes=("7 %",), seeds=3, out=Path("elsewhere"), jobs=2)
    footer = experiment.footer(results)
    assert footer.startswith("3 runs, 3 minutes of training; one thread per run; a CPU, 2 cores")
    assert footer.endswith("\n    rltransfer experiment run compression --seeds 3 --sizes '7 %'")


@pytest.mark.usefixtures("in_this_process")
def test_compression_writes_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = (
        "experiment run compression --games Asterix --losses KL --seeds 2 --steps 4096 "
        "--episodes 2 --epochs 1.5 --precision bfloat16"
    )
    assert main([*words.split(), "--out", "runs"]) == 0
    # Next to the runs, as no other folder was given.
    page = tmp_path / "runs"
    data = json.loads((page / "results.json").read_text())
    assert list(data["table"]["KL"]) == ["25 %", "7 %", "4 %"]
    for size in data["table"]["KL"]:
        trial = data["trials"][f"Asterix-KL-{size.split()[0]}-1"]
        fraction = trial["student_parameters"] / trial["teacher_parameters"]
        # The name contains the fraction in per cent.
        assert round(100 * fraction) == int(size.split()[0])
    # The teacher is evaluated once per seed, with that seed's students.
    returns = data["returns"]["Asterix-1"]
    assert list(returns) == ["teacher", "Asterix-KL-25-1", "Asterix-KL-7-1", "Asterix-KL-4-1"]
    assert returns["teacher"] > 10 > returns["Asterix-KL-4-1"]
    assert 0 < data["table"]["KL"]["4 %"]["mean"] < 10 / returns["teacher"]
    text = (page / "RESULTS.md").read_text()
    assert "| KL |" in text and "1.5 times from each step on" in text
    assert "--epochs 1.5" in text and "--precision bfloat16" in text
    config = json.loads((page / "Asterix-KL-4-1" / "config.json").read_text())
    assert (config["method"]["epochs"], config["method"]["precision"]) == (1.5, "bfloat16")
    assert (page / "picture.png").read_bytes().startswith(b"\x89PNG")
