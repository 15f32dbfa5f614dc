"""Policy distillation: a student learns what a teacher would do.

For each rollout (Rusu 2015, section 3 and appendix A):

    1. someone acts: the teacher with probability `teacher_acts`, else the student; greedily but for
       a share of `exploration`, as in the paper; with reinforcement the student samples;
    2. the teacher labels each observation, once; observation and label go into the memory;
    3. minibatches are drawn from the memory (with reinforcement or a recurrent student, from the
       rollout alone), and the student steps down
       `distillation_weight` * objective(teacher, student), one of
       MSE  sum_a (q_T - q_S)^2                                       (eq. 1)
       NLL  -log pi_S(argmax_a q_T)                                   (eq. 2)
       KL   KL(softmax(q_T / temperature) || softmax(q_S))            (eq. 3)
       or a weighted sum with the other terms of `output_objectives.py` and `feature_objectives.py`,
       plus `reinforcement_weight` * the clipped surrogate of `ppo.py`, where that is not zero.

Three numbers over time make the related methods settings of this one:

    method                       teacher_acts  distillation_weight  reinforcement_weight
    policy distillation          1             1                    0
    the same, the student acts   0             1                    0
    DAgger (Ross 2011)           1->0          1                    0
    kickstarting (Schmitt 2018)  0             1->0, or lag         1
    plain reinforcement          0             0                    1

Differs from the paper: Adam instead of RMSProp; collecting and learning alternate every
`rollout_length` steps instead of every hour of play; losses are means over the batch. With several
tasks, all of them step together, and a minibatch mixes them, where the paper's is of one game;
per-task heads are one layer each, without the paper's hidden layer.

Logs: each objective term by its name; `teacher_acts`, the schedule's value; where it is used, `lag`
= (teacher - student) / (teacher - random) of the training returns, the mean over tasks, 1 until the
student plays by itself; of the first minibatch after each rollout, `agreement` = share of
observations on which student and teacher have the same best action (of continuous actions
`action_error`, the mean absolute difference), `student_entropy` and `teacher_entropy` in nats; with
reinforcement also what `ppo.py` logs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rltransfer.errors import InputError, check_range
from rltransfer.learning.agent import Agent, GradientMethod, TrainingContext
from rltransfer.learning.exploration import epsilon_greedy
from rltransfer.learning.learner import Loss
from rltransfer.learning.minibatches import Batch, minibatches
from rltransfer.learning.replay_memory import ReplayMemory
from rltransfer.learning.return_gap import ReturnGap
from rltransfer.objectives.objective import FittedObjective, Objective
from rltransfer.policies.network import Network
from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.rollouts.rollout import Rollout
from rltransfer.schedule import Schedule
from rltransfer.tasks.action import action_size
from rltransfer.tasks.observation import Observation
from rltransfer.teachers.labeller import Labeller
from rltransfer.teachers.loading import load_teacher
from rltransfer.teachers.teacher import Teacher

from .ppo import Surrogate, sample, sequence_fields

LAG = "lag"
"""The weight that follows how far the student lags behind."""
LEAST_SHARE = 0.05
"""What a task's share of the memory's samples counts as at least, so that none is forgotten."""


@dataclass(frozen=True, kw_only=True)
class PolicyDistillation(GradientMethod):
    """Policy distillation, DAgger and kickstarting: one mechanism with three schedules.

    Source: Rusu 2015 (arXiv 1511.06295).
    """

    teacher: str | Teacher
    """A run directory, a file (a Stable-Baselines3 zip, an rsl_rl checkpoint, TorchScript; also
    "hf:REPO/FILE"), "zoo" for the installed teacher of each task, or a composition of them, e.g.
    "Ensemble('a.zip', 'runs/b')"."""
    vecnormalize: Path | None = None
    """Observation statistics (a VecNormalize pickle) of a Stable-Baselines3 zip."""
    student: Network = Network()
    """The student's network."""
    objective: str | Objective = "kl"
    """One of "kl", "nll", "mse", or a sum such as "KL(temperature=0.01) + 0.5 * MSE()" of KL,
    ReverseKL, JS, NLL, MSE, Huber, FeatureRegression, AttentionTransfer, RepresentationalDistance
    and JacobianMatching; a weight may change over the run, "'1->0@0.5' * MSE()", or be a task's
    own, "KL(weights={'CartPole-v1': 2})"."""
    teacher_acts: str | float | Schedule = 1.0
    """How often the teacher acts: a number, or a schedule such as "1->0@0.5"."""
    distillation_weight: str | float | Schedule = 1.0
    """Weight of the objective over the run; "lag" lets it fade in each task as the student comes
    close: (teacher - student) / (teacher - random) of the returns. The student must then play by
    itself: `teacher_acts` 0, or a schedule that is 0 before the run ends."""
    reinforcement_weight: str | float | Schedule = 0.0
    """Weight of the reinforcement objective over the run."""
    exploration: float = 0.05
    """Share of random actions, or the noise's deviation in half-ranges of continuous actions;
    none where there is reinforcement."""
    task_sampling: Literal["uniform", "lag"] = "uniform"
    """Which tasks the memory is drawn from: all alike, or those more in which the student lags, for
    which it must play by itself, as for `distillation_weight`."""
    memory_steps: int = 200_000
    """Steps that the memory holds, where there is one; learning draws from all of them."""
    memory_dir: Path | None = None
    """Folder for a memory-mapped memory; in RAM if None."""
    epochs: float = 4.0
    """How often each step is learned from, on average; a whole number where learning is from the
    rollout alone."""
    batch_size: int = 512
    learning_rate: float = 2e-3
    surrogate: Surrogate = Surrogate()
    """The reinforcement objective, where its weight is not zero."""

    def __post_init__(self) -> None:
        super().__post_init__()
        Objective.of(self.objective)
        for name in ("teacher_acts", "distillation_weight", "reinforcement_weight"):
            if name == "distillation_weight" and self.distillation_weight == LAG:
                continue
            schedule = Schedule.of(getattr(self, name))
            if min(schedule.start, schedule.end) < 0:
                raise InputError(f"{name} is {schedule}: it must not be negative.")
        if max(Schedule.of(self.teacher_acts).start, Schedule.of(self.teacher_acts).end) > 1:
            raise InputError(f"teacher_acts is {self.teacher_acts}: it is a share, at most 1.")
        check_range(self, "from 0 to 1", "exploration")
        check_range(self, "at least 1", "memory_steps")
        check_range(self, "finite and above 0", "epochs")
        if not self.remembers:
            self._check_without_memory()
        self._check_learning()
        self._check_lag()

    @property
    def remembers(self) -> bool:
        """Whether it learns from a memory: what is on-policy or in sequence is learned at once."""
        return Schedule.of(self.reinforcement_weight).is_zero and not self.student.gru

    def _check_learning(self) -> None:
        """Checks that something is learned, and that reinforcement has steps to learn from."""
        reinforces = not Schedule.of(self.reinforcement_weight).is_zero
        distils = (
            self.distillation_weight == LAG or not Schedule.of(self.distillation_weight).is_zero
        )
        acts = Schedule.of(self.teacher_acts)
        if not reinforces and not distils:
            raise InputError(
                "distillation_weight and reinforcement_weight are both 0, so that nothing is "
                "learned: one must be above 0."
            )
        if reinforces and acts.start == acts.end == 1:
            raise InputError(
                f"reinforcement_weight is {self.reinforcement_weight}, but teacher_acts is 1, so "
                "that the student never acts and nothing can be reinforced: let teacher_acts be 0."
            )
        if not reinforces and self.surrogate != Surrogate():
            raise InputError(
                "The options of the surrogate, e.g. its gamma, are those of reinforcement, "
                "whose weight is 0: leave them out, or give a reinforcement_weight."
            )

    def _check_without_memory(self) -> None:
        """Checks that nothing is asked of a memory where there is none."""
        why = "with reinforcement or a student with a GRU a rollout is learned from as a whole"
        if self.epochs != int(self.epochs):
            raise InputError(f"epochs is {self.epochs}: {why}, so that it must be a whole number.")
        asked = {"task_sampling": self.task_sampling == LAG, "memory_dir": self.memory_dir}
        for name in (name for name, given in asked.items() if given):
            raise InputError(
                f"{name} is {getattr(self, name)}, but {why}, without a memory: leave it out."
            )

    @property
    def uses_lag(self) -> bool:
        """Whether anything follows how far the student lags behind."""
        return LAG in (self.distillation_weight, self.task_sampling)

    def _check_lag(self) -> None:
        """Checks that there will be returns of the student's own, where they are needed."""
        acts = Schedule.of(self.teacher_acts)
        if self.uses_lag and not acts.is_zero and (acts.end > 0 or acts.until == 1):
            raise InputError(
                f"teacher_acts is {acts}, so that the student never plays by itself and nobody can "
                'say how far it lags: take 0, or a schedule that is 0 early, such as "1->0@0.2".'
            )

    def build(self, context: TrainingContext) -> PolicyDistillationAgent:
        """Returns the agent."""
        teacher = load_teacher(self.teacher, self.vecnormalize, context.suite)
        teacher = teacher.fitted(context.spaces).to(context.device)
        teacher.seed(context.seed)
        blank = teacher.state_dict()
        objective = Objective.of(self.objective)
        mask = context.spaces.mask_tensor(context.device)
        labeller = Labeller(teacher, objective.needs, self.student.groups, mask)
        seen, task = _example_observation(context)
        label = labeller(seen, task)
        # Learned from Q-values by their errors, the student's scores are Q-values too.
        q_values = objective.learns_values and label.q_values is not None
        reinforces = not Schedule.of(self.reinforcement_weight).is_zero
        if q_values and reinforces:
            raise InputError(
                f"{objective} of the Q-values of {teacher.source} makes a Q-network, which has no "
                "policy to reinforce: take KL or NLL."
            )
        spec = PolicySpec.of_suite(
            self.student,
            context.spaces,
            q_values=q_values,
            value=reinforces,
        )
        student = Policy(spec).to(context.device)
        if student.state_size and "jacobian" in objective.needs:
            raise InputError(
                "JacobianMatching takes gradients by one observation, but the student remembers "
                "those before it: take a student without a GRU."
            )
        output = labeller.student_output(
            lambda seen: student(seen, task, needs=labeller.needs), seen, label
        )
        fitted = objective.fitted(output, label, context.suite.names()).to(context.device)
        # Once before the run: an objective that cannot score this teacher is refused here.
        fitted(output, label, task)
        # These labels were no part of the run: a vote must not count them.
        teacher.load_state_dict(blank)
        return PolicyDistillationAgent(self, fitted, teacher, labeller, student, context)


