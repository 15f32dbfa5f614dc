"""Benchmarks: order, ratios and bars worked by hand, failing sides, the written files."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rltransfer.cli.main import main
from rltransfer.errors import InputError
from rltransfer.experiments.benchmarks import pairs, script
from rltransfer.experiments.benchmarks.ale_bare import AleBare
from rltransfer.experiments.benchmarks.atari_rollout import AtariRollout
from rltransfer.experiments.benchmarks.bare_progressive import (
    BareProgressive,
    TwoColumns,
    ppo_loss,
    random_batches,
)
from rltransfer.experiments.benchmarks.bare_torch import BareTorch
from rltransfer.experiments.benchmarks.compare import compare
from rltransfer.experiments.benchmarks.curves import Curves, suite_of
from rltransfer.experiments.benchmarks.experiment import Benchmarks
from rltransfer.experiments.benchmarks.linear_env import LinearVectorEnv
from rltransfer.experiments.benchmarks.memory_atari import MemoryAtari
from rltransfer.experiments.benchmarks.mlp_distillation import MlpDistillation
from rltransfer.experiments.benchmarks.pairs import PAIRS, Pair, Side
from rltransfer.experiments.benchmarks.ppo_return import PPOReturn
from rltransfer.experiments.benchmarks.progressive_columns import ProgressiveColumns
from rltransfer.experiments.benchmarks.progressive_learner import (
    ProgressiveLearner,
    fields_of,
    loss,
    two_columns,
)
from rltransfer.experiments.benchmarks.results import write_report
from rltransfer.experiments.benchmarks.script import Timing
from rltransfer.experiments.benchmarks.stable_baselines3_ppo import StableBaselines3PPO

QUICK = Timing(repeats=1, seconds=0.0)

COUNTING = """
import json, pathlib, sys
log = pathlib.Path({log!r})
runs = log.read_text() if log.exists() else ""
log.write_text(runs + {name!r})
print("not the last line")
print(json.dumps({{"speed": {{"median": {values}[runs.count({name!r})]}}, "said": sys.argv[1:]}}))
"""


def side(name: str, code: str, **options: Any) -> Side:
    return Side(name=name, command=("-c", code), key=("speed", "median"), **options)


def counting(log: Path, name: str, values: list[float]) -> Side:
    """A side that logs its runs and prints one value after the other."""
    return side(name, COUNTING.format(log=str(log), name=name, values=values))


def pair(ours: Side, peer: Side | None = None, **options: Any) -> Pair:
    options = {"name": "toy", "what": "a toy", "unit": "steps/s", "bar": 2.0, **options}
    return Pair(ours=ours, peer=peer, **options)


def test_sides_run_in_turn_and_the_median_of_the_ratios_counts(tmp_path: Path) -> None:
    log, lines = tmp_path / "log", []
    ours = counting(log, "A", [10.0, 60.0, 30.0])
    peer = counting(log, "B", [10.0, 20.0, 15.0])
    found = compare(pair(ours, peer), 3, lines.append)
    assert log.read_text() == "ABABAB"
    # 10 / 10, 60 / 20, 30 / 15.
    assert found["ratio"] == {"median": 2.0, "min": 1.0, "max": 3.0, "values": [1.0, 3.0, 2.0]}
    assert found["ours"]["median"] == 30.0
    assert (found["peer"]["median"], found["peer"]["min"], found["peer"]["max"]) == (15, 10, 20)
    assert found["met"]
    assert [line.split(":")[0] for line in lines[:2]] == ["toy 1/3, A", "toy 1/3, B"]
    assert found["ours"]["said"][0] == {"speed": {"median": 10.0}, "said": []}
    assert {"device", "cores", "threads"} <= set(found["hardware"])
    assert found["versions"]["torch"] == torch.__version__


def test_times_are_inverted_and_seeds_are_passed(tmp_path: Path) -> None:
    ours = counting(tmp_path / "log", "A", [2.0, 4.0, 1.0])
    peer = counting(tmp_path / "log", "B", [30.0, 8.0, 10.0])
    found = compare(pair(ours, peer, lower_is_better=True, seeded=True, bar=5.0), 3)
    # The medians are 2 and 10; every run of one side is compared with every run of the other.
    every = [15.0, 4.0, 5.0, 7.5, 2.0, 2.5, 30.0, 8.0, 10.0]
    assert found["ratio"] == {"median": 5.0, "min": 2.0, "max": 30.0, "values": every}
    assert found["met"]
    assert [one["said"] for one in found["peer"]["said"]] == [["--seed", s] for s in "012"]
    assert found["ours"]["command"].endswith("--seed REPETITION")


def test_each_side_runs_with_its_better_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    ours = counting(tmp_path / "log", "A", [5.0, 7.0, 6.0])
    peer = counting(tmp_path / "log", "B", [4.0, 2.0, 3.0])
    found = compare(pair(ours, peer, tries_threads=True), 1)
    assert (tmp_path / "log").read_text() == "AABBAB"
    # With 1 and with 3 threads: 5 and 7 steps/s of ours, 4 and 2 of the peer's.
    assert found["ours"]["said"][0]["said"] == ["--threads", "3"]
    assert found["peer"]["said"][0]["said"] == ["--threads", "1"]
    assert found["ratio"]["values"] == [2.0]
    times = pair(counting(tmp_path / "other", "C", [5.0, 7.0, 1.0]), tries_threads=True)
    found = compare(dataclasses.replace(times, lower_is_better=True), 1)
    assert found["ours"]["command"].endswith("--threads 1")


@pytest.mark.parametrize(
    ("at_most", "value", "met"),
    [(False, 1.9, False), (False, 2.0, True), (True, 2.0, True), (True, 2.1, False)],
)
def test_a_bar_is_a_minimum_or_a_maximum(at_most: bool, value: float, met: bool) -> None:
    ours = side("A", f'print(\'{{"speed": {{"median": {value}}}}}\')')
    found = compare(pair(ours, at_most=at_most), 1)
    assert found["met"] is met
    assert found["peer"] is None
    assert found["ratio"]["median"] == value


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import sys; sys.exit('first\\nthe last line')", "'B' of the pair 'toy' failed: the last"),
        ("import sys; sys.exit(3)", "'B' of the pair 'toy' failed: it printed nothing"),
        ("print('no JSON')", "must end with a line of JSON, but it ends with 'no JSON'"),
        ("print('{}')", "'B' of the pair 'toy' does not output 'speed.median'"),
    ],
)
def test_a_side_that_fails_is_named(code: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        compare(pair(counting(tmp_path / "log", "A", [1.0]), side("B", code)), 1)


def test_a_missing_package_is_reported_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = counting(tmp_path / "log", "A", [1.0])
    there = pair(ours, name="there")
    lacking = pair(ours, side("B", "", packages=("no-such-package",)), name="lacking")
    monkeypatch.setattr(pairs, "PAIRS", {"there": there, "lacking": lacking})
    with pytest.raises(InputError) as error:
        Benchmarks(out=tmp_path / "results").run()
    assert str(error.value) == (
        "The pair 'lacking' needs the package no-such-package: pip install 'rltransfer[benchmark]'."
    )
    assert list(tmp_path.iterdir()) == []


def test_wrong_options(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no pair 'nonsense': there are minatar-envs-"):
        Benchmarks(pairs=("nonsense",)).run()
    with pytest.raises(InputError, match="repeats is 0"):
        Benchmarks(repeats=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Benchmarks(pairs=("memory-atari",), out=tmp_path / "file").run()


def test_the_experiment_writes_numbers_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    toy = pair(counting(log, "A", [4e6, 6e6]), counting(log, "B", [2e6, 2e6]))
    monkeypatch.setattr(pairs, "PAIRS", {"toy": toy})
    out = tmp_path / "bench" / "numbers"
    words = ["--pairs", "toy", "--repeats", "2", "--out", str(out)]
    assert main(["experiment", "run", "benchmarks", *words]) == 0
    out_text = capsys.readouterr().out
    assert "toy 2/2, B: 2 M steps/s" in out_text
    assert "2.50 (2.00 to 3.00)" in out_text
    assert json.loads((out / "toy.json").read_text())["ours"]["values"] == [4e6, 6e6]
    report = (tmp_path / "bench" / "RESULTS.md").read_text()
    assert "`numbers/`" in report
    row = "| a toy | B | at least 2 | 2.50 (2.00 to 3.00) | yes | 5 M steps/s (4 M to 6 M) | 2 M"
    assert row in report


def stored(folder: Path, name: str, ratio: float, **changes: Any) -> None:
    """Writes a file in the experiment's format."""
    numbers = {"median": 3e6, "min": 1e6, "max": 4e6, "values": [], "said": [], "command": "c"}
    found = {
        "pair": name,
        "what": name.upper(),
        "unit": "steps/s",
        "repeats": 5,
        "bar": 3.0,
        "at_most": False,
        "met": ratio >= 3,
        "ratio": {"median": ratio, "min": 1.5, "max": 40.0, "values": []},
        "ours": {"name": "rltransfer", **numbers},
        "peer": {"name": "pgx", **numbers},
        "date": "2026-11-21T10:00:00+00:00",
        "hardware": {"device": "a CPU", "cores": 2, "threads": 2},
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        **changes,
    }
    (folder / f"{name}.json").write_text(json.dumps(found))


