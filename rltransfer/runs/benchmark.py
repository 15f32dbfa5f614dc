"""Benchmarks: steps, samples and labels per second.

Publications use "steps per second" for three things that differ by a factor of up to a thousand:

- environments only, with random actions;
- with inference: a policy acts, and the rollout is stored;
- with training: the policy also learns from the rollout.

Each figure here names its kind; it is a median of several repetitions, with minimum and maximum.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from rltransfer.learning.agent import Method
from rltransfer.learning.learner import Learner, Loss
from rltransfer.learning.memory_size import check_fits
from rltransfer.learning.minibatches import Batch
from rltransfer.learning.replay_memory import ReplayMemory
from rltransfer.machine.hardware import hardware
from rltransfer.machine.threads import restored
from rltransfer.objectives.objective import Objective
from rltransfer.policies.network import Network
from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.policies.work import row_work
from rltransfer.rollouts.actors import PolicyActor, RandomActor
from rltransfer.rollouts.engine import RolloutEngine, closed_if_refused
from rltransfer.rollouts.rollout_size import check_rollout_size
from rltransfer.runs.config import RunOptions
from rltransfer.runs.run import Run
from rltransfer.runs.stopwatch import Measuring, Stopwatch
from rltransfer.tasks.observation import DEFAULT_GROUP
from rltransfer.tasks.suite_spaces import SuiteSpaces, TaskSpaces
from rltransfer.tasks.task import Suite
from rltransfer.teachers.per_task import PerTask
from rltransfer.teachers.policy_teacher import PolicyTeacher
from rltransfer.teachers.teacher import Teacher

NUM_ACTIONS = 6
"""Actions in the learner's benchmark, as in Pong and Space Invaders."""
FRAME_SIDE = 84
"""Height and width of the frames, in pixels."""
FRAME_STACK = 4
"""Frames stacked in an observation."""
MEMORY_ROWS = 8
"""Environments in the memory."""


@restored()
def benchmark_rollout(
    suite: Suite, num_envs: int, rollout_length: int, network: Network, options: Measuring
) -> dict[str, Any]:
    """Measures environments only and with inference, for each task and for all together.

    Args:
        suite: The tasks.
        num_envs: Environments per task.
        rollout_length: Steps per environment in a rollout.
        network: The network of the acting policy, with fresh weights.
        options: How to measure.
    """
    watch = Stopwatch(options)
    tasks = {
        name: _rollout_speeds(watch, Suite.of(task), num_envs, rollout_length, network)
        for name, task in zip(suite.names(), suite, strict=True)
    }
    result: dict[str, Any] = {
        "unit": "environment steps per second",
        "num_envs": num_envs,
        "rollout_length": rollout_length,
        "tasks": tasks,
        "geometric_mean": {
            meaning: statistics.geometric_mean(one[meaning]["median"] for one in tasks.values())
            for meaning in ("environments_only", "with_inference")
        },
    }
    if len(suite) > 1:
        result["together"] = _rollout_speeds(watch, suite, num_envs, rollout_length, network)
    return {**result, "hardware": hardware(watch.device)}


@restored()
def _rollout_speeds(
    watch: Stopwatch, suite: Suite, num_envs: int, rollout_length: int, network: Network
) -> dict[str, dict[str, float]]:
    seed = watch.options.seed
    engine = RolloutEngine(suite, num_envs, watch.device, seed)
    with closed_if_refused(engine):
        check_rollout_size(engine, rollout_length)
    generator = torch.Generator(watch.device).manual_seed(seed)
    policy = fresh_policy(engine, network, seed)
    watch.choose_threads(row_work(policy) * engine.num_rows)
    actor = PolicyActor(policy, generator)
    random_actor = RandomActor(engine.spaces, generator)
    try:
        alone, acting = watch.speeds(
            lambda: _step_alone(engine, random_actor, rollout_length),
            lambda: engine.collect(actor, rollout_length).num_steps,
        )
    finally:
        engine.close()
    return {"environments_only": asdict(alone), "with_inference": asdict(acting)}


def _step_alone(engine: RolloutEngine, actor: RandomActor, rollout_length: int) -> int:
    """Steps an engine's environments without storing anything; the number of steps."""
    for _ in range(rollout_length):
        action = actor.act({}, engine.task, engine.state, engine.task)["action"]
        for env_slice in engine.env_slices:
            env_slice.send(action)
        for env_slice in engine.env_slices:
            env_slice.env.recv()
    return rollout_length * engine.num_rows


def fresh_policy(engine: RolloutEngine, network: Network, seed: int) -> Policy:
    """Builds an untrained policy for an engine's tasks, on the engine's device."""
    torch.manual_seed(seed)
    spec = PolicySpec.of_suite(network, engine.spaces, value=False)
    return Policy(spec).to(engine.device).eval()


