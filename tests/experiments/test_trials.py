"""Trials: run once, gone on with where they were stopped, skipped when done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rltransfer as rt
from rltransfer.experiments.trials import Trial, run_trial, run_trials
from rltransfer.network import Network
from rltransfer.run import Run

SHORT = {"steps": 2_000, "episodes": 2, "evaluate_episodes": 0, "device": "cpu"}


def trial(seed: int, **options: Any) -> Trial:
    method = rt.agents.PPO(network=Network(hidden=(8,)), num_envs=8, horizon=16)
    return Trial(
        name=f"ppo-{seed}", method=method, suite="CartPole-v1",
        options={**SHORT, "seed": seed, **options},
    )  # fmt: skip


def test_each_trial_is_run_once(tmp_path: Path) -> None:
    said: list[str] = []
    trials = [trial(0), trial(1)]
    first = run_trials(trials, tmp_path, jobs=2, tell=said.append)
    assert list(first) == ["ppo-0", "ppo-1"]
    assert len(said) == 2 and said[1].startswith("2/2 ppo-")
    said.clear()
    # A result that is there is taken as it is, whoever wrote it.
    path = tmp_path / "ppo-0" / "result.json"
    path.write_text(json.dumps({**first["ppo-0"], "marked": True}))
    again = run_trials([*trials, trial(2)], tmp_path, jobs=1, tell=said.append)
    assert again["ppo-0"]["marked"] and again["ppo-1"] == first["ppo-1"]
    assert said[0] == "2 of 3 were done already" and said[1].startswith("3/3 ppo-2")


def test_a_trial_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