def test_the_report_covers_every_stored_file(tmp_path: Path) -> None:
    folder, path = tmp_path / "results", tmp_path / "RESULTS.md"
    folder.mkdir()
    write_report(folder, path)
    assert "## Pairs" not in path.read_text()

    games = [name for name in PAIRS if name.startswith("minatar-envs-")]
    assert len(games) == 5
    # Their product is 100,000, whose fifth root is 10.
    for name, ratio in zip(games[:4], (2.0, 5.0, 10.0, 20.0), strict=True):
        stored(folder, name, ratio)
    stored(folder, "teachers-five", 1.1, peer=None, at_most=True, met=True, bar=1.15)
    write_report(folder, path)
    assert "geometric mean" not in path.read_text()
    stored(
        folder, games[4], 50.0, versions={"torch": "2.14.0"}, date="2026-11-23T10:00:00+00:00",
        hardware={"device": "another CPU", "cores": 8, "threads": 4},
    )  # fmt: skip
    (tmp_path / "NOTES.md").write_text("Asterix is slow.\n")
    write_report(folder, path)
    text = path.read_text()
    assert f"| {games[0].upper()} | pgx | at least 3 | 2.00 (1.50 to 40.00) | NO |" in text
    assert "| TEACHERS-FIVE | itself | at most 1.15 | 1.10 (1.50 to 40.00) | yes |" in text
    assert "| geometric mean of MinAtar's 5 games | pgx | at least 10 | 10.00 | yes |" in text
    assert "`rltransfer experiment run benchmarks --pairs teachers-five --repeats " in text
    assert "- another CPU, 8 cores, at most 4 torch threads" in text
    assert "2026-11-21 to 2026-11-23" in text
    assert "torch 2.13.0 and 2.14.0" in text
    assert text.endswith("## What fell short, and why\n\nAsterix is slow.\n")
    # In the order of the pairs, not of the files.
    assert text.index(games[4].upper()) < text.index("TEACHERS-FIVE")


