"""Distral: tasks learn together, each drawn to a distilled policy that is their centroid.

pi_i is the policy of task i, pi_0 the distilled policy that all share. They maximise (Teh 2017,
eq. 1), with alpha = c_KL / (c_KL + c_Ent) and beta = 1 / (c_KL + c_Ent),

    J = sum_i E_pi_i[ sum_t gamma^t (R_t + alpha/beta log pi_0(a_t) - 1/beta log pi_i(a_t)) ].

For each rollout of `rollout_length` steps in every environment of every task:

    1. act by sampling pi_i; keep log pi_i(a) and log pi_0(a) of the action a that was taken;
    2. regularised rewards R + alpha/beta log pi_0(a) - 1/beta log pi_i(a), and their advantages;
    3. pi_i: one step up E_i[advantage * log pi_i(a)] for each task (eq. 9 and 10), and each task's
       value down to the regularised return;
    4. pi_0: in the same step up alpha/beta sum_i E_i[gamma^t log pi_0] (eq. 5), whose gradient
       by pi_0's logits h is alpha/beta sum_i gamma^t (pi_i - pi_0) (eq. 10).

A column is a network that says logits: h is pi_0's, and beta f_i that of task i (eq. 6 to 8):

    one-column    pi_0 = softmax(h),  pi_i = softmax(beta f_i)
    two-column    pi_0 = softmax(h),  pi_i = softmax(alpha h + beta f_i), which is eq. 2,
                  pi_0^alpha exp(beta (Q_i - V_i)), with f_i in the place of Q_i
    shared        pi_0 = pi_i = softmax(h): one policy for all tasks

For continuous actions a column says a Gaussian; eq. 8 is then the normalised product of pi_0^alpha
and the task's Gaussian, whose precisions add up.

The paper's seven methods:

    A3C               --architecture one-column --alpha 0
    A3C multitask     --architecture shared     --alpha 0
    A3C 2col          --architecture two-column --alpha 0 --shared-weight 1
    KL 1col           --architecture one-column --alpha 1
    KL 2col           --architecture two-column --alpha 1
    KL+ent 1col       --architecture one-column --alpha 0.5
    KL+ent 2col       --architecture two-column --alpha 0.5

With alpha = 0 and the weight of eq. 8, nothing of one task reaches another. `--distilled RUN` lets
new tasks begin with what others distilled. For tables see `soft_q.py`.

Differs from the paper: synchronous (A2C), Adam, no LSTM; generalised advantages, of which
`--gae-lambda 1` are the paper's returns; advantages are not weighted by gamma^t, as A3C's are not;
one column's pi_0 is stepped without the factor alpha/beta, which Adam would undo anyway, and so it
is distilled even at alpha = 0, where no task uses it; `--epochs` above 1 steps down PPO's
surrogate. With one epoch and one minibatch its gradient is that of eq. 9. The paper does not print
the weight of h in A3C 2col.

Logs, for each task: `kl` = E[KL(pi_i || pi_0)] in nats, `entropy` of pi_i, `regularizer_share` =
E|regulariser| / (E|reward| + E|regulariser|); over all tasks `policy_loss`, `value_loss`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rltransfer.errors import InputError, check_range
from rltransfer.learning.agent import Agent, Method, TrainingContext
from rltransfer.learning.learner import Learner, Loss
from rltransfer.learning.minibatches import Batch, minibatches
from rltransfer.learning.reinforcement import clipped_policy_loss, generalized_advantage
from rltransfer.nested import map_nested
from rltransfer.policies.network import Network
from rltransfer.rollouts.rollout import Rollout
from rltransfer.tasks.observation import Observation

from .distral_policy import DistralPolicy, DistralSpec, begin_with, divergence

Architecture = Literal["one-column", "two-column", "shared"]


@dataclass(frozen=True, kw_only=True)
class Distral(Method):
    """Distral: task policies that are drawn to their distilled centroid, with actor-critics.

    Source: Teh 2017 (arXiv 1707.04175).
    """

    num_envs: int = 16
    """Environments of each task."""
    rollout_length: int = 16
    """Steps of each environment between two updates."""
    architecture: Architecture = "two-column"
    """one-column: each task has a policy of its own; two-column: pi_0's logits are part of it;
    shared: all tasks have one policy, and alpha must be 0."""
    alpha: float = 0.5
    """Share of the regulariser that is divergence from pi_0; the rest is entropy."""
    beta: float = 100.0
    """Inverse of the regulariser's weight: reward that a nat is worth is 1 / beta."""
    shared_weight: float | None = None
    """Weight of pi_0's logits in those of two-column policies; None for alpha, eq. 8."""
    distilled: str = ""
    """Folder of a run with whose distilled policy this one begins; empty for a fresh one."""
    network: Network = Network()
    """Each column."""
    learning_rate: float = 1e-3
    """Adam's step size at the start; it falls to zero over the run."""
    gamma: float = 0.99
    """gamma."""
    gae_lambda: float = 0.95
    """lambda of generalised advantage estimation; 1 for the paper's returns."""
    centroid_discount: float | None = None
    """gamma of the distilled policy's data, gamma^t after t steps of an episode; None for
    `discount`, eq. 5; 1 for as much of late steps as of early ones, where episodes are long."""
    value_coefficient: float = 0.5
    """Weight of the value loss."""
    epochs: int = 1
    """How often each rollout is gone through."""
    batch_size: int = 0
    """Samples a minibatch, as many of each task; 0 for the whole rollout."""
    clip_range: float = 0.2
    """How far the ratio of new to old probability may move, where a rollout is gone through more
    than once or in parts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_regularizer(self.alpha, self.beta)
        check_range(self, "at least 1", "epochs")
        check_range(self, "from 0 to 1", "gamma", "gae_lambda", "centroid_discount")
        check_range(self, "above 0", "clip_range")
        check_range(
            self, "finite and at least 0",
            "batch_size", "learning_rate", "shared_weight", "value_coefficient",
        )  # fmt: skip
        if self.shared_weight is not None and self.architecture != "two-column":
            raise InputError(
                f"shared_weight is {self.shared_weight}, but {self.architecture} policies hear "
                "nothing of pi_0: take --architecture two-column, or leave out --shared-weight."
            )
        if self.architecture == "shared" and self.alpha:
            raise InputError(
                f"alpha is {self.alpha}, but a shared policy is its own centroid: take --alpha 0."
            )
        if self.network.gru or self.network.heads != "shared":
            raise InputError(
                "Distral's networks have no memory and one head each: leave out --gru and --heads."
            )

    def build(self, context: TrainingContext) -> DistralAgent:
        """Returns the agent."""
        weight = self.alpha if self.shared_weight is None else self.shared_weight
        spec = DistralSpec.of_suite(
            self.network,
            context.spaces,
            columns=self.architecture != "shared",
            shared_weight=weight if self.architecture == "two-column" else 0.0,
        )
        policy = spec.build()
        if self.distilled:
            begin_with(policy, self.distilled)
        return DistralAgent(self, policy.to(context.device), context)


def check_regularizer(alpha: float, beta: float) -> None:
    """Refuses an alpha that is no share, and a beta that is not above 0."""
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha is {alpha}: it is a share, from 0 to 1.")
    if not 0 < beta < math.inf:
        raise InputError(f"beta is {beta}: it must be finite and above 0.")


def regularizer(log_prior: Tensor, log_prob: Tensor, alpha: float, beta: float) -> Tensor:
    """Returns alpha/beta log pi_0(a) - 1/beta log pi_i(a), what is added to the reward.    (...)

    Source: Teh 2017, eq. 1 and R^reg below eq. 9.

    Args:
        log_prior: log pi_0 of the action that pi_i took.    (...)
        log_prob: log pi_i of it.                            (...)
        alpha: The share of the regulariser that is divergence.
        beta: The inverse of its weight.
    """
    return (alpha * log_prior - log_prob) / beta


def by_task(fields: Batch, num_tasks: int) -> Batch:
    """Returns a rollout's fields with each task's samples together.    (num_tasks, samples, ...)

    Args:
        fields: What was kept.    (time, rows, ...)
        num_tasks: How many tasks there are.
    """
    return map_nested(
        lambda tensor: tensor.unflatten(1, (num_tasks, -1)).transpose(0, 1).flatten(1, 2), fields
    )


class Ages:
    """Counts the steps of every row's episode, from rollout to rollout.

    Args:
        num_rows: How many rows there are.
        device: Where to count.
    """

    def __init__(self, num_rows: int, device: torch.device) -> None:
        self.next = torch.zeros(num_rows, device=device)

    def of(self, start: Tensor) -> Tensor:
        """Returns how many steps of its episode came before each step.    (time, rows)

        Args:
            start: Whether the step is an episode's first.    (time, rows)
        """
        ages = []
        for first in start:
            ages.append(self.next.masked_fill(first, 0.0))
            self.next = ages[-1] + 1
        return torch.stack(ages)


class DistralAgent(Agent):
    """Acts by sampling the tasks' policies, and learns them, their values and the distilled one."""

    policy: DistralPolicy

    def __init__(self, method: Distral, policy: DistralPolicy, context: TrainingContext) -> None:
        # Each weight's step depends on its own gradient alone: a clipped norm would join the tasks.
        learner = Learner(policy, learning_rate=method.learning_rate)
        super().__init__(policy, learner, context.seed, context.device)
        self.method = method
        self.tasks = context.suite.names()
        self.num_rows = context.num_rows
        self.ages = Ages(context.num_rows, context.device)
        self.regularizer_share = torch.zeros(len(self.tasks), device=context.device)

    def act(
        self, observation: Observation, task: Tensor, state: Tensor, start: Tensor
    ) -> dict[str, Tensor]:
        """Samples an action, and keeps what pi_i and pi_0 think of it."""
        # The engine's rows stand in the order of their tasks; host environments come in parts.
        distilled, own = self.policy.both(observation, task, len(task) == self.num_rows)
        action = own.sample(self.generator)
        assert own.value is not None
        return {
            "action": action,
            "log_prob": own.log_prob(action),
            "log_prior": distilled.log_prob(action),
            "value": own.value,
        }

    def batches(self, rollout: Rollout) -> Iterable[Batch]:
        """Returns minibatches of as many samples of each task.    (num_tasks, samples, ...)"""
        method, kept = self.method, rollout.extras
        extra = regularizer(kept["log_prior"], kept["log_prob"], method.alpha, method.beta)
        self.regularizer_share = self._share(extra.abs(), rollout.reward.abs())
        with torch.no_grad():
            advantage = generalized_advantage(
                rollout.reward + extra, kept["value"], self._next_value(rollout),
                rollout.terminated, rollout.done, method.gamma, method.gae_lambda,
            )  # fmt: skip
        gamma = method.gamma if method.centroid_discount is None else method.centroid_discount
        fields: Batch = {
            "observation": rollout.observation,
            "task": rollout.task,
            "action": kept["action"],
            "old_log_prob": kept["log_prob"],
            "advantage": advantage,
            "return": advantage + kept["value"],
            "weight": gamma ** self.ages.of(rollout.start),
        }
        fields = by_task(fields, len(self.tasks))
        if method.epochs == 1 and not method.batch_size:
            return [fields]
        size = method.batch_size or rollout.num_steps
        return minibatches(fields, size, method.epochs, self.order, sequences=True)

    def _share(self, extra: Tensor, reward: Tensor) -> Tensor:
        """Returns the share of each task's reward that the regulariser makes.    (num_tasks,)

        Args:
            extra: |regulariser|.    (time, rows)
            reward: |reward|.        (time, rows)
        """
        extra, reward = (
            one.unflatten(1, (len(self.tasks), -1)).mean((0, 2)) for one in (extra, reward)
        )
        return extra / (extra + reward).clamp(min=torch.finfo().tiny)

    def _next_value(self, rollout: Rollout) -> Tensor:
        """Returns the value of the state that followed each step.    (time, rows)"""
        last = self.policy.both(rollout.last_observation, rollout.task[-1], in_order=True)[1].value
        assert last is not None
        following = torch.cat([rollout.extras["value"][1:], last.unsqueeze(0)])
        if rollout.final_obs is not None:
            where = rollout.final_obs.time, rollout.final_obs.rows
            following[where] = self.policy(rollout.final_obs.observation, rollout.task[where]).value
        return following

    def loss(self, batch: Batch) -> Loss:
        """Scores a minibatch: the sum over tasks of the means over their samples."""
        method = self.method
        batch = map_nested(lambda tensor: tensor.flatten(0, 1), batch)
        distilled, own = self.policy.both(batch["observation"], batch["task"], in_order=True)
        assert own.value is not None
        policy_loss = self._mean(
            clipped_policy_loss(
                own.log_prob(batch["action"]), batch["old_log_prob"], batch["advantage"],
                method.clip_range,
            )
        )  # fmt: skip
        value_loss = self._mean(0.5 * (own.value - batch["return"]).square())
        apart = divergence(own, distilled)
        total = (policy_loss + method.value_coefficient * value_loss).sum()
        if method.architecture != "shared":
            separate = method.architecture == "one-column"
            coefficient = 1.0 if separate else method.alpha / method.beta
            total = total + coefficient * self._mean(batch["weight"] * apart).sum()
        figures = {
            "kl": self._mean(apart),
            "entropy": self._mean(own.entropy()),
            "regularizer_share": self.regularizer_share,
        }
        metrics = {"policy_loss": policy_loss.mean(), "value_loss": value_loss.mean()}
        for figure, values in figures.items():
            for task, value in zip(self.tasks, values.unbind(), strict=True):
                metrics[f"{figure}/{task}"] = value
        return Loss(total, metrics)

    def _mean(self, samples: Tensor) -> Tensor:
        """Returns each task's mean.    (num_tasks,)

        Args:
            samples: Of the tasks in their order.    (num_tasks * samples,)
        """
        mean: Tensor = samples.unflatten(0, (len(self.tasks), -1)).mean(1)
        return mean

    def learning_rate(self) -> float:
        """Returns the step size, which falls to zero over the run."""
        return self.method.learning_rate * (1 - self.progress)

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that learning depends on, the episodes' ages among it."""
        return {**super().state_dict(), "ages": self.ages.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to what `state_dict` returned."""
        super().load_state_dict(state)
        self.ages.next.copy_(state["ages"])
