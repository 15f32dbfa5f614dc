"""The experiment of transferable layers: its runs and its page, and that a short run starts so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from rltransfer.errors import InputError
from rltransfer.experiments.common.trials import train_trial
from rltransfer.experiments.transferability.experiment import (
    DEPTHS,
    LAYERS,
    NAMES,
    Transferability,
)
from rltransfer.learning.layers import layer_of, num_layers
from rltransfer.metrics.curves import Curve


def test_runs() -> None:
    experiment = Transferability(seeds=2)
    trials = {trial.name: trial for trial in experiment.trials()}
    assert len(experiment.bases()) == 6 and len(trials) == 2 * 6 * 4
    frozen, trained = trials["near-3-frozen-1"].options, trials["near-3-trained-1"].options
    assert frozen["init_layers"] == trained["init_layers"] == 3
    assert (frozen["freeze"], trained["freeze"]) == ("layers:3", "")
    assert frozen["init_from"] == "runs/transferability/base-near-1"
    bases = {trial.name: trial.suite.tasks[0] for trial in experiment.bases()}
    assert bases["base-near-0"].id == bases["base-own-0"].id != bases["base-far-0"].id
    assert bases["base-near-0"].kwargs and not bases["base-own-0"].kwargs
    assert {trial.suite.tasks[0] for trial in trials.values()} == {bases["base-own-0"]}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"game": "Pong"}, "no game 'Pong'"),
        ({"far": "SpaceInvaders"}, "both 'SpaceInvaders'"),
    ],
)
def test_wrong_games(options: dict[str, str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Transferability(**options)


def test_a_run_starts_from_the_lower_layers_and_keeps_the_frozen_ones(tmp_path: Path) -> None:
    experiment = Transferability(seeds=1, steps=2048, out=tmp_path)
    base, far = (
        train_trial(trial, tmp_path).agent.policy
        for trial in experiment.bases()
        if trial.name in ("base-own-0", "base-far-0")
    )
    assert num_layers(base) == num_layers(far) == LAYERS
    trial = next(one for one in experiment.trials() if one.name == "own-2-frozen-0")
    short = dataclasses.replace(trial, options={**trial.options, "total_steps": 2048})
    learned = train_trial(short, tmp_path).agent.policy
    for name, tensor in learned.state_dict().items():
        is_kept = torch.equal(tensor, base.state_dict()[name])
        assert is_kept == (layer_of(name, base) <= 2), name


def curves(height: float) -> list[Curve]:
    steps = np.array([1e5, 2e5, 3e5])
    return [Curve(steps, np.full(3, height + seed)) for seed in (0.0, 0.2)]


def test_the_page_by_hand() -> None:
    found = {
        (treatment, depth): curves(10 * index + depth)
        for index, treatment in enumerate(NAMES)
        for depth in DEPTHS
    }
    page = Transferability(seeds=2).page(curves(20.0), found, {})
    assert "ends at **20.1 " in page.text
    assert page.data["final_return"]["AnB, near"]["3"]["mean"] == pytest.approx(23.1)
    assert page.data["area_ratio"]["AnB+, far"]["4"]["mean"] == pytest.approx(54.1 / 20.1)
    assert "| AnB+, near | 31.1 " in page.text
    assert set(page.pictures) == {"picture.png"}
