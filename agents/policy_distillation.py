"""Policy distillation: a student learns to act like a teacher.

For each rollout (Rusu 2015, section 3 and appendix A):

    1. act: the teacher with probability `teacher_acts`, otherwise the student; greedily, except for
       a fraction of `exploration` as in the paper; with RL the student samples;
    2. the teacher labels each observation once; observation and label are stored in the memory;
    3. draw minibatches from the memory (with RL or a recurrent student: from the rollout) and take
       steps of the student down `distillation_weight` * objective(teacher, student), one of
       MSE  sum_a (q_T - q_S)^2                                       (eq. 1)
       NLL  -log pi_S(argmax_a q_T)                                   (eq. 2)
       KL   KL(softmax(q_T / temperature) || softmax(q_S))            (eq. 3)
       or a weighted sum with the other terms of `objectives/`, plus `reinforcement_weight` * the
       clipped surrogate of `ppo.py`.

Three schedules turn this method into related ones:

    method                       teacher_acts  distillation_weight  reinforcement_weight
    policy distillation          1             1                    0
    the same, the student acts   0             1                    0
    DAgger (Ross 2011)           1->0          1                    0
    kickstarting (Schmitt 2018)  0             1->0, or lag         1
    plain RL                     0             0                    1

Differs from the paper:

- Adam instead of RMSProp; losses are means over the batch;
- collecting and learning alternate every `rollout_length` steps instead of every hour of play;
- several tasks are stepped together, and a minibatch mixes them instead of being of one game;
- per-task heads are one layer each, without the paper's hidden layer.

Logs: each objective term by its name; `METRICS`; with RL, the metrics of `ppo.py`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError, check_range
from rltransfer.files.serialization import to_json
from rltransfer.learning.action_spread import ActionSpread
from rltransfer.learning.agent import Agent, GradientMethod, TrainingContext
from rltransfer.learning.distillation_recipe import AUTO, learner_settings, recipe, stored_choices
from rltransfer.learning.exploration import epsilon_greedy
from rltransfer.learning.learner import Loss
from rltransfer.learning.memory_size import check_memory_size
from rltransfer.learning.minibatches import Batch, minibatches
from rltransfer.learning.replay_memory import ReplayMemory
from rltransfer.learning.return_gap import ReturnGap
from rltransfer.learning.student_network import (
    check_size,
    like_teacher,
    names_no_layers,
    with_layer_norm,
    with_size,
)
from rltransfer.objectives.objective import FittedObjective, Objective
from rltransfer.options import normalize
from rltransfer.policies.network import ActivationName, Network
from rltransfer.policies.output import LABELS, MASKED, PolicyOutput
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.policies.scores import is_masked
from rltransfer.rollouts.rollout import Rollout
from rltransfer.schedule import Schedule
from rltransfer.tasks.action import action_size, center_and_half_range
from rltransfer.tasks.families import family_of
from rltransfer.tasks.making import overlaps
from rltransfer.tasks.observation import Observation
from rltransfer.tasks.task import Suite
from rltransfer.teachers.labeller import Labeller
from rltransfer.teachers.loading import load_teacher
from rltransfer.teachers.teacher import Teacher

from . import ppo
from .ppo import Surrogate, sample, sequence_fields

METRICS = {
    "teacher_acts": "Probability that the teacher acts, 0 to 1.",
    "lag": "(teacher - student) / (teacher - random) of the training returns, mean over the tasks: "
    "0 for a student as good as its teacher. 1 until the student acts alone.",
    "agreement": "Fraction of observations, 0 to 1, on which student and teacher have the same "
    "greedy action, in the first minibatch after a rollout.",
    "action_error": "Mean absolute difference of the greedy actions of student and teacher, in "
    "units of the actions, in the first minibatch after a rollout.",
    "student_entropy": "Mean entropy of the student, in nats, in the first minibatch after a "
    "rollout.",
    "teacher_entropy": "Mean entropy of the teacher, in nats, in the first minibatch after a "
    "rollout.",
}
"""What policy distillation logs besides the terms of the objective."""
LAG = "lag"
"""The weight that follows the return gap between student and teacher."""
MIN_TASK_WEIGHT = 0.05
"""Minimum sampling weight of a task, so that none is forgotten."""


@dataclass(frozen=True, kw_only=True)
class PolicyDistillation(GradientMethod):
    """Policy distillation, DAgger and kickstarting: one mechanism with three schedules.

    Source: Rusu 2015 (arXiv 1511.06295).
    """

    earlier: ClassVar[Mapping[str, Any]] = {"size": "", "rescale_actions": False}
    layers_of_teacher: ClassVar[bool] = True
    """Whether a student that names no layers has its teacher's."""

    teacher: str | Teacher
    """A run directory; a file (Stable-Baselines3 zip, TorchScript, ONNX, tensors of rsl_rl, skrl,
    rl_games or CleanRL, any state_dict; also "hf:REPO/FILE"); "zoo" for the installed teacher of
    each task; or a composition of these, e.g. "Ensemble('a.zip', 'runs/b')"."""
    vecnormalize: Path | None = None
    """Observation statistics (a VecNormalize pickle) of a Stable-Baselines3 zip, or "none". By
    default, those next to the zip are used, as rl-zoo stores them."""
    rescale_actions: bool = False
    """Scale the teacher's continuous actions from its bounds to the task's, which are else refused
    if they differ."""
    student: Network = Network()
    """The student's network. Unless it names layers, they are the teacher's where these are known;
    `width` is then a factor on the teacher's."""
    size: str = ""
    """The student's size: its width is chosen so that it has about this percentage of the teacher's
    parameters, e.g. "25%"."""
    objective: str | Objective = AUTO
    """"kl", "nll", "mse", or a weighted sum, e.g. "KL(temperature=0.01) + 0.5 * MSE()". Terms: KL,
    ReverseKL, JS, NLL, MSE, Huber, FeatureRegression, AttentionTransfer, RepresentationalDistance,
    JacobianMatching. Weights may follow a schedule, "'1->0@0.5' * MSE()", or differ per task,
    "KL(weights={'CartPole-v1': 2})". "auto": KL, or MSE for continuous actions without a Gaussian.
    """
    teacher_acts: str | float | Schedule = AUTO
    """Probability that the teacher acts: a number, or a schedule such as "1->0@0.5". "auto":
    1->0@0.2, and 0 with RL."""
    distillation_weight: str | float | Schedule = 1.0
    """Weight of the objective: a number, a schedule, or "lag". "lag" weights each task by
    (teacher - student) / (teacher - random) of the returns. The student must then act alone at some
    point: set --teacher-acts to 0, or to a schedule that is 0 before the run ends."""
    reinforcement_weight: str | float | Schedule = 0.0
    """Weight of the RL objective (PPO): a number or a schedule."""
    exploration: float = 0.01
    """Probability of a random action; for continuous actions, standard deviation of the noise, in
    standard deviations of the teacher's actions, at most half-ranges. Has no effect with RL."""
    task_sampling: Literal["uniform", "lag"] = "uniform"
    """`uniform`: sample tasks equally. `lag`: sample a task more the further the student trails its
    teacher (the student must act; see --distillation-weight)."""
    memory_steps: int = 200_000
    """Capacity of the replay buffer, in steps; has no effect with RL or a recurrent student."""
    memory_dir: Path | None = None
    """Folder of a memory-mapped replay buffer; None keeps it in RAM."""
    epochs: float = 0.0
    """Average number of times that each step is learned from; an integer with RL or a recurrent
    student. 0 means 16, 8 where environments are simulated on the device, and 4 with RL or a
    recurrent student."""
    rollout_length: int = 0
    """Steps per environment between two updates. 0 means 128 with RL or a recurrent student, which
    learn from whole rollouts; otherwise as few as make some 1,000 steps of a task, from 16 to 128.
    """
    batch_size: int = 0
    """Samples per minibatch. 0 means 1,024, or 512 with RL or a recurrent student."""
    learning_rate: float = 0.0
    """Initial step size of the optimizer; decays linearly to zero over the run. 0 means 2e-3 for
    every 256 samples of a minibatch, at most 8e-3; with RL or a recurrent student 2e-3."""
    surrogate: Surrogate = Surrogate()
    """The RL objective; used if --reinforcement-weight is above 0."""

    def __post_init__(self) -> None:
        normalize(self)
        self._set_defaults()
        super().__post_init__()
        if self.objective != AUTO:
            self.parsed_objective  # noqa: B018 - an objective that cannot be read is refused here
        check_size(self.size, self.student)
        for name, schedule in self.schedules.items():
            schedule.check(name, "from 0 to 1" if name == "teacher_acts" else "at least 0")
        check_range(self, "from 0 to 1", "exploration")
        check_range(self, "at least 1", "memory_steps")
        check_range(self, "finite and at least 0", "epochs")
        check_range(self, "at most 10,000", "epochs")
        if not self.remembers:
            self._check_without_memory()
        self._check_learning()
        self._check_lag()

    @functools.cached_property
    def parsed_objective(self) -> Objective:
        """The objective; the field keeps what the user wrote, as `config.json` does."""
        return Objective.of(self.objective)

    @functools.cached_property
    def schedules(self) -> dict[str, Schedule]:
        """The numbers over time by their names, but for "lag" and "auto"."""
        values = {
            "teacher_acts": self.teacher_acts,
            "distillation_weight": self.distillation_weight,
            "reinforcement_weight": self.reinforcement_weight,
        }
        if self.distillation_weight == LAG:
            del values["distillation_weight"]
        if self.teacher_acts == AUTO:
            del values["teacher_acts"]
        return {name: Schedule.of(value) for name, value in values.items()}

    @property
    def reinforces(self) -> bool:
        """Whether the student learns with RL too."""
        return not self.schedules["reinforcement_weight"].is_zero

    @property
    def remembers(self) -> bool:
        """Whether it uses a memory; on-policy steps and sequences are learned once, without one."""
        return not self.reinforces and not self.student.gru

    def _set_defaults(self) -> None:
        """Sets the options that are 0 and follow from the others."""
        check_range(self, "at least 0", "rollout_length", "batch_size")
        found = learner_settings(self.num_envs, self.batch_size, remembers=self.remembers)
        for name, value in found.items():
            if getattr(self, name) == 0:
                object.__setattr__(self, name, value)

    def default_activation(self, network: Network) -> ActivationName:
        """That of the teacher, which is not known yet, where the layers are the teacher's."""
        return "auto" if self.layers_of_teacher and names_no_layers(network) else "relu"

    def default_steps(self, suite: Suite) -> int:
        """Fewer where environments run on the host, as each of their steps is learned from more."""
        on_device = all(family_of(task) is not None and not overlaps(task) for task in suite)
        return super().default_steps(suite) if on_device or self.reinforces else 200_000

    def _check_learning(self) -> None:
        """Checks that something is learned, and that the student acts if RL needs it."""
        reinforces, acts = self.reinforces, self.schedules.get("teacher_acts")
        weight = self.schedules.get("distillation_weight")
        distils = weight is None or not weight.is_zero
        if not reinforces and not distils:
            raise InputError(
                "distillation_weight and reinforcement_weight are both 0, so nothing is learned: "
                "set one above 0."
            )
        if reinforces and acts is not None and acts.start == acts.end == 1:
            raise InputError(
                f"reinforcement_weight is {self.reinforcement_weight}, but teacher_acts is 1, so "
                "the student never acts and cannot learn with RL: set teacher_acts to 0."
            )
        if not reinforces and self.surrogate != Surrogate():
            raise InputError(
                "The surrogate's options, e.g. gamma, apply to RL only, but reinforcement_weight "
                "is 0: leave them out, or set reinforcement_weight."
            )

    def _check_without_memory(self) -> None:
        """Checks that no option needs the memory that is not used."""
        why = "RL and students with a GRU learn from whole rollouts"
        if self.epochs != int(self.epochs):
            raise InputError(f"epochs is {self.epochs}, but {why}: it must be a whole number.")
        requested = {"task_sampling": self.task_sampling == LAG, "memory_dir": self.memory_dir}
        for name in (name for name, given in requested.items() if given):
            raise InputError(
                f"{name} is {getattr(self, name)}, but {why}, without a memory: leave it out."
            )

    @property
    def uses_lag(self) -> bool:
        """Whether any option follows the return gap."""
        return LAG in (self.distillation_weight, self.task_sampling)

    def _check_lag(self) -> None:
        """Checks that the student acts alone at some point, if the return gap is needed."""
        acts = self.schedules.get("teacher_acts")
        if acts is None:
            return
        if self.uses_lag and not acts.is_zero and (acts.end > 0 or acts.until == 1):
            raise InputError(
                f"teacher_acts is {acts}, so the student never acts alone and its lag is unknown: "
                'use 0, or a schedule that reaches 0 early, such as "1->0@0.2".'
            )

    def build(self, context: TrainingContext) -> PolicyDistillationAgent:
        """Builds the agent."""
        teacher = load_teacher(
            self.teacher, self.vecnormalize, context.suite, rescale_actions=self.rescale_actions
        )
        teacher = teacher.fitted(context.spaces).to(context.device)
        teacher.seed(context.seed)
        blank = teacher.label_state()
        chosen = self._choices(teacher, context)
        if context.resumed is not None:
            # As it was chosen; runs of earlier versions have the layers that they named.
            chosen.pop("student", None)
            chosen |= stored_choices(context.resumed)
        read: dict[str, Any] = dict(self.schedules)  # what was read from text is not read again
        if self.objective != AUTO:
            read["objective"] = self.parsed_objective
        agent = replace(self, **{**read, **chosen, "size": ""})._build(teacher, context)
        # These labels are not part of the run: a vote must not count them.
        teacher.load_label_state(blank)
        agent.chosen = to_json(chosen)
        return agent

    def _choices(self, teacher: Teacher, context: TrainingContext) -> dict[str, Any]:
        """The settings that were left to the teacher."""
        mask = context.spaces.mask_tensor(context.device)
        task = torch.arange(len(context.suite), device=context.device)
        labeller = Labeller(teacher, (), self.student.groups, mask)
        label = labeller(context.spaces.first_observations(context.device), task)
        found = recipe(
            label, on_device=context.on_device, reinforces=self.reinforces,
            remembers=self.remembers,
        )  # fmt: skip
        left = {"objective": AUTO, "teacher_acts": AUTO, "epochs": 0}
        chosen = {name: found[name] for name, auto in left.items() if getattr(self, name) == auto}
        student = self.student
        if self.layers_of_teacher and names_no_layers(student):
            student = like_teacher(student, teacher)
            if self.size or self.student.width != 1:  # else it is its teacher's twin
                student = with_layer_norm(student, context.spaces.observation_space)
        if self.size:
            spec = PolicySpec.of_suite(student, context.spaces, value=self.reinforces)
            student = with_size(spec, self.size, teacher)
        return chosen if student == self.student else {**chosen, "student": student}

    def _build(self, teacher: Teacher, context: TrainingContext) -> PolicyDistillationAgent:
        """Builds the agent, where no setting is left to the teacher."""
        objective = self.parsed_objective
        mask = context.spaces.mask_tensor(context.device)
        labeller = Labeller(teacher, objective.needs, self.student.groups, mask)
        seen = context.spaces.first_observations(context.device)
        task = torch.arange(len(context.suite), device=context.device)
        label = labeller(seen, task)
        # An objective on the errors of Q-values makes the student a Q-network too.
        q_values = objective.learns_values and label.q_values is not None
        if q_values and self.reinforces:
            raise InputError(
                f"{objective} on the Q-values of {teacher.source} trains a Q-network, but RL needs "
                "a policy: use KL or NLL."
            )
        spec = PolicySpec.of_suite(
            self.student, context.spaces, q_values=q_values, value=self.reinforces
        )
        student = Policy(spec).to(context.device)
        if student.state_size and "jacobian" in objective.needs:
            raise InputError(
                "JacobianMatching needs gradients by single observations, but the student is "
                "recurrent: use a student without --gru."
            )
        output = labeller.student_output(
            lambda seen: student(seen, task, needs=labeller.needs), seen, label
        )
        fitted = objective.fitted(output, label, context.suite.names()).to(context.device)
        # Evaluated once before the run, so that a teacher without the needed outputs is refused.
        fitted.eval()(output, label, task)
        fitted.train()
        example = seen, {"label": label.tensors(), "task": task}
        return PolicyDistillationAgent(self, fitted, teacher, labeller, student, example, context)


