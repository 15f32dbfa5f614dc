"""Runs for reports: folders as `rltransfer train` writes them, with curves that tests choose."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rltransfer as rt
from rltransfer.runs.config import RunOptions, settings
from rltransfer.runs.tensorboard import Tracker
from rltransfer.tasks.task import Suite, Task

STEPS = (0, 250, 500, 750, 1000)
"""Steps of the points of a curve."""


def make_run(
    folder: Path,
    *,
    tasks: Sequence[str | Task] = ("CartPole-v1",),
    agent: str = "ppo",
    method: Any = None,
    seed: int = 0,
    returns: Sequence[float] = (0, 2, 4, 6, 8),
    steps: Sequence[int] = STEPS,
    kind: str = "evaluate",
    final: float | Mapping[str, float] | None = None,
    random: float = 0.0,
    teacher: float | None = None,
    finished: bool = True,
    parameters: int = 100,
    weights: str = "",
    changes: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Writes a run's files and returns its folder.

    Args:
        folder: The folder.
        tasks: Its tasks.
        agent: Name of the method.
        method: The method; PPO if None.
        seed: The seed.
        returns: The returns of each curve, the same for all tasks.
        steps: The steps of the curves' points.
        kind: "evaluate" or "rollout": which curve is logged.
        final: The final return, by task or for all; the curves' last one if None.
        random: The random policy's return.
        teacher: The teacher's return, if there is a teacher.
        finished: Whether there is a result.
        parameters: Parameters of the policy.
        weights: Hash of the policy in its checkpoint.
        changes: Entries of the configuration that are added or replaced.
        options: Further options of the run.
    """
    suite = Suite.of(*tasks)
    given = RunOptions(**{"total_steps": STEPS[-1], "seed": seed, **options})
    config = {
        **settings(agent, method or rt.agents.PPO(), suite, given),
        "teacher": None,
        "frame_stack": 0,
        **(changes or {}),
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    tracker = Tracker(folder)
    for step, value in zip(steps, returns, strict=False):
        scalars = {f"{kind}/return/{name}": float(value) for name in suite.names()}
        tracker.scalars({"train/loss": 1.0, **scalars}, step)
    tracker.close()
    if weights:
        checkpoint = folder / "checkpoints" / "step-000000001000"
        checkpoint.mkdir(parents=True)
        (checkpoint / "sha256.json").write_text(json.dumps({"policy.safetensors": weights}))
    if finished:
        last = returns[-1] if final is None else final
        rows = {
            name: {
                "return_mean": float(last[name] if isinstance(last, Mapping) else last),
                "return_ci95": 0.5,
                "episodes": 100,
                "random_return_mean": random,
                **({} if teacher is None else {"teacher_return_mean": teacher}),
            }
            for name in suite.names()
        }
        result = {
            "agent": agent,
            "suite": suite.name,
            "seed": seed,
            "env_steps": given.total_steps,
            "student_parameters": parameters,
            "tasks": rows,
        }
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def taught_by(source: str, sha256: str = "") -> dict[str, Any]:
    """The entry of a configuration for a teacher."""
    found = {"source": source, "num_parameters": 100}
    return {"teacher": {**found, "sha256": sha256} if sha256 else found}


def begun_with(source: str, sha256: str = "") -> dict[str, Any]:
    """The entry of a configuration for the run that the weights come from."""
    return {"init_from": {"source": source, "sha256": sha256}}


def distillation(teacher: str, **options: Any) -> Any:
    """Policy distillation from a teacher."""
    return rt.agents.PolicyDistillation(teacher=teacher, **options)
