"""Distral: task policies are trained together, each regularised towards a distilled policy.

pi_i is the policy of task i, pi_0 the distilled policy, their centroid. They maximise (Teh 2017,
eq. 1), with alpha = c_KL / (c_KL + c_Ent) and beta = 1 / (c_KL + c_Ent),

    J = sum_i E_pi_i[ sum_t gamma^t (R_t + alpha/beta log pi_0(a_t) - 1/beta log pi_i(a_t)) ].

For each rollout of `rollout_length` steps in every environment of every task:

    1. act by sampling an action a from pi_i; store log pi_i(a) and log pi_0(a);
    2. compute regularised rewards R + alpha/beta log pi_0(a) - 1/beta log pi_i(a), and their
       advantages;
    3. pi_i: take one step up E_i[advantage * log pi_i(a)] for each task (eq. 9 and 10), and fit
       each task's value to the regularised return;
    4. pi_0: in the same step, go up alpha/beta sum_i E_i[gamma^t log pi_0] (eq. 5); its gradient
       by pi_0's logits h is alpha/beta sum_i gamma^t (pi_i - pi_0) (eq. 10).

A column is a network that outputs logits: h for pi_0, and beta f_i for task i (eq. 6 to 8):

    one-column    pi_0 = softmax(h),  pi_i = softmax(beta f_i)
    two-column    pi_0 = softmax(h),  pi_i = softmax(alpha h + beta f_i): eq. 2,
                  pi_0^alpha exp(beta (Q_i - V_i)), with f_i instead of Q_i
    shared        pi_0 = pi_i = softmax(h): one policy for all tasks

For continuous actions a column outputs a Gaussian; eq. 8 is then the normalised product of
pi_0^alpha and the task's Gaussian, whose precisions add up.

The paper's seven methods:

    A3C               --architecture one-column --alpha 0
    A3C multitask     --architecture shared     --alpha 0
    A3C 2col          --architecture two-column --alpha 0 --shared-weight 1
    KL 1col           --architecture one-column --alpha 1
    KL 2col           --architecture two-column --alpha 1
    KL+ent 1col       --architecture one-column --alpha 0.5
    KL+ent 2col       --architecture two-column --alpha 0.5

With alpha = 0 and the weight of eq. 8, tasks do not affect each other. `--distilled RUN`
initialises pi_0 with the distilled policy of another run. For tables see `soft_q.py`.

Differs from the paper:

- synchronous (A2C), Adam, no LSTM;
- generalised advantages; `--gae-lambda 1` gives the paper's returns;
- advantages are not weighted by gamma^t, as in A3C;
- with one column, pi_0's step lacks the factor alpha/beta, which Adam would cancel; so pi_0 is
  distilled even at alpha = 0, where no task uses it;
- several epochs use PPO's surrogate; with one epoch and one minibatch its gradient is eq. 9;
- the paper does not give the weight of h in A3C 2col.

Logs: `METRICS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rltransfer.errors import InputError, check_range
from rltransfer.learning.agent import Agent, Method, TrainingContext
from rltransfer.learning.learner import Learner, Loss
from rltransfer.learning.minibatches import Batch, minibatches
from rltransfer.learning.reinforcement import (
    clipped_policy_loss,
    generalized_advantage,
    next_values,
)
from rltransfer.nested import map_nested
from rltransfer.policies.network import Network
from rltransfer.rollouts.rollout import Rollout
from rltransfer.tasks.observation import Observation

from .distral_policy import DistralPolicy, DistralSpec, divergence, load_distilled

METRICS = {
    "kl": "E[KL(pi_i || pi_0)], in nats: distance of the task's policy from the distilled one.",
    "entropy": "Mean entropy of the task's policy pi_i, in nats.",
    "regularizer_fraction": "E|regulariser| / (E|reward| + E|regulariser|), 0 to 1: the fraction "
    "of the regularised reward that is not the task's.",
    "policy_loss": "The clipped surrogate, negated, mean over the tasks: falls as better actions "
    "become likelier. In units of the advantage.",
    "value_loss": "Half the mean squared error of the value, mean over the tasks, in units of the "
    "squared return.",
}
"""What Distral logs: the losses over all tasks, the others for each task."""

Architecture = Literal["one-column", "two-column", "shared"]


@dataclass(frozen=True, kw_only=True)
class Distral(Method):
    """Distral: actor-critics with task policies regularised towards a distilled policy.

    Source: Teh 2017 (arXiv 1707.04175).
    """

    num_envs: int = 16
    rollout_length: int = 16
    architecture: Architecture = "two-column"
    """`one-column`: a separate network per task. `two-column`: also adds the distilled policy's
    logits to those of each task. `shared`: one policy for all tasks; needs --alpha 0."""
    alpha: float = 0.5
    """Fraction of the regularisation that is KL divergence from the distilled policy; the rest is
    an entropy bonus."""
    beta: float = 100.0
    """Inverse strength of the regularisation: one nat of KL divergence or entropy counts like a
    reward of 1 / beta. Larger values leave the tasks freer."""
    shared_weight: float | None = None
    """Weight of the distilled policy's logits in two-column policies. Default: --alpha (eq. 8)."""
    distilled: str = ""
    """Run directory whose distilled policy initialises this one; empty for a fresh one."""
    network: Network = Network()
    """The network of each task's policy, and of the distilled policy."""
    learning_rate: float = 1e-3
    """Adam's initial step size; decays linearly to zero over the run."""
    gamma: float = 0.99
    """Discount factor."""
    gae_lambda: float = 0.95
    """Lambda of generalised advantage estimation; 1 gives the paper's returns."""
    centroid_discount: float | None = None
    """Discount of the loss of the distilled policy: a step counts gamma^t after t steps of its
    episode. Default: --gamma (eq. 5). 1 weights late steps like early ones."""
    value_coefficient: float = 0.5
    """Weight of the value loss."""
    epochs: int = 1
    """Passes over each rollout."""
    batch_size: int = 0
    """Samples per minibatch, equally many from each task; 0 for the whole rollout."""
    clip_range: float = 0.2
    """Distance of the probability ratio from 1 at which it is clipped; has an effect with several
    epochs or minibatches."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "from 0 to 1", "alpha", "gamma", "gae_lambda", "centroid_discount")
        check_range(self, "finite and above 0", "beta")
        check_range(self, "at least 1", "epochs")
        check_range(self, "at most 10,000", "epochs")
        check_range(self, "above 0", "clip_range")
        check_range(
            self, "finite and at least 0",
            "batch_size", "learning_rate", "shared_weight", "value_coefficient",
        )  # fmt: skip
        if self.shared_weight is not None and self.architecture != "two-column":
            raise InputError(
                f"shared_weight is {self.shared_weight}, but {self.architecture} policies do not "
                "add the distilled policy's logits: use --architecture two-column, or leave out "
                "--shared-weight."
            )
        if self.architecture == "shared" and self.alpha:
            raise InputError(
                f"alpha is {self.alpha}, but a shared policy is itself the distilled policy: use "
                "--alpha 0."
            )
        if self.network.gru or self.network.heads != "shared":
            raise InputError(
                "Distral's networks are not recurrent and have one head each: leave out --gru and "
                "--heads."
            )
        if self.network.encoder == "conv1d":
            raise InputError(
                "Distral's networks have no 1-D convolutions: use --encoder mlp, which reads "
                "histories, too."
            )

    def build(self, context: TrainingContext) -> DistralAgent:
        """Builds the agent."""
        weight = self.alpha if self.shared_weight is None else self.shared_weight
        spec = DistralSpec.of_suite(
            self.network,
            context.spaces,
            columns=self.architecture != "shared",
            shared_weight=weight if self.architecture == "two-column" else 0.0,
        )
        policy = spec.build()
        if self.distilled:
            load_distilled(policy, self.distilled)
        return DistralAgent(self, policy.to(context.device), context)


def regularizer(log_prior: Tensor, log_prob: Tensor, alpha: float, beta: float) -> Tensor:
    """The regulariser alpha/beta log pi_0(a) - 1/beta log pi_i(a) of the reward.    (...)

    Source: Teh 2017, eq. 1 and R^reg below eq. 9.

    Args:
        log_prior: log pi_0(a), with a sampled from pi_i.    (...)
        log_prob: log pi_i(a).                               (...)
        alpha: Fraction of the regulariser that is divergence.
        beta: Inverse weight of the regulariser.
    """
    return (alpha * log_prior - log_prob) / beta


def by_task(fields: Batch, num_tasks: int) -> Batch:
    """A rollout's fields, grouped by task.    (num_tasks, samples, ...)

    Args:
        fields: Tensors of the rollout.    (time, rows, ...)
        num_tasks: Number of tasks.
    """
    return map_nested(
        lambda tensor: tensor.unflatten(1, (num_tasks, -1)).transpose(0, 1).flatten(1, 2), fields
    )


class Ages:
    """Counts the steps of each row's episode across rollouts."""

    def __init__(self, num_rows: int, device: torch.device) -> None:
        self.next = torch.zeros(num_rows, device=device)

    def of(self, start: Tensor) -> Tensor:
        """The number of earlier steps in each step's episode.    (time, rows)

        Args:
            start: Whether the step is the first of its episode.    (time, rows)
        """
        ages = []
        for first in start:
            ages.append(self.next.masked_fill(first, 0.0))
            self.next = ages[-1] + 1
        return torch.stack(ages)


