"""One training run: build, loop, checkpoint, evaluate, finish."""

from __future__ import annotations

import contextlib
import json
import math
import operator
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from rltransfer.errors import InputError, InterruptedRunError
from rltransfer.files import atomic, checkpoint
from rltransfer.files.untrusted import damage_refused
from rltransfer.learning.agent import Agent, Method, TrainingContext
from rltransfer.learning.learner import NonFiniteGradientError
from rltransfer.machine import distributed
from rltransfer.machine.allocator import keep_freed_memory
from rltransfer.machine.devices import find_device
from rltransfer.machine.hardware import hardware
from rltransfer.machine.terminal import print_line
from rltransfer.policies.saving import save_policy
from rltransfer.rollouts.engine import RolloutEngine, closed_if_refused
from rltransfer.rollouts.evaluation import evaluate_policy
from rltransfer.rollouts.metrics import rollout_metrics
from rltransfer.rollouts.rollout import Rollout
from rltransfer.runs.config import FRAMES, RunOptions, settings
from rltransfer.runs.folder import check_same, io_errors_as_input_errors, make_folder, write_json
from rltransfer.runs.progress import Progress
from rltransfer.runs.result import final_evaluation
from rltransfer.runs.teacher_check import teacher_check
from rltransfer.runs.tensorboard import Tracker
from rltransfer.tasks.observation import grouped
from rltransfer.tasks.task import Suite
from rltransfer.tasks.vector_env import VectorEnv

TRAINING_RETURN = "training return"
"""The live table's name of the mean return of a rollout's episodes."""