@restored()
def benchmark_train(
    name: str,
    method: Method,
    suite: Suite,
    total_steps: int,
    options: Measuring,
    compiled: bool = False,
) -> dict[str, Any]:
    """Measures a method's environments, rollouts and training.

    Args:
        name: The method's name.
        method: The method.
        suite: The tasks.
        total_steps: Environment steps of the whole run, for the schedules; only the start is
            measured.
        options: How to measure.
        compiled: Whether to compile the policy with torch.compile.
    """
    watch = Stopwatch(options)
    run_options = RunOptions(
        total_steps=total_steps,
        seed=options.seed,
        device=options.device,
        threads=options.threads,
        compile=compiled,
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Run(name, method, suite, run_options, Path(folder), quiet=True)
        teacher_fractions: list[float] = []

        def with_inference() -> int:
            run.agent.begin_rollout(0.0)
            return run.engine.collect(run.agent, method.rollout_length).num_steps

        def with_training() -> int:
            run.env_steps = 0
            metrics = run.iterate()
            if "speed/teacher_fraction" in metrics:
                teacher_fractions.append(metrics["speed/teacher_fraction"])
            return run.env_steps

        acting, training = watch.speeds(with_inference, with_training)
        actor = RandomActor(run.engine.spaces, run.agent.generator)
        (alone,) = watch.speeds(lambda: _step_alone(run.engine, actor, method.rollout_length))
        run.engine.close()
    return {
        "unit": "environment steps per second",
        "agent": name,
        "suite": suite.name,
        "num_envs": method.num_envs,
        "rollout_length": method.rollout_length,
        "environments_only": asdict(alone),
        "with_inference": asdict(acting),
        "with_training": asdict(training),
        "teacher_fraction": statistics.median(teacher_fractions) if teacher_fractions else None,
        "hardware": hardware(watch.device),
    }


@restored()
def benchmark_learner(
    network: Network, batch_size: int, memory_steps: int, objective: Objective, options: Measuring
) -> dict[str, Any]:
    """Measures distillation from a memory of frames, and from a prepared minibatch for comparison.

    Args:
        network: The student's network.
        batch_size: Samples per minibatch.
        memory_steps: Capacity of the memory, of stacks of four frames of 84 x 84 pixels.
        objective: The student's objective.
        options: How to measure.
    """
    watch = Stopwatch(options)
    torch.manual_seed(options.seed)
    shape = (FRAME_STACK, FRAME_SIDE, FRAME_SIDE)
    space = spaces.Dict({DEFAULT_GROUP: spaces.Box(0, 255, shape, np.uint8)})
    student = Policy(PolicySpec(network, space, spaces.Discrete(NUM_ACTIONS), value=False))
    watch.choose_threads(row_work(student) * batch_size)
    student.to(watch.device)
    learner = Learner(student, learning_rate=1e-3, max_grad_norm=10.0)
    memory = _filled_memory(memory_steps, watch.device)
    order = torch.Generator().manual_seed(options.seed)
    ready = memory.sample(batch_size, order)

    label = PolicyOutput(logits=ready["logits"])
    fitted = objective.fitted(student(ready["observation"]), label, ("memory",)).to(watch.device)
    task = torch.zeros(batch_size, dtype=torch.int64, device=watch.device)

    def loss(batch: Batch) -> Loss:
        label = PolicyOutput(logits=batch["logits"])
        terms = fitted(student(batch["observation"]), label, task, 0.0)
        return Loss(torch.stack(list(terms.values())).sum(), terms)

    def update(batch: Batch) -> int:
        learner.update([batch], loss)
        return batch_size

    with_memory, without_memory = watch.speeds(
        lambda: update(memory.sample(batch_size, order)), lambda: update(ready)
    )
    return {
        "unit": "samples per second",
        "batch_size": batch_size,
        "student_parameters": student.num_acting_parameters(),
        "memory_bytes_per_step": memory.nbytes() / (memory.length * memory.num_rows),
        "samples_per_second": asdict(with_memory),
        "samples_per_second_without_memory": asdict(without_memory),
        "hardware": hardware(watch.device),
    }


def _filled_memory(steps: int, device: torch.device) -> ReplayMemory:
    memory = ReplayMemory(steps, MEMORY_ROWS, device, FRAME_STACK)
    check_fits(memory, memory.capacity * FRAME_SIDE**2, memory.capacity)
    for begin in range(0, memory.length, FRAME_STACK):
        rows = (min(FRAME_STACK, memory.length - begin), MEMORY_ROWS)
        size = (*rows, FRAME_STACK, FRAME_SIDE, FRAME_SIDE)
        frames = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
        start = torch.zeros(rows, dtype=torch.bool, device=device)
        logits = torch.randn(*rows, NUM_ACTIONS, device=device)
        memory.add({DEFAULT_GROUP: frames}, start, {"logits": logits})
    return memory


@restored()
def benchmark_teachers(
    suite: Suite, num_envs: int, network: Network, options: Measuring
) -> dict[str, Any]:
    """Measures labelling with one teacher for all tasks, and with one teacher per task.

    Args:
        suite: The tasks.
        num_envs: Environments, and thus labels, per task.
        network: The network of each teacher, with fresh weights.
        options: How to measure.
    """
    watch = Stopwatch(options)
    engine = RolloutEngine(suite, num_envs, watch.device, options.seed)
    generator = torch.Generator(watch.device).manual_seed(options.seed)
    seen = engine.collect(RandomActor(engine.spaces, generator), 16).last_observation
    policies = [fresh_policy(engine, network, options.seed + i) for i in range(len(suite))]
    watch.choose_threads(row_work(policies[0]) * engine.num_rows)
    teachers = [PolicyTeacher(policy, "fresh", "") for policy in policies]
    # All teachers use the suite's padded spaces, so that all cost the same.
    joint = TaskSpaces(engine.spaces.observation_space, engine.spaces.action_space)
    padded = SuiteSpaces.of(suite, [joint] * len(suite))
    each = PerTask(dict(zip(suite.names(), teachers, strict=True))).fitted(padded)

    def label(teacher: Teacher) -> int:
        teacher(seen, engine.task)
        return engine.num_rows

    one, several = watch.speeds(lambda: label(teachers[0]), lambda: label(each))
    engine.close()
    return {
        "unit": "labels per second",
        "num_teachers": len(suite),
        "num_envs": num_envs,
        "one_teacher": asdict(one),
        "one_teacher_a_task": asdict(several),
        "ratio": one.median / several.median,
        "hardware": hardware(watch.device),
    }
