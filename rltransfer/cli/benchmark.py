"""`rltransfer benchmark`: speed of environments, training, learners and teachers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rltransfer.cli.parsing import choose, parse, summary, with_method
from rltransfer.cli.task_options import TaskOptions, requested_suite
from rltransfer.cli.train import choose_agent
from rltransfer.errors import check_range
from rltransfer.learning import methods
from rltransfer.machine.tables import FittedTable
from rltransfer.machine.terminal import console
from rltransfer.objectives.objective import Objective
from rltransfer.policies.network import Network
from rltransfer.runs.benchmark import (
    benchmark_learner,
    benchmark_rollout,
    benchmark_teachers,
    benchmark_train,
)
from rltransfer.runs.stopwatch import Measuring, speed_rows


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Options of every benchmark."""

    measuring: Measuring = Measuring()
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkRollout(Benchmark, TaskOptions):
    """Environment steps per second, with and without a policy that acts."""

    network: Network = Network()
    num_envs: int = 4096
    """Environments of each task."""
    rollout_length: int = 16
    """Steps of each environment in a rollout."""

    def run(self) -> dict[str, Any]:
        """Measures."""
        check_range(self, "at least 1", "num_envs", "rollout_length")
        check_range(self, "at most 1,000,000", "num_envs", "rollout_length")
        suite = requested_suite(self)
        return benchmark_rollout(
            suite, self.num_envs, self.rollout_length, self.network, self.measuring
        )


@dataclass(frozen=True, kw_only=True)
class BenchmarkTrain(Benchmark, TaskOptions):
    """Environment steps per second of an agent's training."""

    total_steps: int = 1_000_000
    """Environment steps that schedules assume; only the first rollouts are measured."""
    compile: bool = False
    """Compile the policy's kernels with torch.compile, as `rltransfer train --compile` does."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkLearner(Benchmark):
    """Samples per second of a student that learns from a replay buffer of Atari-sized frames."""

    network: Network = Network(encoder="nature")
    batch_size: int = 256
    """Samples of a minibatch."""
    memory_steps: int = 20_000
    """Steps that the replay buffer holds."""
    objective: str = "kl"
    """The objective, as for `rltransfer train policy-distillation`."""

    def run(self) -> dict[str, Any]:
        """Measures."""
        check_range(self, "at least 1", "batch_size")
        check_range(self, "at most 10,000,000", "batch_size")
        objective = Objective.of(self.objective)
        return benchmark_learner(
            self.network, self.batch_size, self.memory_steps, objective, self.measuring
        )


@dataclass(frozen=True, kw_only=True)
class BenchmarkTeachers(Benchmark, TaskOptions):
    """Labels per second of one teacher per task, compared with one teacher for all tasks."""

    network: Network = Network()
    num_envs: int = 1024
    """Environments of each task; each gives one label."""

    def run(self) -> dict[str, Any]:
        """Measures."""
        check_range(self, "at least 1", "num_envs")
        check_range(self, "at most 1,000,000", "num_envs")
        suite = requested_suite(self)
        return benchmark_teachers(suite, self.num_envs, self.network, self.measuring)


BENCHMARKS: dict[str, type[Any]] = {
    "rollout": BenchmarkRollout,
    "train": BenchmarkTrain,
    "learner": BenchmarkLearner,
    "teachers": BenchmarkTeachers,
}
"""What can be measured."""


def run(words: list[str]) -> None:
    """Measures a speed and prints it."""
    about = "Measure the speed of environments, training, learners or teachers."
    name, options = choose(
        "benchmark", BENCHMARKS, words, "rltransfer benchmark", about,
        lambda name: summary(BENCHMARKS[name]),
    )  # fmt: skip
    prog = f"rltransfer benchmark {name}"
    if name == "train":
        made, result = _benchmark_agent(options, prog)
    else:
        made = parse(BENCHMARKS[name], options, prog)
        result = made.run()
    if made.json:
        print(json.dumps(result))
        return
    heads = (result["unit"], "median", "range")
    table = FittedTable(heads, optional=("range",), names_task=False)
    for row in speed_rows(result):
        table.add_row(*row)
    console().print(table)


def _benchmark_agent(words: list[str], prog: str) -> tuple[Any, dict[str, Any]]:
    agent, options = choose_agent(words, prog, summary(BenchmarkTrain))
    kind = with_method(methods.find_method(agent), run=BenchmarkTrain())
    made: Any = parse(kind, options, f"{prog} {agent}")
    check_range(made.run, "at least 1", "total_steps")
    suite = requested_suite(made.run)
    result = benchmark_train(
        agent, made.method, suite, made.run.total_steps, made.run.measuring, made.run.compile
    )
    return made.run, result
