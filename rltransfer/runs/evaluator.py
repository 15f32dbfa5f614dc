"""The evaluations of a run: of its teacher at the start, while it trains, and at its end."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rltransfer.learning.agent import Agent, TrainingContext
from rltransfer.machine import distributed
from rltransfer.machine.terminal import print_line
from rltransfer.rollouts.engine import RolloutEngine
from rltransfer.rollouts.evaluation import Evaluation, evaluate_policy
from rltransfer.runs.best import Best, load_best, save_best, score
from rltransfer.runs.config import RunOptions
from rltransfer.runs.descriptions import EVALUATE_RETURN, EVALUATE_RETURNS
from rltransfer.runs.evaluation_progress import EvaluationProgress
from rltransfer.runs.folder import io_errors_as_input_errors
from rltransfer.runs.progress import Progress
from rltransfer.runs.reaching import Evaluations, confirmed
from rltransfer.runs.reference_lines import random_episodes, reference_lines
from rltransfer.runs.result import final_evaluation
from rltransfer.runs.teacher_check import evaluate_agent_teacher, means, teacher_check
from rltransfer.runs.tensorboard import Tracker

SEED_STEP = 1_000_003
"""Between the seeds of further episodes."""
EVALUATIONS, EVALUATION_FRACTION = 10, 0.1
"""Number of evaluations, and their steps relative to those of training at most, unless
--evaluate-every is set."""
EVALUATIONS_UNTIL, EVALUATION_FRACTION_UNTIL = 100, 0.5
"""The same with --until, where each may end the run."""


class Evaluator:
    """Plays episodes beside training.

    Args:
        agent: The agent in training.
        context: What it trains on.
        engine: Training's environments, closed where others cannot be made alongside them.
        options: The run's options.
        run_dir: Its folder; the best policy so far is saved there.
        title: Names the run in the terminal.
        quiet: Whether to hide the progress.
    """

    def __init__(
        self,
        agent: Agent,
        context: TrainingContext,
        engine: RolloutEngine,
        options: RunOptions,
        run_dir: Path,
        title: str,
        quiet: bool,
    ) -> None:
        self.agent, self.context, self.engine = agent, context, engine
        self.options, self.run_dir = options, run_dir
        self.title, self.quiet = title, quiet
        self.teacher_returns: dict[str, Evaluation] = {}
        self.random_returns: dict[str, Evaluation] = {}
        self.reference_lines: dict[str, float] = {}
        self.best: Best | None = None
        self.next_step = 0
        """The step of the next evaluation at the earliest, where options do not set it."""
        self.reached: int | None = None
        """The step at which the student was as good as `until` asks for."""
        self._in_turn = False

    def progress(self) -> Progress:
        """Where the progress of the run is shown."""
        return Progress(self.title, self.options.total_steps, self.quiet)

    def load_best(self) -> None:
        """Restores the best policy's step and returns from the run's folder."""
        self.best = load_best(self.run_dir, quiet=self.quiet)

    def check_teacher(self) -> None:
        """Evaluates the teacher, and warns if it is not better than a random policy."""
        if self.agent.teacher is not None:
            for note in self.agent.teacher.notes():
                print_line(note, self.quiet)
        seed, episodes = self.options.seed + 3, self.options.evaluate_episodes
        with self.progress() as progress, self._making_room(progress, same_episodes=True) as how:
            found = teacher_check(self.agent, self.context, seed, self.options.total_steps, **how)
            self.teacher_returns, self.random_returns, sentences = found
            if self.agent.teacher is None:
                self.random_returns = random_episodes(
                    self.context, episodes, seed, self.context.on_device, **how
                )
        self.reference_lines = reference_lines(self.teacher_returns, self.random_returns)
        if distributed.rank() == 0:
            for sentence in sentences:
                print_line(sentence)

    def is_due(self, before: int, now: int) -> bool:
        """Whether to evaluate after a rollout.

        Args:
            before: The step at which it began.
            now: The step at which it ended.
        """
        options = self.options
        if not options.evaluate_episodes:
            return False
        number = EVALUATIONS_UNTIL if options.until else EVALUATIONS
        every = options.evaluate_every or max(options.total_steps // number, 1)
        due = passed(before, now, every)
        if options.evaluate_every:
            return due
        return now >= options.total_steps or (due and now >= self.next_step)

    def evaluate(self, progress: Progress, tracker: Tracker, step: int) -> dict[str, float]:
        """Plays some episodes in training, and keeps the policy if it is the best so far.

        Args:
            progress: Where the progress is shown.
            tracker: Where the returns are logged.
            step: Environment steps so far.

        Returns:
            Curves: the return of each task, and those to compare them with.
        """
        self.agent.policy.eval()
        with self._making_room(progress) as how:
            found = evaluate_policy(
                self.agent.policy, self.engine.suite, self.options.evaluate_episodes,
                seed=self.options.seed + 1, device=self.context.device, **how,
            )  # fmt: skip
            self._keep_best(means(found), step)
            if self.options.until and self._is_there(found, step, how):
                self.reached = step
        self.agent.policy.train()
        played = sum(sum(one.lengths) for one in found.values())
        fraction = EVALUATION_FRACTION_UNTIL if self.options.until else EVALUATION_FRACTION
        self.next_step = step + round(played / fraction)
        returns = {f"{EVALUATE_RETURNS}/{task}": one.returns for task, one in found.items()}
        with io_errors_as_input_errors(self.run_dir):
            tracker.histograms(returns, step)
        curves = {f"{EVALUATE_RETURN}/{task}": one.mean for task, one in found.items()}
        return {**self.reference_lines, **curves}

    def _is_there(self, found: Evaluations, step: int, how: Mapping[str, Any]) -> bool:
        """Whether the policy surely keeps `until` of its teacher's return; see `reaching.py`."""
        seed, device = self.options.seed + 1, self.context.device

        def play(episodes: int, batch: int) -> tuple[Evaluations, Evaluations]:
            more = {"seed": seed + (batch + 1) * SEED_STEP + step, "device": device, **how}
            student = evaluate_policy(self.agent.policy, self.engine.suite, episodes, **more)
            return student, evaluate_agent_teacher(self.agent, self.context, episodes, **more)

        is_there, teacher = confirmed(
            found, self.teacher_returns, self.random_returns, self.options.until, play
        )
        self.teacher_returns = dict(teacher)
        return is_there

    def _keep_best(self, returns: dict[str, float], step: int) -> None:
        """Saves the policy if no earlier evaluation has a score as high as its own."""
        if distributed.rank() > 0:
            return
        references = means(self.teacher_returns), means(self.random_returns)
        scored = score(returns, *references)
        if not math.isfinite(scored):
            return
        if self.best is None or scored > score(self.best.returns, *references):
            self.best = Best(step, returns)
            with io_errors_as_input_errors(self.run_dir):
                save_best(self.run_dir, self.agent.policy, self.best)

    def evaluate_finally(self) -> dict[str, dict[str, float]]:
        """Plays the options' episodes with the policy, the teacher and a random policy."""
        options = self.options
        policies = "policy, teacher and random" if self.agent.teacher else "policy and random"
        print_line(
            f"{self.title}  evaluating {policies} policy, {options.episodes} episodes per task, "
            f"each of at most {options.max_episode_steps:,} steps",
            self.quiet,
        )
        with self.progress() as progress, self._making_room(progress, trains_on=False) as how:
            return final_evaluation(
                self.agent, self.context, options.episodes, options.seed + 2, **how
            )

    @contextlib.contextmanager
    def _making_room(
        self, progress: Progress, *, trains_on: bool = True, same_episodes: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Yields further arguments of an evaluation.

        Environments that cannot exist twice: those of training are closed first, and made again.

        Args:
            progress: Where the progress is shown.
            trains_on: Whether training's environments are needed afterwards.
            same_episodes: Whether they then begin with the same episodes, as none was trained on.
        """
        options = self.options
        if self._in_turn or not trains_on:
            self.engine.close()
        yield {
            "num_envs": options.evaluate_num_envs or self._default_num_envs(),
            "max_steps": options.max_episode_steps,
            "watcher": EvaluationProgress(
                progress, options.max_episode_steps, self._make_room if trains_on else None
            ),
        }
        if self._in_turn and trains_on:
            self.engine.reopen(same_episodes=same_episodes)

    def _default_num_envs(self) -> int:
        """Environments on the device cost little; others may be few, e.g. robots or licences."""
        return 64 if self.context.on_device else min(self.engine.num_envs, 64)

    def _make_room(self, error: Exception) -> None:
        """Closes training's environments, as others cannot be made while they exist."""
        if self._in_turn:
            raise error
        self._in_turn = True
        self.engine.close()
        reason = str(error).rstrip(".")
        print_line(
            f"{self.title}  environments for evaluation cannot be made alongside those of "
            f"training ({reason}): training closes its own before each evaluation, and begins new "
            "episodes afterwards"
        )


def passed(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` is in (before, now]."""
    return every > 0 and now // every > before // every
