"""One training run: build, loop, checkpoint, evaluate, finish."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import operator
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from rltransfer.errors import (
    EnvironmentFailureError,
    InputError,
    InterruptedRunError,
    TerminatedError,
)
from rltransfer.files import atomic, checkpoint
from rltransfer.files.untrusted import damage_refused
from rltransfer.learning.agent import Agent, Method, TrainingContext
from rltransfer.learning.consolidation import Consolidation
from rltransfer.learning.distillation_recipe import CHOSEN, format_choices
from rltransfer.learning.initial_weights import LoadedTensor
from rltransfer.learning.learner import NonFiniteGradientError
from rltransfer.learning.trainable import Freeze, Trainable
from rltransfer.machine import distributed
from rltransfer.machine.allocator import keep_freed_memory
from rltransfer.machine.devices import find_device
from rltransfer.machine.generators import global_state, seed_global_generators, set_global_state
from rltransfer.machine.hardware import hardware
from rltransfer.machine.terminal import console, print_line
from rltransfer.machine.threads import AUTO, available, one_thread, restored, use_threads
from rltransfer.policies.saving import save_policy
from rltransfer.rollouts.engine import RolloutEngine, closed_if_refused
from rltransfer.rollouts.metrics import rollout_metrics
from rltransfer.rollouts.rollout import Rollout
from rltransfer.rollouts.rollout_size import check_rollout_size
from rltransfer.runs.advice import Advice
from rltransfer.runs.callbacks import Callback, Callbacks, Kind
from rltransfer.runs.config import (
    FRAMES,
    SCALED_ACTIONS,
    SOURCES,
    RunOptions,
    check_consolidation,
    read_config,
    settings,
    with_total_steps,
)
from rltransfer.runs.consolidation import remember
from rltransfer.runs.cpu_threads import stored_threads, threads_for
from rltransfer.runs.descriptions import (
    EVALUATE_RETURN,
    PICTURE,
    RANDOM_RETURN,
    TEACHER_RETURN,
    Descriptions,
)
from rltransfer.runs.evaluator import Evaluator, passed
from rltransfer.runs.folder import (
    RESULT_OPTIONS,
    changed_options,
    check_same,
    io_errors_as_input_errors,
    keep_result,
    lock,
    make_folder,
    store_options,
    stored_result,
    write_json,
)
from rltransfer.runs.hyperparameters import hyperparameters
from rltransfer.runs.initialization import INIT_FROM, initialize, load_source, loading_table
from rltransfer.runs.pictures import task_pictures
from rltransfer.runs.progress import TRAINING_RETURN, live_figures
from rltransfer.runs.result import final_curves
from rltransfer.runs.teacher_check import format_return
from rltransfer.runs.tensorboard import Tracker, write_settings
from rltransfer.tasks.normalising import describe_normalising
from rltransfer.tasks.observation import grouped
from rltransfer.tasks.task import Suite
from rltransfer.tasks.vector_env import VectorEnv

GENERATORS = "generators"
"""Key of the global generators in a checkpoint; those of earlier versions lack it."""

EVALUATE_FROM = "evaluate_from"
"""Key of the step of the next evaluation at the earliest; checkpoints of earlier versions lack it.
"""

TRACEBACK = "environment-error.txt"
"""The file of a run directory with the traceback of an environment's error."""