def test_curves_over_environments_and_tasks(tmp_path: Path) -> None:
    eight = suite_of(8)
    assert len(set(eight.names())) == 8
    assert eight.tasks[5].kwargs == {"sticky_action_prob": 0.0}
    quick = Curves().measuring.__class__(repeats=1, seconds=0.0, device="cpu")
    small = Curves(measuring=quick, num_envs=(4, 8), num_tasks=(1, 2), rows=8, rollout_length=2)
    found = small.run()
    assert [one["num_envs"] for one in found["envs"]] == [4, 8]
    assert [(one["num_tasks"], one["num_envs"]) for one in found["tasks"]] == [(1, 8), (2, 4)]
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "curves.json").write_text(json.dumps(found))
    write_report(folder, tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| environments of rltransfer/MinAtar-Breakout-v0 | environments only |" in text
    assert "| 2 | 4 | " in text


def test_every_pair_runs_a_script_or_a_command_that_exists() -> None:
    bars = {name: pair.bar for name, pair in PAIRS.items()}
    assert len(bars) == 29
    assert bars["ppo-minatar-return-10"] == 5.0
    assert bars["atari-envs"] == 0.95
    for pair in PAIRS.values():
        for side in filter(None, (pair.ours, pair.peer)):
            assert importlib.util.find_spec(side.command[1]) is not None


def test_episodes_of_the_linear_task_end_and_restart() -> None:
    env = LinearVectorEnv(64)
    first, _ = env.reset(seed=3)
    ended = torch.zeros(64)
    for _ in range(150):
        seen, reward, terminated, truncated, _ = env.step(torch.zeros(64, 12))
        ended += terminated
        assert not truncated.any()
    # Episodes have 50 to 149 steps, so each environment ends 1 to 3 of them within 150 steps.
    assert ended.min() >= 1 and ended.max() <= 3
    assert seen.shape == (64, 48) and reward.shape == (64,)
    # Noise of variance 1 and 0.9 of the previous state: at most 1 / (1 - 0.9^2) = 5.3.
    assert 3 < seen.var() < 6
    again = LinearVectorEnv(64)
    assert torch.equal(again.reset(seed=3)[0], first)
    state = env.state_dict()
    one = env.step(torch.zeros(64, 12))[0]
    env.load_state_dict(state)
    assert torch.equal(env.step(torch.zeros(64, 12))[0], one)


def test_scripts_of_rltransfer() -> None:
    measuring = AtariRollout().measuring.__class__(repeats=1, seconds=0.0, device="cpu")
    assert (
        AtariRollout(measuring=measuring, num_envs=4, rollout_length=2).run()["steps_per_second"]
        > 0
    )
    found = MlpDistillation(measuring=measuring, num_envs=16, rollout_length=2).run()
    assert found["steps_per_second"] == found["with_training"]["median"] > 0
    # A frame of 84 * 84 bytes, 18 labels of 4 bytes, 8 bytes for the task and 1 for the age, for
    # 540,000 steps and three more in each of the 80 rows for the oldest stack.
    assert MemoryAtari().run()["bytes"] == (7056 + 72 + 8 + 1) * (540_000 + 3 * 80)
    options = {"num_envs": 64, "rollout_length": 16, "batch_size": 256}
    found = PPOReturn(until_return=0.01, max_steps=100_000, **options).run()
    assert found["seconds"] > 0 and 0 < found["env_steps"] < 100_000
    with pytest.raises(InputError, match="The return after 2048 steps is only"):
        PPOReturn(until_return=100.0, max_steps=2048, **options).run()


def test_ale_and_bare_torch() -> None:
    assert AleBare(timing=QUICK, num_envs=2).run()["steps_per_second"] > 0
    found = BareTorch(timing=QUICK, batch_size=4, num_batches=2).run()
    assert found["samples_per_second"] > 0


def test_the_plain_loop_of_columns_has_the_network_and_loss_of_rltransfer() -> None:
    policy, bare = two_columns(), TwoColumns()
    older = policy.policies[0]
    with torch.no_grad():
        for layer, own in (
            (bare.frozen_conv, older.encoder.layers[0]), (bare.conv, policy.encoder.layers[0]),
            (bare.frozen_linear, older.encoder.layers[3]), (bare.linear, policy.encoder.layers[3]),
            (bare.project, policy.adapters[0].project), (bare.unite, policy.adapters[0].unite),
            (bare.action, policy.action_head), (bare.value, policy.value_head),
            (bare.lateral_action, policy.action_head.laterals[0]),
            (bare.lateral_value, policy.value_head.laterals[0]),
        ):  # fmt: skip
            layer.weight.copy_(own.weight)
            if layer.bias is not None:
                layer.bias.copy_(own.bias)
    count = {p.requires_grad: 0 for p in policy.parameters()}
    for parameter in policy.parameters():
        count[parameter.requires_grad] += parameter.numel()
    assert count[True] == sum(p.numel() for p in bare.parameters() if p.requires_grad)
    (batch,) = random_batches(1, 32)
    expected = loss(policy, fields_of(batch)).total
    torch.testing.assert_close(ppo_loss(*bare(batch["observation"]), batch), expected)


def test_speed_of_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--columns", "3", "--num-envs", "2", "--rollout-length", "4", "--batch-size", "4"]
    words += ["--repeats", "1", "--seconds", "0", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["progressive_columns", *words])
    assert script.main(ProgressiveColumns, "progressive_columns") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["ratio"] == found["steps_per_second"] / found["steps_per_second_of_one"] > 0
    with pytest.raises(InputError, match="columns is 1"):
        ProgressiveColumns(columns=1)
    for kind in (ProgressiveLearner, BareProgressive):
        found = kind(timing=QUICK, batch_size=4, num_batches=2).run()
        assert found["samples_per_second"] > 0


def test_stable_baselines3() -> None:
    small = {"timing": QUICK, "num_envs": 2, "rollout_length": 64, "batch_size": 64, "epochs": 1}
    for env in ("minatar", "rltransfer"):
        found = StableBaselines3PPO(env=env, **small).run()
        assert found["steps_per_second"] > 0
    found = StableBaselines3PPO(until_return=0.01, max_steps=20_000, **small).run()
    assert found["seconds"] > 0 and 0 < found["env_steps"] < 20_000
    with pytest.raises(InputError, match="The return after 100 steps is only"):
        StableBaselines3PPO(until_return=100.0, max_steps=100, **small).run()


def test_stable_baselines3_on_atari() -> None:
    pytest.importorskip("cv2")
    small = {"num_envs": 2, "rollout_length": 8, "batch_size": 8, "epochs": 1}
    found = StableBaselines3PPO(timing=QUICK, game="atari", **small).run()
    assert found["steps_per_second"] > 0


def test_pgx(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pgx")
    from rltransfer.experiments.benchmarks.pgx_minatar import PgxMinAtar
    from rltransfer.experiments.benchmarks.script import main as run_script

    words = ["--num-envs", "8", "--rollout-length", "2", "--repeats", "1", "--seconds", "0"]
    monkeypatch.setattr(sys, "argv", ["pgx_minatar", *words])
    assert run_script(PgxMinAtar, "pgx_minatar") == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["steps_per_second"] > 0 and found["settings"]["num_envs"] == 8
    monkeypatch.setattr(sys, "argv", ["pgx_minatar", "--game", "pong"])
    assert run_script(PgxMinAtar, "pgx_minatar") == 2
    assert "There is no game 'pong'" in capsys.readouterr().err


def test_rsl_rl() -> None:
    pytest.importorskip("rsl_rl")
    from rltransfer.experiments.benchmarks.rsl_rl_distillation import RslRlDistillation

    found = RslRlDistillation(timing=QUICK, num_envs=16, rollout_length=15).run()
    assert found["steps_per_second"] > 0