def _example_observation(context: TrainingContext) -> tuple[Observation, Tensor]:
    """Returns an observation for each task, and the tasks' indices.    (num_tasks, ...)"""
    task = torch.arange(len(context.suite), device=context.device)
    seen: Observation = {}
    for name, space in context.spaces.observation_space.spaces.items():
        sample = torch.as_tensor(space.sample(), device=context.device)
        seen[name] = sample.expand(len(task), *sample.shape).contiguous()
    return seen, task


class PolicyDistillationAgent(Agent):
    """Keeps the teacher's labels and brings the student closer to them."""

    teacher: Teacher

    def __init__(
        self,
        method: PolicyDistillation,
        objective: FittedObjective,
        teacher: Teacher,
        labeller: Labeller,
        student: Policy,
        context: TrainingContext,
    ) -> None:
        learner = method.learner(nn.ModuleDict({"student": student, "objective": objective}))
        super().__init__(student, learner, context)
        self.method = method
        self.objective = objective
        self.teacher = teacher
        self.labeller = labeller
        self.teacher_acts = Schedule.of(method.teacher_acts)
        fades = method.distillation_weight == LAG
        self.distillation_weight = None if fades else Schedule.of(method.distillation_weight)
        self.lag = ReturnGap(len(context.suite), context.device)
        self.needs_reference_returns = method.uses_lag
        self.tasks = context.suite.names()
        self.reinforcement_weight = Schedule.of(method.reinforcement_weight)
        self.reinforces = not self.reinforcement_weight.is_zero
        self.action_space = context.spaces.action_space
        self.num_actions = context.spaces.num_actions(context.device)
        own_actions = [one.action for one in context.spaces.own]
        self.half_range = _half_ranges(own_actions, context.device)
        self.teacher_probability = torch.zeros((), device=context.device)
        self.log_agreement = True
        # Sequences and on-policy data are learned from as they come; only single steps are kept.
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

    def set_reference_returns(
        self, teacher: Mapping[str, float], random: Mapping[str, float]
    ) -> None:
        """Is told the returns that the student's are measured by."""
        self.lag.set_reference_returns(
            *([returns[name] for name in self.tasks] for returns in (teacher, random))
        )

    @property
    def graph_key(self) -> tuple[bool, bool]:
        """Whether the teacher acts at times, and whether it always does."""
        probability = self.teacher_acts(self.progress)
        return probability > 0, probability >= 1

    def begin_rollout(self, progress: float) -> None:
        """Sets how often the teacher acts."""
        super().begin_rollout(progress)
        self.teacher_probability.fill_(self.teacher_acts(progress))

    def act(self, observation: Observation, task: Tensor, state: Tensor, start: Tensor) -> Batch:
        """Labels the observation and lets teacher or student act."""
        began = time.perf_counter()
        label = self.labeller(observation, task)
        self.teacher_seconds += time.perf_counter() - began
        kept: Batch = {"label": label.tensors()}
        at_times, always = self.graph_key
        if not always or self.state_size or self.reinforces:
            own = self._student_acts(observation, task, state, start)
            if at_times:
                drawn = torch.rand(task.shape, generator=self.generator, device=task.device)
                turn = drawn < self.teacher_probability
                own = self._mixed(own, label.greedy(), turn)
            kept.update(own)
        else:
            kept["action"] = label.greedy()
        if self.method.exploration and not self.reinforces:
            kept["action"] = self._explored(kept["action"], task)
        return kept

    def _student_acts(
        self, observation: Observation, task: Tensor, state: Tensor, start: Tensor
    ) -> dict[str, Tensor]:
        """Returns the student's action and what learning from it needs."""
        if self.reinforces:
            own = sample(self.policy, observation, task, state, start, self.generator)
            return {**own, "weight": torch.ones_like(own["log_prob"])}
        output: PolicyOutput = self.policy(observation, task, state, start)
        own = {"action": output.greedy()}
        if output.state is not None and self.state_size:
            own["state"] = output.state
        return own

    def _mixed(self, own: dict[str, Tensor], teachers: Tensor, turn: Tensor) -> dict[str, Tensor]:
        """Returns the student's step with the teacher's action where it is the teacher's turn."""
        wide = turn if teachers.dim() == 1 else turn.unsqueeze(-1)
        own["action"] = torch.where(wide, teachers, own["action"])
        if self.reinforces:
            # Not the student's action: its return says nothing about the student's policy.
            own["weight"] = own["weight"].masked_fill(turn, 0.0)
        return own

    def _explored(self, action: Tensor, task: Tensor) -> Tensor:
        """Returns the actions with a share of random ones, or with noise."""
        epsilon = self.method.exploration
        if isinstance(self.action_space, spaces.Discrete):
            return epsilon_greedy(action, self.num_actions[task], epsilon, self.generator)
        noise = torch.empty_like(action).normal_(generator=self.generator)
        return action + epsilon * self.half_range[task] * noise

    def batches(self, rollout: Rollout) -> Iterator[Batch]:
        """Returns minibatches of the memory, or of the rollout where that must be whole."""
        self.log_agreement = True
        if self.teacher_acts(self.progress) == 0:
            # Where the teacher acts at times, returns are not the student's.
            assert rollout.episode_return is not None
            self.lag.update(rollout.episode_return, rollout.done)
        label = rollout.extras["label"]
        self._check_label(label)
        if self.memory is not None:
            fields = {"label": label, "task": rollout.task}
            self.memory.add(rollout.observation, rollout.start, fields)
            return self._remembered(rollout.num_steps)
        batch: Batch = {**sequence_fields(rollout, self.policy), "label": label}
        if self.reinforces:
            with torch.no_grad():
                batch.update(self.method.surrogate.advantages(rollout, self.policy))
            batch["weight"] = rollout.extras["weight"]
        epochs = int(self.method.epochs)
        return minibatches(batch, self.method.batch_size, epochs, self.order, self.state_size > 0)

    def _check_label(self, label: Mapping[str, Tensor]) -> None:
        """Refuses labels that are not numbers, which a student would learn in silence.

        Raises:
            InputError: The teacher said some.
        """
        assert self.teacher is not None
        for name, value in label.items():
            if not bool(value.isfinite().all()):
                raise InputError(
                    f"The teacher {self.teacher.source} outputs {name} that are not finite: the "
                    "teacher is at fault."
                )

    def _remembered(self, new_steps: int) -> Iterator[Batch]:
        """Yields minibatches of the memory, as many as `new_steps` are worth."""
        assert self.memory is not None
        by_lag = self.method.task_sampling == "lag" and len(self.tasks) > 1
        shares = self.lag.lag.clamp(min=LEAST_SHARE) if by_lag else None
        updates = max(1, round(self.method.epochs * new_steps / self.method.batch_size))
        for _ in range(updates):
            yield self.memory.sample(self.method.batch_size, self.order, shares)

    def loss(self, batch: Batch) -> Loss:
        """Scores a minibatch: the weighted objective, and the surrogate where there is one."""
        label = PolicyOutput(**batch["label"])
        output = self._answered(batch, label)
        fading = self.distillation_weight is None
        weight = self.lag.lag[batch["task"]] if fading else None
        metrics = self.objective(output, label, batch["task"], self.progress, weight)
        total = torch.stack(list(metrics.values())).sum()
        if self.distillation_weight is not None:
            total = self.distillation_weight(self.progress) * total
        if self.log_agreement:
            # Once a rollout: on small networks it would take a tenth of the time.
            with torch.no_grad():
                metrics.update(_agreement_metrics(output, label))
            self.log_agreement = False
        metrics["teacher_acts"] = self.teacher_probability
        if self.method.uses_lag:
            metrics["lag"] = self.lag.lag.mean()
        if self.reinforces:
            reinforcement = self.method.surrogate.loss(output, batch)
            total = total + self.reinforcement_weight(self.progress) * reinforcement.total
            metrics.update(reinforcement.metrics)
        return Loss(total, metrics)

    def _answered(self, batch: Batch, label: PolicyOutput) -> PolicyOutput:
        """Returns what the student says of a minibatch, with what the objective needs."""
        # What torch.compile makes of a call cannot be differentiated twice.
        twice = "jacobian" in self.labeller.needs
        policy: Callable[..., PolicyOutput] = self.policy.forward if twice else self.policy
        rest = (batch["task"], batch.get("initial_state"), batch.get("start"))
        return self.labeller.student_output(
            lambda seen: policy(seen, *rest, self.labeller.needs), batch["observation"], label
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that learning depends on, the memory among it."""
        state = super().state_dict()
        state["objective"] = dict(self.objective.state_dict())
        state["lag"] = self.lag.state_dict()
        state["teacher"] = self.teacher.state_dict()
        if self.memory is not None:
            state["memory"] = self.memory.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to what `state_dict` returned."""
        super().load_state_dict(state)
        self.objective.load_state_dict(state["objective"])
        self.lag.load_state_dict(state["lag"])
        self.teacher.load_state_dict(state["teacher"])
        if self.memory is not None:
            self.memory.load_state_dict(state["memory"])


def _half_ranges(own: Sequence[spaces.Space[Any]], device: torch.device) -> Tensor:
    """Returns half of the distance between the bounds of each number of a continuous action.

    1 where there are none, 0 for numbers that a task does not have.

    Args:
        own: Each task's actions.
        device: Where it is needed.

    Returns:
        (num_tasks, action_dim)
    """
    ranges = torch.zeros(len(own), max(map(action_size, own)))
    for row, space in zip(ranges, own, strict=True):
        if isinstance(space, spaces.Box):
            half = (space.high - space.low) / 2 if space.is_bounded() else 1.0
            row[: action_size(space)] = torch.as_tensor(half)
    return ranges.to(device)


def _agreement_metrics(output: PolicyOutput, label: PolicyOutput) -> dict[str, Tensor]:
    """Returns how alike student and teacher act.    () each"""
    if label.mean is not None:
        assert output.mean is not None
        error = (output.mean - label.mean).abs()
        here = torch.ones_like(error) if output.padding_mask is None else ~output.padding_mask
        return {"action_error": (error * here).sum() / here.sum()}
    same = (output.greedy() == label.greedy()).float().mean()
    figures = {"agreement": same}
    for name, one in (("student_entropy", output), ("teacher_entropy", label)):
        if one.logits is not None:
            figures[name] = one.entropy().mean()
    return figures
