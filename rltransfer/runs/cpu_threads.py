"""The number of CPU threads of a run, where it is not given."""

from __future__ import annotations

import os
from pathlib import Path

from rltransfer.files.untrusted import damage_refused
from rltransfer.learning.agent import Agent, Method
from rltransfer.machine.threads import AUTO, Threads, checked_threads, number_for
from rltransfer.policies.work import row_work
from rltransfer.runs.config import read_config


def stored_threads(run_dir: Path, requested: Threads) -> Threads:
    """The requested number; for "auto", that of the run if there is one."""
    if requested != AUTO or not os.path.isfile(run_dir / "config.json"):
        return requested
    with damage_refused(f"{run_dir} is not a complete run: its config.json is damaged."):
        return checked_threads(read_config(run_dir)["options"].get("threads", AUTO))


def threads_for(agent: Agent, method: Method, num_rows: int, most: int) -> int:
    """The number of threads for training; 0, torch's default, if the device is not the CPU.

    The work that counts is that of a minibatch, or of the teacher's labels of a step.

    Args:
        agent: The agent.
        method: Its method.
        num_rows: Environments, over all tasks.
        most: The largest number of threads.
    """
    if next(agent.policy.parameters()).device.type != "cpu":
        return 0
    samples = num_rows * method.rollout_length
    batch_size = min(getattr(method, "batch_size", 0) or samples, samples)
    work = row_work(agent.policy) * batch_size
    if agent.teacher is not None:
        work = max(work, agent.teacher.row_work() * num_rows)
    return number_for(work, most)