class Run:
    """A training run in a folder.

    The folder contains `config.json`, TensorBoard event files, `checkpoints/` and, at the end,
    `result.json`. Use `train` to start one.
    """

    def __init__(
        self,
        name: str,
        method: Method,
        suite: Suite,
        options: RunOptions,
        run_dir: Path,
        quiet: bool = False,
    ) -> None:
        self.name = name
        self.method = method
        self.suite = suite
        self.options = options
        self.run_dir = run_dir
        self.quiet = quiet
        self.device = find_device(options.device)
        keep_freed_memory()
        if options.threads:
            torch.set_num_threads(options.threads)
        distributed.initialize(self.device)
        self.env_steps = 0
        self.wall_seconds = 0.0
        self.result: dict[str, Any] = {}
        self.teacher_returns: dict[str, float] = {}
        self._resumed = False
        self._in_loop = False
        self._stop = False
        seed = options.seed + 1_000 * distributed.rank()
        self.engine = RolloutEngine(suite, method.num_envs, self.device, seed)
        self.context = TrainingContext(
            spaces=self.engine.spaces,
            frame_stack=_frame_stack([env_slice.env for env_slice in self.engine.env_slices]),
            num_rows=self.engine.num_rows,
            seed=seed,
            device=self.device,
        )
        torch.manual_seed(options.seed)
        with closed_if_refused(self.engine):
            self.agent: Agent = method.build(self.context)
            distributed.broadcast(self.agent.policy)
            if options.compile:
                self.agent.policy.compile()

    @property
    def _title(self) -> str:
        return f"{self.name} on {self.suite.name}"

    def config(self) -> dict[str, Any]:
        """The run's settings and its teacher's description, as JSON."""
        return {
            **settings(self.name, self.method, self.suite, self.options),
            "teacher": self.agent.teacher.describe() if self.agent.teacher else None,
        }

    def begin(self, resume: bool, teacher_moves: bool = False) -> None:
        """Creates the run's folder, or resumes the run in it.

        Args:
            resume: Whether to resume.
            teacher_moves: Whether the teacher may be in another place, with the same weights.

        Raises:
            InputError: A new run's folder contains something or cannot be written, or a resumed
                run's folder does not contain a run with these settings.
        """
        with closed_if_refused(self.engine):
            if resume:
                check_same(self.run_dir, self.config(), teacher_moves)
                self.restore()
                self._resumed = True
                return
            if distributed.rank() == 0:
                # The stacked frames are stored for students of this run; options determine them.
                make_folder(self.run_dir, {**self.config(), FRAMES: self.context.frame_stack})
            distributed.wait()

    def restore(self) -> None:
        """Restores the newest checkpoint; without one, the run starts from the beginning."""
        if not checkpoint.checkpoints(self.run_dir):
            return
        folder = checkpoint.newest_checkpoint(self.run_dir)
        state = checkpoint.load_state(folder)
        with damage_refused(
            f"{folder} is not a complete checkpoint: its state does not fit this run."
        ):
            self.env_steps = operator.index(state["env_steps"])
            self.wall_seconds = float(state["wall_seconds"])
            self.agent.load_state_dict(state["agent"])
            self.engine.load_state_dict(state["engine"])

    def execute(self) -> dict[str, Any]:
        """Trains to the end and returns the result.

        Raises:
            InterruptedRunError: Ctrl-C or SIGTERM stopped the run after a checkpoint.
            KeyboardInterrupt: The same before the first rollout or after the last checkpoint.
            InputError: An environment returned values that are not finite, the network diverged, or
                the disk is full.
        """
        previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                previous[number] = signal.signal(number, self._on_signal)
        try:
            with self._tracked() as tracker:
                self._check_teacher()
                self._loop(tracker)
                self._finish(tracker)
        except NonFiniteGradientError as error:
            found = checkpoint.checkpoints(self.run_dir)
            last = (
                f"the last checkpoint is {found[-1]}" if found else "there is no earlier checkpoint"
            )
            raise InputError(
                f"{str(error).rstrip('.')}; {last}: use a smaller learning rate."
            ) from error
        finally:
            self.engine.close()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return self.result

    @contextlib.contextmanager
    def _tracked(self) -> Iterator[Tracker]:
        """Yields the run's tracker, with the configuration written, and closes it."""
        run_dir = self.run_dir if distributed.rank() == 0 else None
        with io_errors_as_input_errors(self.run_dir):
            tracker = Tracker(run_dir, self.env_steps + 1 if self._resumed else None)
            tracker.text("config", f"```\n{json.dumps(self.config(), indent=1)}\n```")
        try:
            yield tracker
        finally:
            with io_errors_as_input_errors(self.run_dir):
                tracker.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Requests a stop after this iteration; outside the loop or if repeated, stops at once."""
        if self._stop or not self._in_loop:
            raise KeyboardInterrupt
        self._stop = True

    def _loop(self, tracker: Tracker) -> None:
        """Alternates rollouts and updates until all steps are done."""
        options = self.options
        save_every = options.checkpoint_every or max(options.total_steps // 10, 1)
        evaluate_every = options.evaluate_every or max(options.total_steps // 4, 1)
        if not options.evaluate_episodes:
            evaluate_every = 0
        figures = {
            f"teacher {task_id.rsplit('/', 1)[-1]}": f"{value:.1f}"
            for task_id, value in self.teacher_returns.items()
        }
        began, first_step = time.monotonic(), self.env_steps
        before = self.wall_seconds
        self._in_loop = True
        with Progress(
            self._title, options.total_steps, self.quiet or distributed.rank() > 0
        ) as progress:
            while self.env_steps < options.total_steps:
                last_step = self.env_steps
                metrics = self.iterate()
                self.wall_seconds = before + time.monotonic() - began
                if _passed(last_step, self.env_steps, evaluate_every):
                    metrics.update(self._evaluate_quickly())
                with io_errors_as_input_errors(self.run_dir):
                    tracker.scalars(metrics, self.env_steps)
                # Without finished episodes in this rollout, no older training return is shown.
                figures.pop(TRAINING_RETURN, None)
                figures.update(_live_figures(metrics))
                speed = (self.env_steps - first_step) / (time.monotonic() - began)
                progress.show(self.env_steps, speed, figures)
                ended = self.env_steps >= options.total_steps
                stops = distributed.any_of(self._stop)
                if ended or stops or _passed(last_step, self.env_steps, save_every):
                    self.save()
                if stops:
                    raise InterruptedRunError(self.name, self.run_dir)
        self._in_loop = False
        if self._stop:
            # The signal arrived during the last checkpoint.
            raise InterruptedRunError(self.name, self.run_dir)

    def iterate(self) -> dict[str, float]:
        """Collects one rollout, learns from it, and returns the metrics to log."""
        began = time.perf_counter()
        self.agent.begin_rollout(self.env_steps / self.options.total_steps)
        self.agent.teacher_seconds = 0.0
        rollout = self.engine.collect(self.agent, self.method.rollout_length)
        self._check_finite(rollout)
        collected = time.perf_counter()
        learned = self.agent.learn(rollout)
        ended = time.perf_counter()
        steps = rollout.num_steps * distributed.world_size()
        self.env_steps += steps
        metrics = {f"train/{name}": value for name, value in learned.items()}
        metrics.update(rollout_metrics(rollout, self.suite))
        seconds = max(ended - began, 1e-9)
        metrics["speed/env_steps_per_second"] = steps / seconds
        metrics["speed/collect_share"] = (collected - began) / seconds
        # On CUDA, these seconds would only measure the launch of the work.
        if self.agent.teacher_seconds and self.device.type == "cpu":
            metrics["speed/teacher_share"] = self.agent.teacher_seconds / seconds
            metrics["speed/labels_per_second"] = steps / self.agent.teacher_seconds
        if self.agent.teacher:
            figures = self.agent.teacher.figures()
            metrics.update({f"teacher/{name}": value for name, value in figures.items()})
        return metrics

    def _check_finite(self, rollout: Rollout) -> None:
        seen = {f"an observation {name!r}": group for name, group in rollout.observation.items()}
        seen["a reward"] = rollout.reward
        for what, tensor in seen.items():
            if not tensor.is_floating_point() or bool(tensor.isfinite().all()):
                continue
            when, row = (~tensor.isfinite()).nonzero()[0, :2].tolist()
            task = self.suite.tasks[row // self.method.num_envs]
            num_rows = self.engine.num_rows * distributed.world_size()
            step = self.env_steps // num_rows + when
            raise InputError(
                f"The task {task.id!r} returned {what} that is not finite, at step {step} of its "
                f"environment {row % self.method.num_envs}: the environment is at fault."
            )

    def _evaluate_quickly(self) -> dict[str, float]:
        self.agent.policy.eval()
        found = evaluate_policy(
            self.agent.policy, self.suite, self.options.evaluate_episodes,
            seed=self.options.seed + 1, device=self.device,
        )  # fmt: skip
        self.agent.policy.train()
        return {f"evaluate/return/{task}": one.mean for task, one in found.items()}

    def save(self) -> None:
        """Writes a checkpoint; environments whose state cannot be saved start new episodes."""
        self.engine.restart(only_forgetful=True)
        state = {
            "env_steps": self.env_steps,
            "wall_seconds": self.wall_seconds,
            "agent": self.agent.state_dict(),
            "engine": self.engine.state_dict(),
        }
        target = checkpoint.checkpoint_folder(self.run_dir, self.env_steps)
        with io_errors_as_input_errors(self.run_dir):
            with atomic.written_together(target) as folder:
                if distributed.rank() == 0:
                    save_policy(self.agent.policy, folder / "policy")
                checkpoint.save_state(folder, state)
            if distributed.rank() == 0:
                checkpoint.remove_old(self.run_dir)

    def _finish(self, tracker: Tracker) -> None:
        """Evaluates policy, teacher and random policy, and writes `result.json`."""
        options, agent = self.options, self.agent
        policies = "policy, teacher and random" if agent.teacher else "policy and random"
        print_line(
            f"{self._title}  evaluating {policies} policy, {options.episodes} episodes per task",
            self.quiet or distributed.rank() > 0,
        )
        found = final_evaluation(agent, self.context, options.episodes, options.seed + 2)
        # JSON has no infinity, the interval of a single episode.
        tasks = {
            task: {name: None if math.isinf(value) else value for name, value in figures.items()}
            for task, figures in found.items()
        }
        teacher_figures = agent.teacher.figures() if agent.teacher else {}
        self.result = {
            "agent": self.name,
            "suite": self.suite.name,
            "seed": options.seed,
            "env_steps": self.env_steps,
            "wall_seconds": self.wall_seconds,
            "env_steps_per_second": self.env_steps / max(self.wall_seconds, 1e-9),
            "student_parameters": agent.policy.num_acting_parameters(),
            "teacher_parameters": agent.teacher.num_parameters if agent.teacher else None,
            **{f"teacher_{name}": value for name, value in teacher_figures.items()},
            "device": str(self.device),
            "hardware": hardware(self.device),
            "tasks": tasks,
        }
        if distributed.rank() == 0:
            write_json(self.run_dir / "result.json", self.result)
            with io_errors_as_input_errors(self.run_dir):
                for task, figures in found.items():
                    final = {f"final/{name}/{task}": value for name, value in figures.items()}
                    tracker.scalars(final, self.env_steps)

    def _check_teacher(self) -> None:
        """Evaluates the teacher, and warns if it is not better than a random policy."""
        if self.agent.teacher is not None:
            for note in self.agent.teacher.notes():
                print_line(note, self.quiet or distributed.rank() > 0)
        seed = self.options.seed + 3
        self.teacher_returns, sentences = teacher_check(self.agent, self.context, seed)
        if distributed.rank() == 0:
            for sentence in sentences:
                print(sentence, file=sys.stderr)


def _frame_stack(envs: Sequence[VectorEnv]) -> int:
    """The number of frames stacked in the observations of all environments; 0 if they differ."""
    found = set()
    for env in envs:
        groups = grouped(env.single_observation_space).spaces.values()
        images = [group.shape for group in groups if group.shape and len(group.shape) == 3]
        stacks = any(image[0] == env.frame_stack for image in images)
        found.add(env.frame_stack if stacks else 0)
    return found.pop() if len(found) == 1 else 0


def _passed(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` is in (before, now]."""
    return every > 0 and now // every > before // every


def _live_figures(metrics: Mapping[str, float]) -> dict[str, str]:
    shown = {}
    for name, value in metrics.items():
        if name.startswith("evaluate/return/"):
            shown[f"return {name.rsplit('/', 1)[-1]}"] = f"{value:.1f}"
        elif name == "train/agreement":
            shown["agreement"] = f"{value:.3f}"
    returns = [v for n, v in metrics.items() if n.startswith("rollout/return/")]
    if returns:
        shown[TRAINING_RETURN] = " ".join(f"{value:.1f}" for value in returns)
    return shown
