"""Distral with tables: soft Q-learning for each task, and the policy that is distilled from them.

The policy of task i is (Teh 2017, eq. 2, and the equations of V and Q below it)

    pi_i(a|s) = pi_0(a|s)^alpha exp(beta (Q_i(s, a) - V_i(s))),
    V_i(s)    = 1/beta log sum_a pi_0(a|s)^alpha exp(beta Q_i(s, a)),
    Q_i(s, a) = R_i(s, a) + discount E[V_i(s')].

For each rollout of `rollout_length` steps in every environment of every task (section 4.1):

    1. act by sampling pi_i;
    2. soft Q-learning, from the last step of the rollout to the first:
       Q_i(s, a) += learning_rate * (R + gamma * V_i(s') - Q_i(s, a));
    3. distillation: h(s) += distillation_rate * gamma^t (pi_i(s) - pi_0(s)), t steps after an
       episode's first, with pi_0 = softmax(h): up the discounted likelihood of eq. 5.

The tables are a `DistralPolicy` of two columns, linear in the observation: h, and beta Q_i of each
task, which are tables where the observation is a state's number as a one-hot vector (gridworlds
show it so with `observation=one-hot`).

`--alpha 0` is soft Q-learning of each task by itself. The paper's gridworld has alpha = 1. New
tasks begin with what others distilled by `--distilled RUN`; `--distillation-rate 0` keeps it.

Differs from the paper: its gridworld's step sizes, beta and discount are not printed; a rollout's
steps are learned from in reverse order (Lin 1992), so that a reward is known all along the way to
it; errors of environments that did the same in the same state are averaged.

Logs: `td_error` = E|R + discount V_i(s') - Q_i(s, a)|; for each task `kl` = E[KL(pi_i || pi_0)] in
nats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rltransfer.errors import InputError, check_range
from rltransfer.learning.agent import Agent, Method, TrainingContext
from rltransfer.learning.exploration import epsilon_greedy
from rltransfer.learning.learner import Learner, Loss
from rltransfer.learning.minibatches import Batch
from rltransfer.machine import distributed
from rltransfer.nested import map_nested
from rltransfer.policies.network import Network
from rltransfer.policies.scores import log_policy
from rltransfer.rollouts.rollout import Rollout
from rltransfer.tasks.observation import DEFAULT_GROUP, Observation

from .distral import Ages, by_task, check_regularizer
from .distral_policy import DistralPolicy, DistralSpec, begin_with, divergence

TABLE = Network(encoder="mlp", hidden=(), normalize=False)
"""A linear function of the observation."""


@dataclass(frozen=True, kw_only=True)
class SoftQ(Method):
    """Distral with tables: soft Q-learning of each task and a distilled policy, in turn.

    Source: Teh 2017 (arXiv 1707.04175), section 4.1.
    """

    num_envs: int = 1
    """Environments of each task."""
    rollout_length: int = 10
    """Steps of each environment between two updates."""
    alpha: float = 1.0
    """Share of the regulariser that is divergence from pi_0; the rest is entropy."""
    beta: float = 20.0
    """Inverse of the regulariser's weight: reward that a nat is worth is 1 / beta."""
    learning_rate: float = 0.2
    """Step size of Q: the share of an error that a step takes away."""
    distillation_rate: float = 0.02
    """Step size of the distilled policy's logits; 0 leaves it as it began."""
    distilled: str = ""
    """Folder of a run with whose distilled policy this one begins; empty for a uniform one."""
    gamma: float = 0.95
    """gamma."""
    exploration: float = 0.0
    """Share of random actions, beside those that the policies' own randomness takes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_regularizer(self.alpha, self.beta)
        if not 0 <= self.gamma < 1:
            raise InputError(f"discount is {self.gamma}: it must be from 0 to less than 1.")
        check_range(self, "from 0 to 1", "learning_rate", "exploration")
        check_range(self, "finite and at least 0", "distillation_rate")

    def build(self, context: TrainingContext) -> SoftQAgent:
        """Returns the agent, whose policies are uniform."""
        if distributed.world_size() > 1:
            raise InputError(
                "soft-q learns in one process: its tables take a step for each environment, and "
                "those of several processes would be averaged."
            )
        if not context.spaces.is_discrete:
            raise InputError(
                f"soft-q needs discrete actions, but those of {context.suite.tasks[0].id!r} are "
                "continuous: take distral."
            )
        spec = DistralSpec.of_suite(
            TABLE,
            context.spaces,
            value=False,
            shared_weight=self.alpha,
        )
        policy = spec.build().to(context.device)
        for name, parameter in policy.named_parameters():
            parameter.data.zero_()
            # A bias would be learned from every state.
            parameter.requires_grad_(not name.endswith("bias"))
        assert policy.columns is not None
        biases = policy.columns.action_head.bias
        for bias, num_actions in zip(biases, context.spaces.action_sizes, strict=True):
            bias.data.fill_(self.initial_value(num_actions))
        if self.distilled:
            begin_with(policy, self.distilled)
        return SoftQAgent(self, policy, context)

    def initial_value(self, num_actions: int) -> float:
        """Returns beta Q where no reward is: what later entropies are worth.

        It solves beta Q = gamma * (beta Q + (1 - alpha) log num_actions), V of a uniform pi_0. A
        table that begins lower takes the first thing that it tries for the best.
        """
        return self.gamma * (1 - self.alpha) * math.log(num_actions) / (1 - self.gamma)


class SoftQAgent(Agent):
    """Acts by sampling the tasks' policies, and learns their values and the distilled policy."""

    policy: DistralPolicy

    def __init__(self, method: SoftQ, policy: DistralPolicy, context: TrainingContext) -> None:
        # The step sizes are in the losses, as there are two of them.
        learner = Learner(policy, learning_rate=1.0, optimizer="sgd")
        super().__init__(policy, learner, context.seed, context.device)
        self.method = method
        self.tasks = context.suite.names()
        self.num_rows = context.num_rows
        self.ages = Ages(context.num_rows, context.device)
        self.num_actions = context.spaces.num_actions(context.device)

    def act(
        self, observation: Observation, task: Tensor, state: Tensor, start: Tensor
    ) -> dict[str, Tensor]:
        """Samples an action."""
        own = self.policy.both(observation, task, len(task) == self.num_rows)[1]
        action = own.sample(self.generator)
        epsilon = self.method.exploration
        if epsilon:
            action = epsilon_greedy(action, self.num_actions[task], epsilon, self.generator)
        return {"action": action}

    def batches(self, rollout: Rollout) -> Iterator[Batch]:
        """Yields the steps from the last one to the first, then all of them to be distilled."""
        following = rollout.last_observation
        for time in reversed(range(len(rollout.reward))):
            observation = {name: group[time] for name, group in rollout.observation.items()}
            yield {
                "observation": observation,
                "task": rollout.task[time],
                "action": rollout.extras["action"][time],
                "reward": rollout.reward[time],
                "terminated": rollout.terminated[time],
                "following": _followed(rollout, time, following),
            }
            following = observation
        weight = self.method.gamma ** self.ages.of(rollout.start)
        fields = {"observation": rollout.observation, "task": rollout.task, "weight": weight}
        yield map_nested(lambda tensor: tensor.flatten(0, 1), by_task(fields, len(self.tasks)))

    def loss(self, batch: Batch) -> Loss:
        """Scores a step of every environment, or what is to be distilled."""
        return self._distillation(batch) if "weight" in batch else self._error(batch)

    def _error(self, batch: Batch) -> Loss:
        """Returns half the squared errors: a step of size 1 down them is step 2 of the page.

        Tables hold beta Q, so that rewards count beta times as much.
        """
        method, action = self.method, batch["action"]
        with torch.no_grad():
            distilled, own = self.policy.both(batch["following"], batch["task"], in_order=True)
            prior = method.alpha * log_policy(distilled.preferences(), 1.0)
            scores = own.preferences() - method.alpha * distilled.preferences()
            value = torch.logsumexp(prior + scores, -1)
            target = method.beta * batch["reward"] + method.gamma * value * ~batch["terminated"]
        scores, _ = self.policy.scores(batch["observation"], batch["task"], in_order=True)
        error = target - scores.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        total = 0.5 * (error.square() / self._alike(batch["observation"], action)).sum()
        metrics = {"td_error": error.detach().abs().mean() / method.beta}
        return Loss(method.learning_rate * total, metrics)

    def _alike(self, observation: Observation, action: Tensor) -> Tensor:
        """Returns how many rows of each row's task did the same in the same state.    (rows,)"""
        seen = observation[DEFAULT_GROUP].flatten(1)
        seen = torch.cat([seen, action.unsqueeze(-1)], 1).unflatten(0, (len(self.tasks), -1))
        same: Tensor = (seen.unsqueeze(1) == seen.unsqueeze(2)).all(-1)
        return same.sum(-1).flatten()

    def _distillation(self, batch: Batch) -> Loss:
        """Returns the negative log-likelihood: a step of size 1 down it is step 3 of the page."""
        distilled, own = self.policy.both(batch["observation"], batch["task"], in_order=True)
        apart = divergence(own, distilled)
        mean = apart.detach().unflatten(0, (len(self.tasks), -1)).mean(1)
        metrics = {f"kl/{task}": kl for task, kl in zip(self.tasks, mean.unbind(), strict=True)}
        return Loss(self.method.distillation_rate * (batch["weight"] * apart).sum(), metrics)

    def learning_rate(self) -> float:
        """Returns 1: see the losses."""
        return 1.0

    def state_dict(self) -> dict[str, Any]:
        """Returns everything that learning depends on, the episodes' ages among it."""
        return {**super().state_dict(), "ages": self.ages.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to what `state_dict` returned."""
        super().load_state_dict(state)
        self.ages.next.copy_(state["ages"])


def _followed(rollout: Rollout, time: int, seen_next: Observation) -> Observation:
    """Returns what followed a step, before the reset where its episode was cut short.

    Args:
        rollout: What happened.
        time: The step.
        seen_next: What was seen at the step after it.    (rows, ...)
    """
    final = rollout.final_obs
    if final is None:
        return seen_next
    now = final.time == time
    return {
        name: group.index_copy(0, final.rows[now], final.observation[name][now])
        for name, group in seen_next.items()
    }
