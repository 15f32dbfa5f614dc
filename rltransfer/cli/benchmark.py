"""The shell's face of the benchmarks: `rltransfer benchmark rollout|train|learner|teachers`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from rltransfer.cli.parsing import parse
from rltransfer.cli.task_options import TaskOptions, requested_suite
from rltransfer.errors import InputError, check_range
from rltransfer.learning import methods
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
class BenchmarkOutput:
    """How a benchmark tells what it found."""

    json: bool = False
    """Whether to print JSON."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(TaskOptions, BenchmarkOutput):
    """What is measured, and how it is told."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkRollout:
    """Steps per second of environments alone, and with a policy that acts in them."""

    general: BenchmarkOptions = BenchmarkOptions()
    measuring: Measuring = Measuring()
    network: Network = Network()
    num_envs: int = 4096
    """Environments of each task."""
    rollout_length: int = 16
    """Steps of a rollout."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "num_envs", "rollout_length")

    def run(self) -> dict[str, Any]:
        """Measures."""
        suite = requested_suite(self.general)
        return benchmark_rollout(
            suite, self.num_envs, self.rollout_length, self.network, self.measuring
        )


@dataclass(frozen=True, kw_only=True)
class RunLength:
    """The run of which the beginning is measured."""

    total_steps: int = 1_000_000
    """Environment steps in all, which schedules follow."""
    compile: bool = False
    """Whether torch.compile builds the policy's kernels, as `rltransfer train --compile` does."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "total_steps")


@dataclass(frozen=True, kw_only=True)
class BenchmarkLearner:
    """Samples per second of distilling a student from a memory of Atari-sized frames."""

    general: BenchmarkOutput = BenchmarkOutput()
    measuring: Measuring = Measuring()
    network: Network = Network(encoder="nature")
    batch_size: int = 256
    """Samples of a step."""
    memory_steps: int = 20_000
    """Steps that the memory holds."""
    objective: str = "kl"
    """The objective, as `rltransfer train policy-distillation` takes it."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "batch_size")

    def run(self) -> dict[str, Any]:
        """Measures."""
        return benchmark_learner(
            self.network,
            self.batch_size,
            self.memory_steps,
            Objective.of(self.objective),
            self.measuring,
        )


@dataclass(frozen=True, kw_only=True)
class BenchmarkTeachers:
    """Labels per second of one teacher a task, beside one teacher for all tasks."""

    general: BenchmarkOptions = BenchmarkOptions()
    measuring: Measuring = Measuring()
    network: Network = Network()
    num_envs: int = 1024
    """Environments, and so labels, of each task."""

    def __post_init__(self) -> None:
        check_range(self, "at least 1", "num_envs")

    def run(self) -> dict[str, Any]:
        """Measures."""
        suite = requested_suite(self.general)
        return benchmark_teachers(suite, self.num_envs, self.network, self.measuring)


BENCHMARKS: dict[str, type[Any]] = {
    "rollout": BenchmarkRollout,
    "learner": BenchmarkLearner,
    "teachers": BenchmarkTeachers,
}
"""What can be measured, beside an agent's training."""


def benchmark_command(words: list[str]) -> None:
    """Measures how fast something is."""
    if not words or words[0] not in (*BENCHMARKS, "train"):
        raise InputError(
            "Say what to measure: `rltransfer benchmark` rollout, train AGENT, learner or teachers."
        )
    if words[0] == "train":
        general, result = _benchmarked_training(words[1:])
    else:
        made: Any = parse(BENCHMARKS[words[0]], words[1:], f"rltransfer benchmark {words[0]}")
        general, result = made.general, made.run()
    if general.json:
        print(json.dumps(result))
        return
    table = Table(result["unit"], "median", "range")
    for row in speed_rows(result):
        table.add_row(*row)
    console().print(table)


def _benchmarked_training(words: list[str]) -> tuple[BenchmarkOptions, dict[str, Any]]:
    """Returns what was asked for, and the speeds of an agent's training."""
    if not words or words[0].startswith("-"):
        raise InputError(
            f"`rltransfer benchmark train` needs an agent: {', '.join(methods.method_names())}."
        )
    method_class = methods.find_method(words[0])
    kind: type[Any] = dataclasses.make_dataclass(
        "Benchmark",
        [
            ("general", BenchmarkOptions, dataclasses.field(default=BenchmarkOptions())),
            ("measuring", Measuring, dataclasses.field(default=Measuring())),
            ("run", RunLength, dataclasses.field(default=RunLength())),
            ("method", method_class, dataclasses.MISSING),
        ],
        frozen=True,
        kw_only=True,
        namespace={"__doc__": method_class.__doc__, "__module__": __name__},
    )
    made: Any = parse(kind, words[1:], f"rltransfer benchmark train {words[0]}")
    suite = requested_suite(made.general)
    result = benchmark_train(
        words[0], made.method, suite, made.run.total_steps, made.measuring, made.run.compile
    )
    return made.general, result