class PolicyDistillationAgent(Agent):
    """Labels observations with the teacher, and trains the student on the labels."""

    teacher: Teacher

    def __init__(
        self,
        method: PolicyDistillation,
        objective: FittedObjective,
        teacher: Teacher,
        labeller: Labeller,
        student: Policy,
        example: tuple[Observation, Batch],
        context: TrainingContext,
    ) -> None:
        """Creates the agent of a method.

        Args:
            method: The method.
            objective: Fitted to student and teacher.
            teacher: Fitted to the tasks.
            labeller: Labels with the teacher.
            student: The policy that learns.
            example: The observation and the stored fields of a step.    (num_tasks, ...) each
            context: The tasks, seed and device.
        """
        learner = method.learner(nn.ModuleDict({"student": student, "objective": objective}))
        super().__init__(student, learner, context)
        self.method = method
        self.objective = objective
        self.teacher = teacher
        self.labeller = labeller
        self.example = example
        self.teacher_acts = method.schedules["teacher_acts"]
        self.distillation_weight = method.schedules.get("distillation_weight")
        self.lag = ReturnGap(len(context.suite), context.device)
        self.needs_reference_returns = method.uses_lag
        self.tasks = context.suite.names()
        self.reinforcement_weight = method.schedules["reinforcement_weight"]
        self.reinforces = method.reinforces
        self.action_space = context.spaces.action_space
        self.num_actions = context.spaces.num_actions(context.device)
        actions = [one.action for one in context.spaces.own]
        self.total_steps = 0
        self.spread: ActionSpread | None = None
        if isinstance(self.action_space, spaces.Box):
            self.spread = ActionSpread(_half_ranges(actions, context.device))
        self.teacher_probability = torch.zeros((), device=context.device)
        self.log_agreement = True
        # Sequences and on-policy steps are learned at once; only single steps are stored.
        self.memory: ReplayMemory | None = None
        if method.remembers:
            steps_at_once = method.num_envs * len(context.suite) * method.rollout_length
            self.memory = ReplayMemory(
                max(method.memory_steps, steps_at_once),
                context.num_rows,
                context.device,
                context.frame_stack,
                None if method.memory_dir is None else Path(method.memory_dir),
            )

    def check_size(self, total_steps: int, run_dir: Path) -> Sequence[str]:
        """Checks the size of the replay memory, and stores the length of the run."""
        self.total_steps = total_steps
        if self.memory is None:
            return ()
        sentence = check_memory_size(self.memory, *self.example, total_steps, run_dir)
        return (sentence,) if sentence else ()

    def set_reference_returns(
        self, teacher: Mapping[str, float], random: Mapping[str, float]
    ) -> None:
        """Stores the returns that the lag is relative to."""
        self.lag.set_reference_returns(
            *([returns[name] for name in self.tasks] for returns in (teacher, random))
        )

    @property
    def student_acts(self) -> bool:
        """Whether the teacher does not act all the time."""
        return not self.teacher_acts.start == self.teacher_acts.end == 1

    @property
    def graph_key(self) -> tuple[bool, bool]:
        """Whether the teacher acts at times, and whether it always acts."""
        probability = self.teacher_acts(self.progress)
        return probability > 0, probability >= 1

    def begin_rollout(self, progress: float) -> None:
        """Sets the probability that the teacher acts."""
        super().begin_rollout(progress)
        self.teacher_probability.fill_(self.teacher_acts(progress))

    def act(self, observation: Observation, task: Tensor, state: Tensor, start: Tensor) -> Batch:
        """Labels the observations, and chooses actions of teacher or student."""
        began = time.perf_counter()
        self.teacher.begin_step(start, task)
        label = self.labeller(observation, task)
        self.teacher_seconds += time.perf_counter() - began
        step: Batch = {"label": label.tensors()}
        at_times, always = self.graph_key
        if not always or self.state_size or self.reinforces:
            step.update(self._student_step(observation, task, state, start))
            if at_times:
                drawn = torch.rand(task.shape, generator=self.generator, device=task.device)
                turn = drawn < self.teacher_probability
                self._mix(step, label.greedy(), turn)
        else:
            step["action"] = label.greedy()
        if self.method.exploration and not self.reinforces:
            step["action"] = self._explore(step["action"], task)
        return step

    def _student_step(
        self, observation: Observation, task: Tensor, state: Tensor, start: Tensor
    ) -> dict[str, Tensor]:
        """The student's action, with the fields that learning from it needs."""
        if self.reinforces:
            step = sample(self.policy, observation, task, state, start, self.generator)
            return {**step, "weight": torch.ones_like(step["log_prob"])}
        output: PolicyOutput = self.policy(observation, task, state, start)
        step = {"action": output.greedy()}
        if output.state is not None and self.state_size:
            step["state"] = output.state
        return step

    def _mix(self, step: Batch, teacher_action: Tensor, turn: Tensor) -> None:
        """Replaces the student's actions by the teacher's in the rows of its turn."""
        rows = turn if teacher_action.dim() == 1 else turn.unsqueeze(-1)
        step["action"] = torch.where(rows, teacher_action, step["action"])
        if self.reinforces:
            # The teacher's actions do not train the student's policy.
            step["weight"] = step["weight"].masked_fill(turn, 0.0)

    def _explore(self, action: Tensor, task: Tensor) -> Tensor:
        """Replaces some actions by random ones, or adds noise."""
        epsilon = self.method.exploration
        if self.spread is None:
            return epsilon_greedy(action, self.num_actions[task], epsilon, self.generator)
        noise = torch.empty_like(action).normal_(generator=self.generator)
        return action + epsilon * self.spread.noise[task] * noise

    def batches(self, rollout: Rollout) -> Iterator[Batch]:
        """Minibatches of the replay buffer, or of the rollout where none is used."""
        self.log_agreement = True
        if self.teacher_acts(self.progress) == 0:
            # While the teacher acts at times, the returns are not the student's.
            assert rollout.episode_return is not None
            self.lag.update(rollout.episode_return, rollout.done)
        label = rollout.extras["label"]
        self._check_label(label)
        new_steps = rollout.num_steps
        if self.spread is not None:
            new_steps = self._measure_actions(self.spread, PolicyOutput(**label).greedy())
        if self.memory is not None:
            fields = {"label": label, "task": rollout.task}
            self.memory.add(rollout.observation, rollout.start, fields)
            return self._memory_batches(new_steps) if new_steps else iter(())
        batch: Batch = {**sequence_fields(rollout, self.policy), "label": label}
        if self.reinforces:
            with torch.no_grad():
                batch.update(self.method.surrogate.advantages(rollout, self.policy))
            batch["weight"] = rollout.extras["weight"]
        epochs = int(self.method.epochs)
        return minibatches(batch, self.method.batch_size, epochs, self.order, self.state_size > 0)

    def _measure_actions(self, spread: ActionSpread, action: Tensor) -> int:
        """Counts the teacher's actions, which set the student's units once there are enough.

        Until then a student with a memory does not learn, as the first steps of an episode may tell
        little of how the teacher acts.

        Args:
            spread: What counts them.
            action: (time, rows, action_dim)

        Returns:
            The number of steps to learn from: those so far, when the units are set.
        """
        steps, rows = action.shape[:2]
        spread.update(action)
        if spread.has_set_units:
            return steps * rows
        if self.memory is not None and not spread.suffices(rows, self.total_steps):
            return 0
        spread.has_set_units = True
        center = self.policy.action_center
        if center is not None and not self.reinforces:
            self.policy.set_action_units(*spread.units(len(center)))
        return spread.steps * rows

    def _check_label(self, label: Mapping[str, Tensor]) -> None:
        """Checks that labels say something, as the student would learn others silently."""
        assert self.teacher is not None
        for name, value in label.items():
            if not bool(value.isfinite().all()):
                raise InputError(
                    f"The teacher {self.teacher.source} outputs {name} that are not finite: the "
                    "teacher is at fault."
                )
            if LABELS.get(name) == MASKED and bool(is_masked(value).all(-1).any()):
                raise InputError(
                    f"The teacher {self.teacher.source} outputs {name} that mask every action: the "
                    "teacher is at fault."
                )

    def _memory_batches(self, new_steps: int) -> Iterator[Batch]:
        """Yields minibatches of the memory, `epochs` times as many samples as new steps."""
        assert self.memory is not None
        by_lag = self.method.task_sampling == "lag" and len(self.tasks) > 1
        weights = self.lag.lag.clamp(min=MIN_TASK_WEIGHT) if by_lag else None
        updates = max(1, round(self.method.epochs * new_steps / self.method.batch_size))
        for _ in range(updates):
            yield self.memory.sample(self.method.batch_size, self.order, weights)

    def loss(self, batch: Batch) -> Loss:
        """The loss of a minibatch: the weighted objective, plus the surrogate with RL."""
        label = PolicyOutput(**batch["label"])
        output = self._student_output(batch, label)
        weight = self.lag.lag[batch["task"]] if self.distillation_weight is None else None
        metrics = self.objective(output, label, batch["task"], self.progress, weight)
        total = torch.stack(list(metrics.values())).sum()
        if self.distillation_weight is not None:
            total = self.distillation_weight(self.progress) * total
        if self.log_agreement:
            # Only once per rollout: on small networks it takes a tenth of an update's time.
            with torch.no_grad():
                metrics.update(_agreement_metrics(output, label))
            self.log_agreement = False
        metrics["teacher_acts"] = self.teacher_probability
        if self.method.uses_lag:
            metrics["lag"] = self.lag.lag.mean()
        if self.reinforces:
            reinforcement = self.method.surrogate.loss(output, batch, len(self.tasks))
            total = total + self.reinforcement_weight(self.progress) * reinforcement.total
            metrics.update(reinforcement.metrics)
        return Loss(total, metrics)

    def describe_metrics(self) -> dict[str, str]:
        """The terms of the objective, `METRICS`, and with RL the metrics of `ppo.py`."""
        terms = {
            name: f"{text} Weighted mean over the minibatches."
            for name, text in self.method.parsed_objective.describe_terms().items()
        }
        return {**(ppo.METRICS if self.reinforces else {}), **METRICS, **terms}

    def _student_output(self, batch: Batch, label: PolicyOutput) -> PolicyOutput:
        """The student's output on a minibatch, with the fields that the objective needs."""
        # Compiled calls cannot be differentiated twice.
        twice = "jacobian" in self.labeller.needs
        policy: Callable[..., PolicyOutput] = self.policy.forward if twice else self.policy
        rest = (batch["task"], batch.get("initial_state"), batch.get("start"))
        return self.labeller.student_output(
            lambda seen: policy(seen, *rest, self.labeller.needs), batch["observation"], label
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that training depends on, including the memory."""
        state = super().state_dict()
        state["objective"] = dict(self.objective.state_dict())
        state["lag"] = self.lag.state_dict()
        state["teacher"] = self.teacher.label_state()
        if self.spread is not None:
            state["spread"] = self.spread.state_dict()
        if self.memory is not None:
            state["memory"] = self.memory.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `state_dict`."""
        super().load_state_dict(state)
        self.objective.load_state_dict(state["objective"])
        self.lag.load_state_dict(state["lag"])
        self.teacher.load_label_state(state["teacher"])
        if self.spread is not None:
            self.spread.load_state_dict(state.get("spread"))
        if self.memory is not None:
            self.memory.load_state_dict(_with_bounds(state["memory"], self.labeller.fields))


def _with_bounds(memory: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """The state of a memory whose labels have bounds if the teacher's have.

    Earlier versions stored none, but a mean that was clipped already.
    """
    store, mean = memory["store"], memory["store"].get("field|label|mean")
    if "low" not in fields or "field|label|low" in store or mean is None:
        return memory
    return {**memory, "store": {**store, "field|label|low": mean, "field|label|high": mean}}


def _half_ranges(actions: Sequence[spaces.Space[Any]], device: torch.device) -> Tensor:
    """Half the distance between the bounds of each action dimension.    (num_tasks, action_dim)

    1 for unbounded dimensions, 0 for dimensions that a task does not have.
    """
    ranges = torch.zeros(len(actions), max(map(action_size, actions)))
    for row, space in zip(ranges, actions, strict=True):
        if isinstance(space, spaces.Box):
            _, half_range = center_and_half_range(space)
            row[: action_size(space)] = torch.from_numpy(half_range)
    return ranges.to(device)


def _agreement_metrics(output: PolicyOutput, label: PolicyOutput) -> dict[str, Tensor]:
    """How closely the student's actions match the teacher's.    () each"""
    if label.mean is not None:
        assert output.mean is not None
        error = (output.greedy() - label.greedy()).abs()
        here = torch.ones_like(error) if output.padding_mask is None else ~output.padding_mask
        return {"action_error": (error * here).sum() / here.sum()}
    same = (output.greedy() == label.greedy()).float().mean()
    figures = {"agreement": same}
    for name, one in (("student_entropy", output), ("teacher_entropy", label)):
        if one.logits is not None:
            figures[name] = one.entropy().mean()
    return figures