class DistilledAgent(Agent):
    """An agent that trains task policies and their distilled policy."""

    policy: DistralPolicy

    def __init__(self, policy: DistralPolicy, learner: Learner, context: TrainingContext) -> None:
        super().__init__(policy, learner, context)
        self.tasks = context.suite.names()
        self.num_rows = context.num_rows
        self.ages = Ages(context.num_rows, context.device)

    def task_means(self, samples: Tensor) -> Tensor:
        """Each task's mean.    (num_tasks,)

        Args:
            samples: Equally many of each task, in their order.    (num_tasks * samples,)
        """
        mean: Tensor = samples.unflatten(0, (len(self.tasks), -1)).mean(1)
        return mean

    def state_dict(self) -> dict[str, Any]:
        """Everything that training depends on, including the ages of the episodes."""
        return {**super().state_dict(), "ages": self.ages.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `state_dict`."""
        super().load_state_dict(state)
        self.ages.next.copy_(state["ages"])


class DistralAgent(DistilledAgent):
    """Acts by sampling the task policies; trains them, their values and the distilled policy."""

    def __init__(self, method: Distral, policy: DistralPolicy, context: TrainingContext) -> None:
        # No clipping: the common norm would couple the tasks.
        super().__init__(policy, Learner(policy, learning_rate=method.learning_rate), context)
        self.method = method
        self.regularizer_fraction = torch.zeros(len(self.tasks), device=context.device)

    def act(self, observation: Observation, task: Tensor, state: Tensor, start: Tensor) -> Batch:
        """Samples an action, and stores its log-probability under pi_i and pi_0."""
        # The engine's rows are in the order of their tasks; host environments act in parts.
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
        """Minibatches of equally many samples of each task.    (num_tasks, samples, ...)"""
        method, extras = self.method, rollout.extras
        extra = regularizer(extras["log_prior"], extras["log_prob"], method.alpha, method.beta)
        size, reward_size = (
            one.abs().unflatten(1, (len(self.tasks), -1)).mean((0, 2))
            for one in (extra, rollout.reward)
        )
        self.regularizer_fraction = size / (size + reward_size).clamp(min=torch.finfo().tiny)
        with torch.no_grad():
            last = self.policy.both(rollout.last_observation, rollout.task[-1], in_order=True)[1]
            assert last.value is not None
            next_value = next_values(
                rollout, extras["value"], last.value, lambda *seen: self.policy(*seen).value
            )
            advantage = generalized_advantage(
                rollout.reward + extra, extras["value"], next_value,
                rollout.terminated, rollout.done, method.gamma, method.gae_lambda,
            )  # fmt: skip
        gamma = method.gamma if method.centroid_discount is None else method.centroid_discount
        fields: Batch = {
            "observation": rollout.observation,
            "task": rollout.task,
            "action": extras["action"],
            "old_log_prob": extras["log_prob"],
            "advantage": advantage,
            "return": advantage + extras["value"],
            "weight": gamma ** self.ages.of(rollout.start),
        }
        fields = by_task(fields, len(self.tasks))
        if method.epochs == 1 and not method.batch_size:
            return [fields]
        batch_size = method.batch_size or rollout.num_steps
        return minibatches(fields, batch_size, method.epochs, self.order, sequences=True)

    def loss(self, batch: Batch) -> Loss:
        """The loss of a minibatch: the sum over tasks of their mean losses."""
        method = self.method
        batch = map_nested(lambda tensor: tensor.flatten(0, 1), batch)
        distilled, own = self.policy.both(batch["observation"], batch["task"], in_order=True)
        assert own.value is not None
        policy_loss = self.task_means(
            clipped_policy_loss(
                own.log_prob(batch["action"]), batch["old_log_prob"], batch["advantage"],
                method.clip_range,
            )
        )  # fmt: skip
        value_loss = self.task_means(0.5 * (own.value - batch["return"]).square())
        kl = divergence(own, distilled)
        total = (policy_loss + method.value_coefficient * value_loss).sum()
        if method.architecture != "shared":
            separate = method.architecture == "one-column"
            coefficient = 1.0 if separate else method.alpha / method.beta
            total = total + coefficient * self.task_means(batch["weight"] * kl).sum()
        per_task = {
            "kl": self.task_means(kl),
            "entropy": self.task_means(own.entropy()),
            "regularizer_fraction": self.regularizer_fraction,
        }
        metrics = {"policy_loss": policy_loss.mean(), "value_loss": value_loss.mean()}
        for name, values in per_task.items():
            for task, value in zip(self.tasks, values.unbind(), strict=True):
                metrics[f"{name}/{task}"] = value
        return Loss(total, metrics)

    def describe_metrics(self) -> dict[str, str]:
        """See `METRICS`."""
        return METRICS
