"""The experiments of progressive networks: their runs and pages, and that short ones run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rltransfer.agents import Progressive
from rltransfer.errors import InputError
from rltransfer.experiments.common.trials import check_settings, train_trial
from rltransfer.experiments.progressive_minatar_soup.experiment import (
    PAPER,
    ProgressiveMinAtarSoup,
    ProgressiveSoup,
)
from rltransfer.experiments.progressive_pong_soup.experiment import ProgressivePongSoup
from rltransfer.experiments.progressive_sequence.experiment import METHODS, ProgressiveSequence
from rltransfer.experiments.soups.experiment import Soups
from rltransfer.metrics.curves import Curve
from rltransfer.runs.folder import load_run_policy
from rltransfer.tasks.families import find_suite


@pytest.mark.parametrize("kind", [ProgressiveMinAtarSoup, ProgressivePongSoup])
def test_the_runs_of_a_soup(kind: type[ProgressiveSoup]) -> None:
    experiment = kind(seeds=2)
    trials = {trial.name: trial for trial in experiment.target_trials()}
    sources, targets = len(experiment.sources), len(experiment.targets)
    assert len(experiment.pairs) >= 8
    assert len(trials) == 2 * targets * (3 + 3 * sources)
    assert len(experiment.source_trials()) == 2 * (sources + 1)
    out, target = experiment.out, experiment.targets[0]
    heads, all_layers = (trials[f"{way}-noise-{target}-1"] for way in ("B2", "B3"))
    assert heads.options["init_from"] == all_layers.options["init_from"]
    assert heads.options["init_from"] == str(out / "source-noise-1")
    assert heads.options["freeze"] == "encoder" and "freeze" not in all_layers.options
    columns = {
        name: trials[name].method.columns
        for name in (f"B4-{target}-0", f"2-columns-plain-{target}-0", f"3-columns-{target}-0")
    }
    paths = [str(out / name) for name in ("random-0", "source-plain-0", "chain-0")]
    assert [one for (one,) in columns.values()] == paths
    (chain, _) = experiment.chain_trials()
    assert chain.method.columns == (str(out / "source-plain-0"),)
    assert chain.suite.tasks[0].kwargs == {"observation_transform": "noise"}
    # Every view is one of the suite's.
    suite = find_suite(out.name.removeprefix("progressive-"))
    assert {trial.suite.tasks[0] for trial in trials.values()} <= set(suite.tasks)


def test_one_source_has_no_third_column_and_no_view_is_both() -> None:
    experiment = ProgressiveMinAtarSoup(sources=("plain",), targets=("noise",), seeds=1)
    assert experiment.chain_trials() == [] and len(experiment.target_trials()) == 5
    with pytest.raises(InputError, match="noise is a source and a target"):
        ProgressiveMinAtarSoup(targets=("noise",))
    with pytest.raises(InputError, match="no view 'sepia'"):
        ProgressiveMinAtarSoup(targets=("sepia",))
    with pytest.raises(InputError, match="a single view: a sequence needs"):
        ProgressiveSequence(views=("noise",))


def test_the_random_column_is_random_and_the_others_are_the_sources(tmp_path: Path) -> None:
    experiment = ProgressiveMinAtarSoup(
        sources=("plain",), targets=("shift",), seeds=1, steps=2048, source_steps=2048, out=tmp_path
    )
    for trial in experiment.source_trials():
        train_trial(trial, tmp_path)
    random, source = (
        load_run_policy(tmp_path / name).state_dict() for name in ("random-0", "source-plain-0")
    )
    assert not all(torch.equal(random[name], tensor) for name, tensor in source.items())
    for trial in experiment.target_trials():
        learned = train_trial(trial, tmp_path).agent.policy.state_dict()
        if isinstance(trial.method, Progressive):
            of = random if trial.name.startswith("B4") else source
            assert all(torch.equal(learned[f"earlier.0.{n}"], one) for n, one in of.items())
        elif trial.name.startswith("B2"):
            kept = [n for n, one in source.items() if torch.equal(learned[n], one)]
            assert {n for n in source if n.startswith("encoder.")} == set(kept)


def test_the_page_of_a_soup_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = ProgressiveMinAtarSoup(seeds=2, targets=("shift",))
    steps = np.array([1e5, 2e5])
    heights = dict(zip(PAPER, (10.0, 5.0, 15.0, 8.0, 30.0, 25.0), strict=True))
    curves = {
        (way, source, "shift"): [
            Curve(steps, np.full(2, height + seed + 5 * (source == "noise"))) for seed in (-1, 1)
        ]
        for way, height in heights.items()
        for source in experiment._sources_of(way)
    }
    monkeypatch.setattr(
        ProgressiveMinAtarSoup, "_sensitivities", lambda self: {"B4": [0.5], "2 columns": [0.25]}
    )
    page = experiment.page(curves, {})
    assert page.data["pairs"]["2 columns"] == {
        "plain to shift": pytest.approx(3.0), "noise to shift": pytest.approx(3.5)
    }  # fmt: skip
    assert page.data["transfer"]["2 columns"]["mean"] == pytest.approx(3.25)
    assert page.data["transfer"]["B1"]["mean"] == pytest.approx(1.0)
    # Of one seed each: (8 + 1) / (10 + 1) if the best one counted alone.
    assert page.data["best_of_seeds"]["B4"] == pytest.approx(0.8)
    assert "| 2 columns | 325 " in page.text and "| 0.25 |" in page.text


def test_a_short_sequence(tmp_path: Path) -> None:
    experiment = ProgressiveSequence(
        seeds=1, steps=2048, compress_steps=2048, episodes=2, views=("plain", "shift"),
        out=tmp_path, jobs=1,
    )  # fmt: skip
    small = {"num_envs": 8, "rollout_length": 64}
    trials = [
        dataclasses.replace(trial, method=dataclasses.replace(trial.method, **small))
        for trial in (*experiment.sequence_trials(), *experiment.alone_trials())
    ]
    assert [trial.name for trial in trials[:4]] == [f"{name}-0" for name in reversed(METHODS)]
    results = {}
    for trial in trials:
        train_trial(trial, tmp_path)
        results[trial.name] = json.loads((tmp_path / trial.name / "result.json").read_text())
    check_settings(trials, tmp_path)
    with pytest.raises(InputError, match="another"):
        other = {**trials[0].options, "compress_steps": 4096}
        check_settings([dataclasses.replace(trials[0], options=other)], tmp_path)
    table = experiment.page(results).data["table"]
    assert table["progressive"]["forgetting"]["mean"] == 0
    parameters = experiment.page(results).data["parameters"]
    assert parameters["finetuning"] == parameters["ewc"] == parameters["compress"]
    assert parameters["progressive"] > 2 * parameters["ewc"]


def test_the_pictures(tmp_path: Path) -> None:
    Soups(out=tmp_path).run()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"RESULTS.md", "results.json", "minatar-soup.png", "pong-soup.png"}