LONGEST_TITLE = 80
"""Characters of a suite's name in titles; several ids without a common name may have more."""


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
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.callbacks = Callbacks(callbacks)
        self.name = name
        self.method = method
        self.suite = suite
        self.options = options = with_total_steps(options, method, suite)
        self.run_dir = run_dir
        self.quiet = quiet
        self.device = find_device(options.device)
        keep_freed_memory()
        distributed.initialize(self.device)
        self.env_steps = 0
        self.wall_seconds = 0.0
        self.result: dict[str, Any] = {}
        self.initial_weights: list[LoadedTensor] = []
        self._init_source: dict[str, str] | None = None
        self._sources: Sequence[dict[str, str]] | None = None
        self._resumed = False
        self._advice = Advice()
        self._held = contextlib.ExitStack()
        self._in_loop = False
        self._stop = False
        self._signal: int = signal.SIGINT
        with closed_if_refused(self._held):
            self._held.enter_context(restored())
            self._build()

    def _build(self) -> None:
        """Makes the environments and the agent, and sets the number of threads."""
        options, method, run_dir = self.options, self.method, self.run_dir
        check_consolidation(options)
        number = stored_threads(run_dir, options.threads)
        # "auto" counts the work of networks: environments on the CPU may use all threads.
        most = available()
        use_threads(most if number == AUTO else number)
        seed = distributed.process_seed(options.seed)
        seed_global_generators(seed)  # environments may draw from them
        began = time.monotonic()
        self.engine = RolloutEngine(self.suite, method.num_envs, self.device, seed)
        self._seconds_per_env = (time.monotonic() - began) / self.engine.num_rows
        with closed_if_refused(self.engine):
            check_rollout_size(self.engine, method.rollout_length)
        spaces = self.engine.spaces
        self.context = TrainingContext(
            spaces=spaces if scales_actions(run_dir) else spaces.without_host_actions(),
            frame_stack=_frame_stack([env_slice.env for env_slice in self.engine.env_slices]),
            num_rows=self.engine.num_rows,
            on_device=on_device(self.engine),
            seed=seed,
            device=self.device,
            resumed=run_dir if checkpoint.checkpoints(run_dir) else None,
        )
        torch.manual_seed(options.seed)
        with closed_if_refused(self.engine):
            with one_thread():  # initial weights do not depend on the number
                self.agent: Agent = method.build(self.context)
                distributed.broadcast(self.agent.policy)
                if options.until and self.agent.teacher is None:
                    raise InputError(
                        f"until is {options.until:g}, but {self.name} has no teacher to compare "
                        "with: leave it out."
                    )
                self._sizes = self.agent.check_size(options.total_steps, run_dir)
                if number == AUTO:
                    number = threads_for(self.agent, method, self.engine.num_rows, most)
            self.trainable = Trainable(
                self.agent.policy, self.agent.learner, Freeze.of(options.freeze),
                options.l2_to_source,
            )  # fmt: skip
            self.consolidation = Consolidation(
                self.agent.policy, self.agent.learner, options.ewc_weight
            )
            # Other statistics would change what the policy does on earlier tasks.
            self.trainable.keeps_statistics = bool(options.ewc_from and options.init_from)
            if options.compile:
                self.agent.policy.compile()
        use_threads(number)
        self.options = dataclasses.replace(options, threads=number)
        self.evaluator = Evaluator(
            self.agent, self.context, self.engine, self.options, run_dir, self._title,
            self._hides_progress,
        )  # fmt: skip

    @property
    def _title(self) -> str:
        tasks = self.suite.tasks
        alone = len(tasks) == 1 and self.suite.name == tasks[0].id
        name = str(tasks[0]) if alone else self.suite.name
        if len(name) > LONGEST_TITLE and alone:
            name = tasks[0].id
        return (
            f"{self.name} on {name if len(name) <= LONGEST_TITLE else f'{len(self.suite)} tasks'}"
        )

    def config(self) -> dict[str, Any]:
        """The run's settings and its teacher's description, as JSON."""
        sources = self.agent.sources if self._sources is None else self._sources
        return {
            **settings(self.name, self.method, self.suite, self.options),
            "teacher": self.agent.teacher.describe() if self.agent.teacher else None,
            **({INIT_FROM: self._init_source} if self._init_source else {}),
            **({SOURCES: list(sources)} if sources else {}),
            **({CHOSEN: self.agent.chosen} if self.agent.chosen else {}),
        }

    def begin(self, resume: bool, teacher_moves: bool = False, sources_move: bool = False) -> None:
        """Creates the run's folder, or resumes the run in it.

        Args:
            resume: Whether to resume.
            teacher_moves: Whether the teacher may be in another place, with the same weights.
            sources_move: Whether the runs that it begins with may be in another place.

        Raises:
            InputError: A new run's folder contains something or cannot be written, or a resumed
                run's folder does not contain a run with these settings, or one that goes on.
        """
        with closed_if_refused(self.engine), closed_if_refused(self._held):
            if resume:
                # Its sources may be gone.
                self._init_source = read_config(self.run_dir).get(INIT_FROM)
            if not resume or not checkpoint.checkpoints(self.run_dir):
                self._initialize()
            else:
                self._sources = read_config(self.run_dir).get(SOURCES, ())
            if resume:
                self._resume(teacher_moves, sources_move)
            elif distributed.rank() == 0:
                # The stacked frames are stored for students of this run; options determine them.
                rest = {FRAMES: self.context.frame_stack, SCALED_ACTIONS: True}
                self._held.enter_context(make_folder(self.run_dir, {**self.config(), **rest}))
            distributed.wait()

    def _initialize(self) -> None:
        """Loads initial weights, if another policy gives them, and prints what was loaded."""
        self._remember()
        if not self.options.init_from:
            return
        source = load_source(self.options.init_from)
        self.initial_weights = initialize(self.agent.policy, source, self.options)
        self._init_source = source.to_json()
        loaded = [row.name for row in self.initial_weights if row.status == "loaded"]
        self.trainable.pull_to_source(loaded)
        # In other units, the loaded head would act otherwise.
        self.agent.policy.frozen_action_units = "action_center" in loaded
        if not self._hides_progress:
            console().print(loading_table(self.initial_weights, source))

    def _remember(self) -> None:
        """Measures what the tasks of earlier runs need of the weights, if any are named."""
        sources, seed = self.options.ewc_from, self.options.seed
        for source in sources:
            self._say(f"measures which weights {source} needs")
            remember(self.consolidation, source, self.device, seed)

    def _resume(self, teacher_moves: bool, sources_move: bool) -> None:
        check_same(self.run_dir, self.config(), teacher_moves, sources_move)
        if distributed.rank() == 0:
            self._held.enter_context(lock(self.run_dir))
        self.restore()
        self._resumed = True
        total, changed = self.options.total_steps, changed_options(self.run_dir, self.options)
        if "total_steps" in changed and total < self.env_steps:
            raise InputError(
                f"total_steps is {total}, but {self.run_dir} has done {self.env_steps} steps "
                "already: use more, or leave it as it was."
            )
        result = stored_result(self.run_dir)
        ended = self.env_steps >= total or result.get("reached") == self.env_steps
        if ended and not changed.keys() & RESULT_OPTIONS:
            self.result = result
        distributed.wait()  # until all processes have read what the first one changes
        if distributed.rank() == 0:
            if not self.result:
                keep_result(self.run_dir)
            store_options(self.run_dir, self.options)
        for name, value in changed.items():
            new = getattr(self.options, name)
            self._say(f"resumes with {name} {new}; it was {value}")

    def restore(self) -> None:
        """Restores the newest checkpoint; without one, the run starts from the beginning.

        The best policy so far stays the best, even if it is newer than the checkpoint.
        """
        self.evaluator.load_best()
        if not checkpoint.checkpoints(self.run_dir):
            return
        folder = checkpoint.newest_checkpoint(self.run_dir, part="")
        state = checkpoint.load_state(folder)
        with damage_refused(
            f"{folder} does not fit this run: its state is damaged, or was written by a version "
            "with other state."
        ):
            self.env_steps = operator.index(state["env_steps"])
            self.wall_seconds = float(state["wall_seconds"])
            if self.env_steps < 0 or not 0 <= self.wall_seconds < math.inf:
                raise ValueError("Steps and seconds are counted from 0.")
            self.agent.load_state_dict(state["agent"])
            self.trainable.load_state_dict(state.get("source", {}))
            if self.options.ewc_from:
                self.consolidation.load_state_dict(state["ewc"])
            self.evaluator.next_step = operator.index(state.get(EVALUATE_FROM, 0))
            lost = self.engine.load_state_dict(state["engine"])
            # Afterwards, as playing episodes again may draw from them.
            if GENERATORS in state:
                set_global_state(state[GENERATORS])
        for reason in dict.fromkeys(lost):
            self._say(f"{reason}: new episodes begin")

    def _say(self, words: str) -> None:
        print_line(f"{self._title}  {words}", self.quiet or distributed.rank() > 0)

    def execute(self) -> dict[str, Any]:
        """Trains to the end and returns the result, at once if the run is finished.

        Raises:
            InterruptedRunError: Ctrl-C or SIGTERM stopped the run after a checkpoint.
            KeyboardInterrupt: The same before the first rollout or after the last checkpoint.
            Exception: A callback raised it, and what was learned is in a checkpoint.
            EnvironmentFailureError: An environment failed; what was learned is in a checkpoint.
            InputError: The network diverged, or the disk is full.
        """
        if self.result:
            self._say(f"is finished ({self.env_steps} steps): pass more --total-steps to train on")
            self.engine.close()
            self._held.close()
            return self.result
        previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                previous[number] = signal.signal(number, self._on_signal)
        try:
            with self._tracked() as tracker:
                self._print_normalising()
                if self.agent.chosen:
                    self._say(format_choices(self.agent.chosen))
                for sentence in self._sizes:
                    self._say(sentence)
                self._draw_tasks(tracker)
                self.evaluator.check_teacher()
                self._print_groups()
                self._call("start")
                self._loop(tracker)
                self._finish(tracker)
        except EnvironmentFailureError as error:
            raise self._failed(error) from error
        except NonFiniteGradientError as error:
            found = checkpoint.checkpoints(self.run_dir)
            last = (
                f"the last checkpoint is {found[-1]}" if found else "there is no earlier checkpoint"
            )
            raise InputError(
                f"{str(error).rstrip('.')}; {last}: use a smaller {self._steps_of_what()}."
            ) from error
        finally:
            self.engine.close()
            self._held.close()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return self.result

    def _steps_of_what(self) -> str:
        """What makes the steps of a network that diverged smaller."""
        pulls = {"ewc_weight": self.options.ewc_weight, "l2_to_source": self.options.l2_to_source}
        return " or ".join(["learning rate", *(name for name, value in pulls.items() if value)])

    @contextlib.contextmanager
    def _tracked(self) -> Iterator[Tracker]:
        """Yields the run's tracker, with the configuration written, and closes it."""
        run_dir = self.run_dir if distributed.rank() == 0 else None
        with io_errors_as_input_errors(self.run_dir):
            if run_dir is not None:
                self._write_settings(run_dir)
            purge_step = self.env_steps + 1 if self._resumed else None
            tracker = Tracker(run_dir, purge_step, Descriptions(self.agent))
        try:
            yield tracker
        finally:
            with io_errors_as_input_errors(self.run_dir):
                tracker.close()

    def _write_settings(self, run_dir: Path) -> None:
        charts = {
            f"{EVALUATE_RETURN}/{task}": [
                f"{curve}/{task}" for curve in (EVALUATE_RETURN, TEACHER_RETURN, RANDOM_RETURN)
            ]
            for task in self.suite.names()
            if self.options.evaluate_episodes
        }
        settings = hyperparameters(self.name, self.method, self.suite, self.options)
        config = f"```\n{json.dumps(self.config(), indent=1)}\n```"
        write_settings(run_dir, config, settings, charts)

    def _draw_tasks(self, tracker: Tracker) -> None:
        """Shows a picture of each task, if a run begins."""
        if self._resumed or distributed.rank() > 0:
            return
        evaluates = self.options.evaluate_episodes or self.options.episodes
        seconds = self._seconds_per_env if evaluates else None
        with io_errors_as_input_errors(self.run_dir):
            for task, pixels in task_pictures(self.engine, self.options.seed, seconds):
                tracker.picture(f"{PICTURE}/{task}", pixels)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Requests a stop after this iteration; outside the loop or if repeated, stops at once."""
        if self._stop or not self._in_loop:
            raise TerminatedError if number == signal.SIGTERM else KeyboardInterrupt
        self._stop, self._signal = True, number

    def _loop(self, tracker: Tracker) -> None:
        """Alternates rollouts and updates until all steps are done."""
        options = self.options
        save_every = options.checkpoint_every or max(options.total_steps // 10, 1)
        figures: dict[str, str | Mapping[str, str]] = {}
        if self.evaluator.teacher_returns:
            returns = self.evaluator.teacher_returns.items()
            figures["teacher"] = {name: format_return(found) for name, found in returns}
        began, first_step = time.monotonic(), self.env_steps
        before = self.wall_seconds
        self._in_loop = True
        with self.evaluator.progress() as progress:
            while self.env_steps < options.total_steps and not self._stops_early:
                last_step = self.env_steps
                metrics = self.iterate()
                self._advice.see(metrics)
                self.wall_seconds = before + time.monotonic() - began
                evaluated = {}
                if self.evaluator.is_due(last_step, self.env_steps):
                    evaluated = self.evaluator.evaluate(progress, tracker, self.env_steps)
                with io_errors_as_input_errors(self.run_dir):
                    tracker.scalars({**metrics, **evaluated}, self.env_steps)
                # Without finished episodes in this rollout, no older training return is shown.
                figures.pop(TRAINING_RETURN, None)
                figures.update(live_figures({**metrics, **evaluated}))
                speed = (self.env_steps - first_step) / (time.monotonic() - began)
                progress.show(self.env_steps, speed, figures)
                self._call("rollout", metrics)
                if evaluated:
                    self._call("evaluation", evaluated)
                ended = self.env_steps >= options.total_steps or self._stops_early
                stops = distributed.any_of(self._stop)
                if ended or stops or passed(last_step, self.env_steps, save_every):
                    self.save()
                    self._call("checkpoint")
                if stops:
                    raise InterruptedRunError(self.name, self.run_dir, self._signal)
        self._in_loop = False
        if self.evaluator.reached is not None:
            self._say(f"keeps {options.until:.0%} of the teacher's return at step {self.env_steps}")
        elif self.callbacks.stopped and self.env_steps < options.total_steps:
            self._say(f"was stopped by a callback at step {self.env_steps}")
            if not self._is_saved():  # it was stopped before its first rollout
                self.save()
        if self._stop:
            # The signal arrived during the last checkpoint.
            raise InterruptedRunError(self.name, self.run_dir, self._signal)

    @property
    def _stops_early(self) -> bool:
        """Whether a callback stopped the run, or the student is as good as it must be."""
        return self.callbacks.stopped or self.evaluator.reached is not None

    def iterate(self) -> dict[str, float]:
        """Collects one rollout, learns from it, and returns the metrics to log."""
        began = time.perf_counter()
        progress = self.env_steps / self.options.total_steps
        self.agent.begin_rollout(progress)
        self.trainable.begin_rollout(progress)
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
        metrics["speed/collect_fraction"] = (collected - began) / seconds
        # On CUDA, these seconds would only measure the launch of the work.
        if self.agent.teacher_seconds and self.device.type == "cpu":
            metrics["speed/teacher_fraction"] = self.agent.teacher_seconds / seconds
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
            raise EnvironmentFailureError(
                f"The task {task.id!r} returned {what} that is not finite, at step {step} of its "
                f"environment {row % self.method.num_envs}: the environment is at fault."
            )

    def _failed(self, failure: EnvironmentFailureError) -> EnvironmentFailureError:
        """Saves what was learned before an environment failed; the error says how to resume."""
        sentence = str(failure).rstrip(".")
        if distributed.world_size() > 1:
            return failure  # the other processes do not know of it
        if failure.trace:
            path = self.run_dir / TRACEBACK
            with io_errors_as_input_errors(self.run_dir):
                atomic.write_text_whole(path, failure.trace)
            sentence += f"; its traceback is in {path}"
        if self.env_steps and not self._is_saved():
            self.save(new_episodes=True)
        sentence += f"; then resume with `rltransfer train {self.name} --resume {self.run_dir}`"
        return EnvironmentFailureError(f"{sentence} (from step {self.env_steps}).", failure.trace)

    def _call(self, kind: Kind, metrics: Mapping[str, float] | None = None) -> None:
        """Calls the callbacks; after an error in one, saves what was learned and raises it."""
        try:
            self.callbacks(kind, self.env_steps, metrics or {}, self.agent.policy, self.run_dir)
        except (Exception, SystemExit) as error:
            if distributed.world_size() == 1:  # other processes do not know of it
                if self.env_steps and not self._is_saved():
                    self.save()
                error.add_note(
                    f"In a callback of {self.run_dir}, which resumes from step {self.env_steps} "
                    "with train(..., resume=True)."
                )
            raise

    def _is_saved(self) -> bool:
        """Whether there is a checkpoint of this step."""
        return checkpoint.checkpoint_folder(self.run_dir, self.env_steps).exists()

    def save(self, new_episodes: bool = False) -> None:
        """Writes a checkpoint; the environments run on as if there were none.

        Args:
            new_episodes: Whether all begin new episodes when the run resumes. Then they are not
                asked for their states.
        """
        engine = self.engine.new_episodes() if new_episodes else self.engine.state_dict()
        state = {
            GENERATORS: global_state(),
            "env_steps": self.env_steps,
            "wall_seconds": self.wall_seconds,
            EVALUATE_FROM: self.evaluator.next_step,
            "agent": self.agent.state_dict(),
            "source": self.trainable.state_dict(),
            "ewc": self.consolidation.state_dict(),
            "engine": engine,
        }
        target = checkpoint.checkpoint_folder(self.run_dir, self.env_steps)
        with io_errors_as_input_errors(self.run_dir):
            with atomic.written_together(target) as folder:
                if distributed.rank() == 0:
                    save_policy(self.agent.policy, folder / "policy")
                checkpoint.save_state(folder, state)
                distributed.wait()
                if distributed.rank() == 0:
                    checkpoint.write_hashes(folder)
            if distributed.rank() == 0:
                checkpoint.remove_old(self.run_dir, target)

    def _finish(self, tracker: Tracker) -> None:
        """Evaluates policy, teacher and random policy, and writes `result.json`."""
        options, agent = self.options, self.agent
        found = self.evaluator.evaluate_finally() if options.episodes else {}
        # JSON has no infinity, the interval of a single episode.
        tasks = {
            task: {name: None if math.isinf(value) else value for name, value in figures.items()}
            for task, figures in found.items()
        }
        teacher_figures = agent.teacher.figures() if agent.teacher else {}
        best = self.evaluator.best
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
            **({"reached": self.evaluator.reached} if options.until else {}),
            "best": None if best is None else dataclasses.asdict(best),
            "final_evaluation": bool(found),
            "tasks": tasks,
        }
        advice = self._advice.sentence(found, agent.student_acts)
        if advice and self.env_steps:
            self._say(advice)
        final = final_curves(found)
        if distributed.rank() == 0:
            write_json(self.run_dir / "result.json", self.result)
            with io_errors_as_input_errors(self.run_dir):
                tracker.scalars(final, self.env_steps)
                tracker.finished()
        self._call("end", final)

    def _print_groups(self) -> None:
        """Says which observation groups the policy reads if there are others."""
        shown = list(self.context.spaces.observation_space.spaces)
        reads = self.agent.policy.spec.network.groups
        unread = [name for name in shown if name not in reads]
        if unread:
            print_line(
                f"{self._title}  reads the observation group {', '.join(map(repr, reads))}, not "
                f"{', '.join(map(repr, unread))}: to read all, pass --groups {' '.join(shown)}",
                self.quiet or distributed.rank() > 0,
            )

    def _print_normalising(self) -> None:
        for env, task in ((one.env, one.task) for one in self.engine.env_slices):
            sentence = describe_normalising(env, self.suite.tasks[task].id)
            if sentence and distributed.rank() == 0:
                print_line(sentence)

    @property
    def _hides_progress(self) -> bool:
        return self.quiet or distributed.rank() > 0


def on_device(engine: RolloutEngine) -> bool:
    """Whether all environments are simulated on the device."""
    return not any(env_slice.env.on_host for env_slice in engine.env_slices)


def scales_actions(run_dir: Path) -> bool:
    """Whether policies of a run output actions in [-1, 1]: all but those of earlier versions."""
    stored = os.path.isfile(run_dir / "config.json")  # False where it may not be read
    return not stored or SCALED_ACTIONS in read_config(run_dir)


def _frame_stack(envs: Sequence[VectorEnv]) -> int:
    """The number of frames stacked in the observations of all environments; 0 if they differ."""
    found = set()
    for env in envs:
        groups = grouped(env.single_observation_space).spaces.values()
        images = [group.shape for group in groups if group.shape and len(group.shape) == 3]
        stacks = any(image[0] == env.frame_stack for image in images)
        found.add(env.frame_stack if stacks else 0)
    return found.pop() if len(found) == 1 else 0
