"""Evaluating by name from Python: a run's own tasks, some of them, others, and teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import SHORT_TASK, TASK

import rltransfer as rt
from rltransfer.cli.main import main
from rltransfer.rollouts import engine
from rltransfer.rollouts.evaluation import Evaluation
from rltransfer.runs import evaluate as evaluate_module
from rltransfer.tasks.making import make_vector_env
from rltransfer.tasks.vector_env import VectorEnv

SMALL: dict[str, Any] = {"total_steps": 64, "episodes": 1, "evaluate_episodes": 0, "quiet": True}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    rt.train(
        rt.agents.PPO(num_envs=4, rollout_length=8),
        suite=[TASK, SHORT_TASK],
        run_dir=folder,
        **SMALL,
    )
    return folder


def test_a_run_plays_its_own_tasks_or_some(run_dir: Path) -> None:
    found = rt.evaluate(run_dir, episodes=3, seed=5)
    assert list(found) == [TASK, SHORT_TASK]
    assert len(found[TASK].returns) == 3
    assert rt.evaluate(str(run_dir), SHORT_TASK, 3, seed=5) == {SHORT_TASK: found[SHORT_TASK]}
    both = rt.evaluate(run_dir, [SHORT_TASK, TASK], 3, seed=5)
    assert both == found and list(both) == [SHORT_TASK, TASK]


def test_teachers_of_any_kind_play(run_dir: Path) -> None:
    teacher = rt.load_teacher(run_dir)
    named, made = (rt.evaluate(one, TASK, 3, seed=5) for one in (run_dir, teacher))
    assert named == made
    # A teacher that knows its tasks needs none.
    assert list(rt.evaluate(teacher, episodes=1)) == [TASK, SHORT_TASK]
    with pytest.raises(rt.InputError, match=r"The tasks of the teacher .* are unknown"):
        rt.evaluate(rt.Ensemble([teacher]))


@pytest.mark.parametrize("task", [TASK, "CartPole-v1"])
def test_one_task_is_made_once(
    run_dir: Path, task: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[int] = []

    def counted(task: rt.Task, num_envs: int, device: torch.device) -> VectorEnv:
        made.append(num_envs)
        return make_vector_env(task, num_envs, device)

    monkeypatch.setattr(engine, "make_vector_env", counted)
    balance = rt.CallableTeacher(lambda seen, _: rt.PolicyOutput(logits=seen["policy"][:, :2]))
    for source in [run_dir, rt.load_teacher(run_dir)] if task == TASK else [balance]:
        made.clear()
        rt.evaluate(source, task, episodes=3, num_envs=3)
        assert made == [3]


def test_an_option_of_all_tasks_is_no_other_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = [rt.Task("rltransfer/TwoRooms-v0", {"goal": g, "time_limit": 20}) for g in (0, 1)]
    method = rt.agents.Distral(num_envs=2, rollout_length=8)
    rt.train(method, suite=rooms, run_dir=tmp_path / "run", **SMALL)
    asked: list[tuple[int, Any]] = []

    def evaluated(policy: object, suite: rt.Suite, *args: object, **how: Any) -> object:
        asked.append((how["first"], dict(suite.tasks[0].kwargs)))
        return {"a task": Evaluation((1.0,), (1,))}

    monkeypatch.setattr(evaluate_module, "evaluate_policy", evaluated)
    assert main(["evaluate", str(tmp_path / "run"), "--task-option", "time_limit=9"]) == 0
    assert asked == [(goal, {"goal": goal, "time_limit": 9}) for goal in (0, 1)]
    asked.clear()
    rt.evaluate(tmp_path / "run", rooms[::-1])
    assert [place for place, _ in asked] == [1, 0]


@pytest.mark.parametrize(
    ("source", "how", "sentence"),
    [
        ("zoo", {"num_envs": 0}, "num_envs is 0: it must be at least 1"),
        ("zoo", {"episodes": float("nan")}, "episodes is nan: it must be a whole number"),
        ("zoo", {"seed": -1}, "seed is -1: it must be at least 0"),
        (lambda seen, task: None, {}, "The teacher is a function: write CallableTeacher"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(source: Any, how: Any, sentence: str) -> None:
    with pytest.raises(rt.InputError, match=sentence):
        rt.evaluate(source, "CartPole-v1", **how)


def test_a_method_is_an_instance(tmp_path: Path) -> None:
    for method in ("ppo", rt.agents.PPO):
        with pytest.raises(rt.InputError, match="pass an instance"):
            rt.train(method, suite=TASK, run_dir=tmp_path / "run")  # type: ignore[arg-type]


def test_modules_and_tasks_that_cannot_be_are_refused() -> None:
    one = rt.CallableTeacher(lambda seen, _: rt.PolicyOutput(logits=seen["policy"][:, :2]))
    with pytest.raises(rt.InputError, match=r"The module '\.\.' of the environment"):
        rt.evaluate(one, "..:CartPole-v1")
    with pytest.raises(rt.InputError, match="names a task twice"):
        rt.PerTask({"CartPole-v1": one, rt.Task("CartPole-v1"): one})  # type: ignore[dict-item]
    with pytest.raises(rt.InputError, match="MonteCarloDropout is inf: it must be"):
        teacher = rt.load_teacher("zoo:rltransfer/MinAtar-Breakout-v0")
        rt.MonteCarloDropout(teacher, float("inf"), 0.5)  # type: ignore[arg-type]


def test_a_teacher_is_found_by_the_arguments_of_the_task_as_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As for Atari, whose evaluation turns off the clipping of rewards that training turns on.
    trained = rt.Task("CartPole-v1", {"sutton_barto_reward": True})

    def evaluated(task: rt.Task) -> rt.Task:
        return task.with_kwargs(sutton_barto_reward=False)

    monkeypatch.setattr("rltransfer.rollouts.evaluation.evaluation_task", evaluated)
    balance = rt.CallableTeacher(lambda seen, _: rt.PolicyOutput(logits=seen["policy"][:, :2]))
    found = rt.evaluate(rt.PerTask({trained: balance}), trained, episodes=2)
    # A reward for each step, not one of -1 at the end.
    assert next(iter(found.values())).mean > 1
