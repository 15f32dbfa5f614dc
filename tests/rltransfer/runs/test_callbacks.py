"""Callbacks: when they are called and with what, how they stop a run, and what their errors do."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy import TASK

import rltransfer as rt
from rltransfer.files.checkpoint import best_folder, checkpoints
from rltransfer.machine import distributed
from rltransfer.runs.callbacks import Callbacks
from rltransfer.runs.generations import Chain

METHOD = rt.agents.PPO(num_envs=4, rollout_length=10, batch_size=40, epochs=1)
OPTIONS: dict[str, Any] = {
    "suite": TASK, "total_steps": 160, "evaluate_every": 80, "evaluate_episodes": 2,
    "checkpoint_every": 120, "episodes": 2, "threads": 1, "quiet": True,
}  # fmt: skip


def train(run_dir: Path, *callbacks: Any, **options: Any) -> rt.Run:
    return rt.train(METHOD, run_dir=run_dir, callbacks=callbacks, **{**OPTIONS, **options})


def weights(run: rt.Run) -> list[torch.Tensor]:
    return list(run.agent.policy.state_dict().values())


def test_a_run_calls_them_with_what_has_happened(tmp_path: Path) -> None:
    events: list[rt.RunEvent] = []
    found: list[tuple[bool, bool, bool]] = []

    def look(event: rt.RunEvent) -> None:
        events.append(event)
        files = best_folder(event.run_dir), event.run_dir / "result.json"
        saved = f"step-{event.step:012d}" in {path.name for path in checkpoints(event.run_dir)}
        found.append((saved, *(path.exists() for path in files)))
        assert not event.policy.training

    run = train(tmp_path / "run", look)
    assert [(event.kind, event.step) for event in events] == [
        ("start", 0), ("rollout", 40), ("rollout", 80), ("evaluation", 80), ("rollout", 120),
        ("checkpoint", 120), ("rollout", 160), ("evaluation", 160), ("checkpoint", 160),
        ("end", 160),
    ]  # fmt: skip
    # Each is called once the files are written: a checkpoint, the best policy, the result.
    by_kind = {event.kind: one for event, one in zip(events, found, strict=True)}
    assert by_kind == {
        "start": (False, False, False), "rollout": (False, True, False),
        "evaluation": (False, True, False), "checkpoint": (True, True, False),
        "end": (True, True, True),
    }  # fmt: skip
    assert all(event.policy is run.agent.policy for event in events)
    assert run.agent.policy.training is False


def test_the_metrics_of_all_events_are_the_curves(tmp_path: Path) -> None:
    points: Counter[tuple[str, int, float]] = Counter()

    def collect(event: rt.RunEvent) -> None:
        points.update((tag, event.step, value) for tag, value in event.metrics.items())
        kinds = {tag.partition("/")[0] for tag in event.metrics}
        expected = {
            "rollout": {"train", "rollout", "speed"},
            "evaluation": {"evaluate", "reference"},
            "end": {"final", "all_tasks"},
        }
        assert kinds <= expected.get(event.kind, set())

    train(tmp_path / "run", collect)
    curves = EventAccumulator(str(tmp_path / "run"), {"scalars": 0})
    curves.Reload()
    written = Counter(
        (tag, point.step, float(point.value))
        for tag in curves.Tags()["scalars"]
        for point in curves.Scalars(tag)
    )
    rounded = Counter(
        {(tag, step, float(np.float32(v))): n for (tag, step, v), n in points.items()}
    )
    assert rounded == written and max(points.values()) == 1


class Drawn(gymnasium.Env[np.ndarray, int]):
    """Draws what it shows and pays from the global generators."""

    observation_space = spaces.Box(0, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        super().reset(seed=seed)
        return np.random.rand(2).astype(np.float32), {}

    def step(self, action):  # type: ignore[no-untyped-def]
        reward = random.random() + float(torch.rand(()))
        return np.random.rand(2).astype(np.float32), reward, reward > 1.5, False, {}


gymnasium.register("callbacks-test/Drawn-v0", Drawn)


def test_they_do_not_change_the_run(tmp_path: Path) -> None:
    def disturb(event: rt.RunEvent) -> bool:
        _ = random.random(), np.random.rand(3), torch.rand(3)
        seen = {"policy": torch.full((5, 2), 1e3)}
        event.policy(seen, torch.zeros(5, dtype=torch.int64))
        event.policy.eval()
        return True  # it stops nothing

    alone, disturbed = (
        train(tmp_path / name, *callbacks, suite="callbacks-test/Drawn-v0")
        for name, callbacks in (("alone", []), ("disturbed", [disturb, disturb]))
    )
    assert all(map(torch.equal, weights(alone), weights(disturbed)))
    assert disturbed.result["tasks"] == alone.result["tasks"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[torch.Tensor]:
    """The weights at the end of an undisturbed run."""
    return weights(train(tmp_path_factory.mktemp("whole") / "run"))


@pytest.mark.parametrize("kind", ["start", "rollout", "checkpoint"])
def test_a_stopped_run_ends_as_if_it_were_finished(
    kind: str, tmp_path: Path, whole: list[torch.Tensor]
) -> None:
    seen: list[str] = []

    def stop(event: rt.RunEvent) -> None:
        if event.kind == kind:
            event.stop()

    run = train(tmp_path / "run", stop, lambda event: seen.append(event.kind))
    step = {"start": 0, "rollout": 40, "checkpoint": 120}[kind]
    assert run.result["env_steps"] == step and run.result["tasks"][TASK]["episodes"] == 2
    assert checkpoints(run.run_dir)[-1].name == f"step-{step:012d}"
    assert seen[-1] == "end" and Counter(seen)["end"] == 1
    assert json.loads((run.run_dir / "result.json").read_text()) == run.result
    # It trains on when it is resumed, and keeps the result.
    more = train(run.run_dir, resume=True)
    assert more.result["env_steps"] == 160
    stored = json.loads((run.run_dir / f"result-{step}-2.json").read_text())
    assert stored == run.result
    assert all(map(torch.equal, weights(more), whole))


def test_a_stop_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "run", lambda event: event.stop(), quiet=False)
    assert "was stopped by a callback at step 0" in capsys.readouterr().err
    train(tmp_path / "last", lambda e: e.step == 160 and e.stop(), quiet=False)
    assert "stopped" not in capsys.readouterr().err


class Pruned(Exception):  # noqa: N818
    """What a library for searching hyperparameters raises."""


@pytest.mark.parametrize("kind", ["start", "evaluation", "end"])
def test_an_error_is_raised_after_a_checkpoint(
    kind: str, tmp_path: Path, whole: list[torch.Tensor]
) -> None:
    error = Pruned("not promising")

    def fail(event: rt.RunEvent) -> None:
        if event.kind == kind:
            raise error

    with pytest.raises(Pruned) as raised:
        train(tmp_path / "run", fail)
    assert raised.value is error and raised.traceback[-1].name == "fail"
    step = {"start": 0, "evaluation": 80, "end": 160}[kind]
    (note,) = error.__notes__
    assert f"In a callback of {tmp_path / 'run'}, which resumes from step {step} with" in note
    assert [path.name for path in checkpoints(tmp_path / "run")][-1:] == (
        [f"step-{step:012d}"] if step else []
    )
    resumed = train(tmp_path / "run", resume=True)
    assert all(map(torch.equal, weights(resumed), whole))


def test_a_resumed_run_calls_them_from_where_it_is(tmp_path: Path) -> None:
    train(tmp_path / "run")
    events: list[tuple[str, int]] = []
    train(tmp_path / "run", lambda e: events.append((e.kind, e.step)), resume=True)
    assert events == []  # it is finished
    more = {"total_steps": 200, "evaluate_every": 0}
    train(tmp_path / "run", lambda e: events.append((e.kind, e.step)), resume=True, **more)
    assert events[:2] == [("start", 160), ("rollout", 200)] and events[-1] == ("end", 200)


def test_each_generation_of_a_chain_calls_them(tmp_path: Path) -> None:
    train(tmp_path / "teacher", episodes=0)
    ends: list[Path] = []
    student = rt.agents.PolicyDistillation(
        teacher=str(tmp_path / "teacher"), num_envs=4, rollout_length=10, batch_size=40
    )
    rt.train(
        student, run_dir=tmp_path / "chain", generations=2,
        callbacks=[lambda event: ends.append(event.run_dir) if event.kind == "end" else None],
        **{**OPTIONS, "total_steps": 40, "episodes": 1, "evaluate_episodes": 0},
    )  # fmt: skip
    assert ends == [tmp_path / "chain" / f"generation-{number}" for number in (1, 2)]
    assert Chain.callbacks == ()


@pytest.mark.parametrize("wrong", [print, 3, "log", [3], [print, None], {print}])
def test_what_is_not_a_list_of_functions_is_refused(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(rt.InputError, match="pass a list of functions of one argument, the event"):
        rt.train(METHOD, run_dir=tmp_path / "run", callbacks=wrong, **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_the_first_of_several_processes_calls_them_and_all_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = train(tmp_path / "run", total_steps=40, episodes=0).agent.policy
    called: list[int] = []
    monkeypatch.setattr(distributed, "rank", lambda: len(ranks))
    monkeypatch.setattr(distributed, "any_of", lambda flag: flag or any(stopped))
    ranks: list[int] = []
    stopped: list[bool] = []
    for rank in range(2):
        callbacks = Callbacks([lambda event, rank=rank: called.append(rank) or event.stop()])
        callbacks("rollout", 40, {}, policy, tmp_path)
        assert callbacks.stopped
        stopped.append(callbacks.stopped)
        ranks.append(rank)
    assert called == [0]
