"""What TensorBoard's own server reads in the folders of runs."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard_reader import (
    assert_data_server_reads,
    charts,
    descriptions,
    events_of,
    hparams_table,
    python_server,
)
from torch.utils.tensorboard import SummaryWriter
from toy import TASK

import rltransfer as rt
from rltransfer.runs.config import RunOptions
from rltransfer.runs.run import Run
from rltransfer.runs.tensorboard import Tracker, write_settings

METHOD = rt.agents.PPO(num_envs=4, rollout_length=10, batch_size=40)
"""40 steps an iteration."""
QUICK: dict[str, Any] = {"total_steps": 200, "episodes": 4, "evaluate_episodes": 2}


def trained(run_dir: Path, method: Any = METHOD, suite: Any = TASK, **options: Any) -> rt.Run:
    return rt.train(method, suite=suite, run_dir=run_dir, quiet=True, **{**QUICK, **options})


def test_scalars_are_curves_and_a_resume_hides_what_was_lost(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    for step in (10, 20, 30):
        tracker.scalars({"train/loss": float(step), "train/kl": 2.0 * step}, step)
    tracker.close()
    resumed = Tracker(tmp_path, purge_step=20)
    resumed.scalars({"train/loss": -1.0}, 25)
    resumed.close()
    events = events_of(tmp_path)
    loss = [(point.step, point.value) for point in events.Scalars("train/loss")]
    assert loss == [(10, 10.0), (25, -1.0)]
    assert [point.value for point in events.Scalars("train/kl")] == [20.0]


def test_histograms_leave_out_what_is_not_finite(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    tracker.histograms({"a": [1.0, 1.0, 3.0, math.inf, math.nan], "b": [math.nan]}, 5)
    tracker.close()
    events = events_of(tmp_path)
    assert events.Tags()["histograms"] == ["a"]
    (point,) = events.Histograms("a")
    assert point.step == 5
    assert (point.histogram_value.min, point.histogram_value.max) == (1.0, 3.0)
    assert sum(point.histogram_value.bucket) == 3


def test_without_a_folder_nothing_is_written() -> None:
    tracker = Tracker(None)
    tracker.scalars({"a": 1.0}, 1)
    tracker.histograms({"a": [1.0]}, 1)
    tracker.picture("a", np.zeros((2, 2, 3), np.uint8))
    tracker.finished()
    tracker.close()


def test_the_table_of_hyperparameters_compares_runs(tmp_path: Path) -> None:
    slow = trained(tmp_path / "slow")
    other = rt.agents.PPO(num_envs=4, rollout_length=10, batch_size=20)
    trained(tmp_path / "fast", other, seed=1)
    # An extended run stays one row, with the steps that it now has.
    trained(tmp_path / "fast", other, seed=1, resume=True, total_steps=400)
    # A run of an earlier version has curves only.
    with SummaryWriter(str(tmp_path / "old")) as old:
        old.add_scalar("train/loss", 1.0, 5)
    settings, metrics, names = hparams_table(python_server(tmp_path))
    assert sorted(settings) == ["fast", "slow"]
    columns = ("agent", "suite", "seed", "total_steps", "batch_size", "hidden", "clip_range")
    assert [settings["slow"][name] for name in columns] == ["ppo", TASK, 0, 200, 40, "64 64", 0.2]
    assert [settings["fast"][name] for name in columns[2:5]] == [1, 400, 20]
    figures = slow.result["tasks"][TASK]
    assert metrics["slow"]["all_tasks/final_return"] == pytest.approx(figures["return_mean"])
    assert metrics["slow"][f"final/return_mean/{TASK}"] == pytest.approx(figures["return_mean"])
    # TensorBoard shows the first five metrics unless asked for more.
    assert names[0] == "all_tasks/final_return"
    assert_data_server_reads(tmp_path, hparams_table, (settings, metrics, names))
    # An event file in a folder of its own would be another run.
    assert {path.parent.name for path in tmp_path.rglob("*tfevents*")} == {"slow", "fast", "old"}


def test_a_run_that_was_killed_and_resumed_has_no_point_twice(tmp_path: Path) -> None:
    every = {"checkpoint_every": 120, "evaluate_every": 40}
    options = RunOptions(**QUICK, **every)
    run = Run("ppo", METHOD, rt.Suite.of(TASK), options, tmp_path / "run", quiet=True)
    run.begin(resume=False)
    count, iterate = itertools.count(1), run.iterate

    def failing() -> dict[str, float]:
        if next(count) == 5:
            raise ZeroDivisionError
        return iterate()

    run.iterate = failing  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        run.execute()
    trained(tmp_path / "run", **every, resume=True)
    assert len(list((tmp_path / "run").glob("*tfevents*"))) == 3  # settings, and one for each
    events = events_of(tmp_path / "run")
    for tag in events.Tags()["scalars"]:
        steps = [point.step for point in events.Scalars(tag)]
        assert steps == sorted(set(steps)), tag
    line = events.Scalars(f"reference/random_return/{TASK}")
    assert [point.step for point in line] == [40, 80, 120, 160, 200]
    assert len({point.value for point in line}) == 1
    histograms = events.Histograms(f"evaluate/returns/{TASK}")
    assert [point.step for point in histograms] == [40, 80, 120, 160, 200]
    # The configuration is that of the last start, once.
    (config,) = events.Tensors("config/text_summary")
    text = config.tensor_proto.string_val[0].decode()
    assert json.loads(text.strip("`"))["options"]["checkpoint_every"] == 120
    assert list(hparams_table(python_server(tmp_path))[0]) == ["run"]


def test_teacher_and_random_policy_are_lines_in_the_chart_of_the_return(tmp_path: Path) -> None:
    echo = rt.CallableTeacher(lambda seen, _: rt.PolicyOutput(logits=seen["policy"]))
    method = rt.agents.PolicyDistillation(
        teacher=echo, num_envs=4, rollout_length=10, batch_size=40
    )
    trained(tmp_path / "student", method)
    trained(tmp_path / "ppo")
    shown = charts(python_server(tmp_path))[f"evaluate/return/{TASK}"]
    expected = [f"evaluate/return/{TASK}", f"reference/teacher_return/{TASK}"]
    assert shown == {
        "student": [*expected, f"reference/random_return/{TASK}"],
        "ppo": [expected[0], f"reference/random_return/{TASK}"],
    }
    assert_data_server_reads(tmp_path, charts, {f"evaluate/return/{TASK}": shown})
    events = events_of(tmp_path / "student")
    # It always names the symbol that it sees, ten times an episode.
    assert {point.value for point in events.Scalars(expected[1])} == {10.0}
    random = events.Scalars(f"reference/random_return/{TASK}")
    assert 1.0 < random[0].value < 4.0


def test_charts_of_runs_on_other_tasks_are_all_there(tmp_path: Path) -> None:
    names = ["a+b-v0", "a+b-v0{1}", "c(d)-v0"]
    for index, name in enumerate(names):
        folder = tmp_path / str(index)
        tracker = Tracker(folder)
        tracker.scalars({f"evaluate/return/{name}": 1.0}, 1)
        tracker.close()
        write_settings(folder, "", {"seed": index}, {name: [f"evaluate/return/{name}"]})
    # Each chart has the curve of its task alone, whatever the characters of the name.
    assert charts(python_server(tmp_path)) == {
        name: {
            str(run): [f"evaluate/return/{name}"] if run == index else []
            for run in range(len(names))
        }
        for index, name in enumerate(names)
    }


def test_without_evaluations_there_is_no_chart(tmp_path: Path) -> None:
    trained(tmp_path / "run", evaluate_episodes=0)
    assert "custom_scalars__config__" not in events_of(tmp_path / "run").Tags()["tensors"]


def test_both_servers_keep_the_descriptions(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / "run", describe=lambda tag: f"What {tag} is.")
    for step in (1, 2):
        tracker.scalars({"a/b": 1.0, "a/c": 2.0}, step)
        tracker.histograms({"h": [1.0, 2.0]}, step)
    tracker.picture("p", np.zeros((2, 2, 3), np.uint8))
    tracker.close()
    expected = {tag: f"What {tag} is." for tag in ("a/b", "a/c", "h", "p")}
    assert descriptions(python_server(tmp_path), "run") == expected
    assert_data_server_reads(tmp_path, lambda server: descriptions(server, "run"), expected)


def test_points_that_follow_the_settings_are_read_while_a_run_goes_on(tmp_path: Path) -> None:
    write_settings(tmp_path, "", {"seed": 0}, {})
    tracker, read = Tracker(tmp_path), []
    events = events_of(tmp_path)
    for step in (1, 2, 3):
        tracker.scalars({"a": 1.0}, step)
        assert tracker.writer is not None
        tracker.writer.flush()
        events.Reload()
        read.append([point.step for point in events.Scalars("a")])
    tracker.close()
    assert read == [[1], [1, 2], [1, 2, 3]]
