"""Runs are found at any depth, and what is damaged or no run is named or passed over."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from fake_runs import make_run, taught_by

from rltransfer.errors import InputError
from rltransfer.reports.reading import Source, find_runs, read_run


def names(runs: list) -> list[str]:
    return [run.path.name for run in runs]


def test_runs_are_found_at_any_depth_and_once(tmp_path: Path) -> None:
    for name in ("a/b/run-10", "a/run-2", "run-1"):
        make_run(tmp_path / name)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a")
    make_run(tmp_path / "a" / ".run-3.partial")
    found, wrong = find_runs([tmp_path, tmp_path / "a", tmp_path / "run-1"])
    assert names(found) == ["run-10", "run-2", "run-1"]
    assert not wrong


def test_what_a_run_is_read_from(tmp_path: Path) -> None:
    made = make_run(
        tmp_path / "run", seed=3, returns=(1, 2, 3), random=-1.0, teacher=9.0, weights="abc",
        changes=taught_by("runs/teacher", "def"),
    )  # fmt: skip
    run = read_run(made)
    assert (run.agent, run.seed, run.total_steps, run.steps) == ("ppo", 3, 1000, 1000)
    assert run.suite.names() == ("CartPole-v1",) and run.status == "finished"
    assert run.sources == (Source("teacher", "runs/teacher", "def"),)
    assert run.weights == {"abc"}
    assert run.returns["CartPole-v1"] == {
        "return_mean": 3.0, "return_ci95": 0.5, "episodes": 100.0, "random_return_mean": -1.0,
        "teacher_return_mean": 9.0,
    }  # fmt: skip
    curve = run.curves["evaluation"]["CartPole-v1"]
    assert (curve.steps.tolist(), curve.returns.tolist()) == ([0, 250, 500], [1, 2, 3])
    assert not run.curves["training"]


def test_a_run_that_was_cut_short_says_where(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", returns=(0, 1, 2), finished=False))
    assert not run.is_finished
    assert run.status == "cut short at step 500 of 1,000 (50 %)"


def test_points_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", returns=(1, float("nan"), float("inf"), 4)))
    assert run.curves["evaluation"]["CartPole-v1"].returns.tolist() == [1, 4]


def test_the_generations_of_a_chain_are_its_runs(tmp_path: Path) -> None:
    chain = tmp_path / "chain"
    for number in (1, 2):
        make_run(chain / f"generation-{number}", seed=100_000 * (number - 1))
    config = json.loads((chain / "generation-1" / "config.json").read_text())
    (chain / "config.json").write_text(json.dumps({**config, "generations": 2}))
    (chain / "result.json").write_text((chain / "generation-2" / "result.json").read_text())
    # A folder with such a name that is not in a chain.
    make_run(tmp_path / "generation-7")
    found, _ = find_runs([tmp_path])
    assert [run.generation for run in found] == [1, 2, None]


def test_sources_of_every_kind(tmp_path: Path) -> None:
    members = [taught_by("a.zip", "1")["teacher"], taught_by("b.zip", "2")["teacher"]]
    made = make_run(
        tmp_path / "run",
        changes={
            "init_from": {"source": "runs/first", "sha256": "0"},
            "teacher": {
                "per_task": {"x": {"source": "Ensemble('a.zip')", "members": members[:1]},
                             "y": members[1]}
            },
        },
    )  # fmt: skip
    assert read_run(made).sources == (
        Source("init_from", "runs/first", "0"),
        Source("teacher", "a.zip", "1"),
        Source("teacher", "b.zip", "2"),
    )


def test_another_programs_configuration_is_passed_over(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}')
    found, wrong = find_runs([tmp_path])
    assert (names(found), wrong) == (["run"], [])


@pytest.mark.parametrize(
    "text",
    [
        "{", "[" * 100_000, '{"agent": "ppo"}', '{"agent": "ppo", "suite": {"name": 3}}',
        '{"agent": ["x"], "suite": {"name": "x", "tasks": [{"id": "x", "kwargs": {}}]},'
        ' "method": {}, "options": {}}',
    ],
)  # fmt: skip
def test_a_damaged_run_is_named_next_to_others_and_refused_alone(tmp_path: Path, text: str) -> None:
    make_run(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text(text)
    found, wrong = find_runs([tmp_path])
    assert names(found) == ["good"]
    assert wrong == [f"{tmp_path}/bad is not a complete run: its config.json is damaged."]
    with pytest.raises(InputError, match="bad is not a complete run"):
        find_runs([tmp_path / "bad"])


@pytest.mark.parametrize(
    "change",
    [{"seed": "x"}, {"seed": -1}, {"seed": None}, {"total_steps": 1e400}, {"seed": 10**30}],
)
def test_options_of_the_wrong_kind_are_damage(tmp_path: Path, change: dict[str, object]) -> None:
    made = make_run(tmp_path / "run")
    config = json.loads((made / "config.json").read_text())
    config["options"] |= change
    (made / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="is not a complete run"):
        read_run(made)


def test_figures_of_the_wrong_kind_are_unknown(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run")
    for row in (None, [], {"return_mean": "9"}, {"return_mean": True}, {"return_mean": 10**400}):
        result = {"env_steps": "many", "tasks": {"CartPole-v1": row}}
        (made / "result.json").write_text(json.dumps(result))
        run = read_run(made)
        assert run.returns == {} and run.is_finished and run.steps == 1000


def test_files_over_the_limit_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_run(tmp_path / "run")
    (events,) = made.glob("events*")
    with events.open("ab") as file:
        file.truncate(3 * 2**20)
    monkeypatch.setenv("RLTRANSFER_MAX_FILE_MIB", "2")
    with pytest.raises(InputError, match="was not opened: its content takes 3 MiB"):
        read_run(made)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "run")
    (tmp_path / "empty").mkdir()
    for folder, sentence in (
        ("empty", "empty contains no run: pass folders with runs of `rltransfer train`."),
        ("none", "There is no folder .*none: pass run directories, or their parent."),
        ("runs/run/config.json", "There is no folder"),
    ):
        with pytest.raises(InputError, match=sentence):
            find_runs([tmp_path / "runs", tmp_path / folder])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "closed").mkdir(mode=0)
    assert find_runs([tmp_path])[1] == [f"{tmp_path}/closed cannot be read: Permission denied."]
