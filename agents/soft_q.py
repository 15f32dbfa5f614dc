"""Distral with tables: soft Q-learning for each task, with a distilled policy.

The policy of task i is (Teh 2017, eq. 2, and the equations of V and Q below it)

    pi_i(a|s) = pi_0(a|s)^alpha exp(beta (Q_i(s, a) - V_i(s))),
    V_i(s)    = 1/beta log sum_a pi_0(a|s)^alpha exp(beta Q_i(s, a)),
    Q_i(s, a) = R_i(s, a) + gamma E[V_i(s')].

For each rollout of `rollout_length` steps in every environment of every task (section 4.1):

    1. act by sampling pi_i;
    2. soft Q-learning, from the last step of the rollout to the first:
       Q_i(s, a) += learning_rate * (R + gamma * V_i(s') - Q_i(s, a));
    3. distillation: h(s) += distillation_rate * gamma^t (pi_i(s) - pi_0(s)) after t steps of an
       episode, with pi_0 = softmax(h): up the discounted likelihood of eq. 5.

The tables are a two-column `DistralPolicy` that is linear in the observation: h, and beta Q_i of
each task. They are tables if the observation is a one-hot vector of the state (gridworlds:
`observation=one-hot`).

`--alpha 0` is independent soft Q-learning of each task; the paper's gridworld uses alpha = 1.
`--distilled RUN` initialises pi_0 with the distilled policy of another run;
`--distillation-rate 0` keeps it fixed.

Differs from the paper: the paper does not give its gridworld's step sizes, beta and discount; a
rollout's steps are learned in reverse order (Lin 1992), so that a reward reaches all earlier steps
at once; errors of environments with the same action in the same state are averaged.

Logs: `METRICS`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rltransfer.errors import InputError, check_range
from rltransfer.learning.agent import Method, TrainingContext
from rltransfer.learning.exploration import epsilon_greedy
from rltransfer.learning.learner import Learner, Loss
from rltransfer.learning.minibatches import Batch
from rltransfer.machine import distributed
from rltransfer.nested import map_nested
from rltransfer.policies.network import Network
from rltransfer.policies.scores import log_policy
from rltransfer.rollouts.rollout import Rollout
from rltransfer.tasks.observation import DEFAULT_GROUP, Observation

from .distral import DistilledAgent, by_task
from .distral_policy import DistralPolicy, DistralSpec, divergence, load_distilled

METRICS = {
    "td_error": "Mean absolute error of the soft Bellman equation, E|R + gamma V_i(s') - "
    "Q_i(s, a)|, in units of return.",
    "kl": "E[KL(pi_i || pi_0)], in nats: distance of the task's policy from the distilled one.",
}
"""What soft Q-learning logs; the divergence for each task."""

TABLE = Network(encoder="mlp", hidden=(), normalize=False)
"""A linear function of the observation."""


@dataclass(frozen=True, kw_only=True)
class SoftQ(Method):
    """Distral with tables: soft Q-learning of each task, with a distilled policy.

    Source: Teh 2017 (arXiv 1707.04175), section 4.1.
    """

    num_envs: int = 1
    rollout_length: int = 10
    alpha: float = 1.0
    """Fraction of the regularisation that is KL divergence from the distilled policy; the rest is
    an entropy bonus."""
    beta: float = 20.0
    """Inverse strength of the regularisation: one nat of KL divergence or entropy counts like a
    reward of 1 / beta. Larger values leave the tasks freer."""
    learning_rate: float = 0.2
    """Step size of Q: the fraction of an error that one step corrects."""
    distillation_rate: float = 0.02
    """Step size of the distilled policy's logits; 0 keeps them fixed."""
    distilled: str = ""
    """Run directory whose distilled policy initialises this one; empty for a uniform one."""
    gamma: float = 0.95
    """Discount factor."""
    exploration: float = 0.0
    """Probability of a uniformly random action, in addition to sampling from the policy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "from 0 to 1", "alpha", "learning_rate", "exploration")
        check_range(self, "finite and above 0", "beta")
        check_range(self, "at least 0 and below 1", "gamma")
        check_range(self, "finite and at least 0", "distillation_rate")

    def build(self, context: TrainingContext) -> SoftQAgent:
        """Builds the agent; its initial policies are uniform, unless `distilled` is set."""
        if distributed.world_size() > 1:
            raise InputError(
                "soft-q runs in one process only, as averaging over processes would change its "
                "step size: start it without torchrun."
            )
        if not context.spaces.is_discrete:
            raise InputError(
                f"soft-q needs discrete actions, but those of {context.suite.tasks[0].id!r} are "
                "continuous: use distral."
            )
        spec = DistralSpec.of_suite(TABLE, context.spaces, value=False, shared_weight=self.alpha)
        policy = spec.build().to(context.device)
        for name, parameter in policy.named_parameters():
            parameter.data.zero_()
            # All states would update a bias.
            parameter.requires_grad_(not name.endswith("bias"))
        assert policy.columns is not None
        biases = policy.columns.action_head.bias
        for bias, num_actions in zip(biases, context.spaces.action_sizes, strict=True):
            bias.data.fill_(self.initial_value(num_actions))
        if self.distilled:
            load_distilled(policy, self.distilled)
        return SoftQAgent(self, policy, context)

    def initial_value(self, num_actions: int) -> float:
        """The initial beta Q: its value without rewards, from later entropies.

        It solves beta Q = gamma * (beta Q + (1 - alpha) log num_actions), V of a uniform pi_0. With
        a lower initial value, the first action that is tried would look best.
        """
        return self.gamma * (1 - self.alpha) * math.log(num_actions) / (1 - self.gamma)


class SoftQAgent(DistilledAgent):
    """Acts by sampling the task policies; trains their Q-values and the distilled policy."""

    def __init__(self, method: SoftQ, policy: DistralPolicy, context: TrainingContext) -> None:
        # The two step sizes are factors of the losses.
        super().__init__(policy, Learner(policy, learning_rate=1.0, optimizer="sgd"), context)
        self.method = method
        self.num_actions = context.spaces.num_actions(context.device)

    def act(self, observation: Observation, task: Tensor, state: Tensor, start: Tensor) -> Batch:
        """Samples an action."""
        own = self.policy.both(observation, task, len(task) == self.num_rows)[1]
        action = own.sample(self.generator)
        epsilon = self.method.exploration
        if epsilon:
            action = epsilon_greedy(action, self.num_actions[task], epsilon, self.generator)
        return {"action": action}

    def batches(self, rollout: Rollout) -> Iterator[Batch]:
        """Yields the steps in reverse order, then all of them for distillation."""
        next_seen = rollout.last_observation
        for time in reversed(range(len(rollout.reward))):
            observation = {name: group[time] for name, group in rollout.observation.items()}
            yield {
                "observation": observation,
                "task": rollout.task[time],
                "action": rollout.extras["action"][time],
                "reward": rollout.reward[time],
                "terminated": rollout.terminated[time],
                "following": _followed(rollout, time, next_seen),
            }
            next_seen = observation
        weight = self.method.gamma ** self.ages.of(rollout.start)
        fields = {"observation": rollout.observation, "task": rollout.task, "weight": weight}
        yield map_nested(lambda tensor: tensor.flatten(0, 1), by_task(fields, len(self.tasks)))

    def loss(self, batch: Batch) -> Loss:
        """The loss of one step of every environment, or of distillation."""
        return self._distillation(batch) if "weight" in batch else self._q_learning(batch)

    def _q_learning(self, batch: Batch) -> Loss:
        """Half the squared errors: a step of size 1 down is step 2 of the module's docstring.

        The tables contain beta Q, so rewards are multiplied by beta.
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
        """How many rows of the same task have the same state and action.    (rows,)"""
        seen = observation[DEFAULT_GROUP].flatten(1)
        seen = torch.cat([seen, action.unsqueeze(-1)], 1).unflatten(0, (len(self.tasks), -1))
        same: Tensor = (seen.unsqueeze(1) == seen.unsqueeze(2)).all(-1)
        return same.sum(-1).flatten()

    def _distillation(self, batch: Batch) -> Loss:
        """The divergence from pi_0: a step of size 1 down is step 3 of the module's docstring."""
        distilled, own = self.policy.both(batch["observation"], batch["task"], in_order=True)
        kl = divergence(own, distilled)
        means = self.task_means(kl.detach()).unbind()
        metrics = {f"kl/{task}": mean for task, mean in zip(self.tasks, means, strict=True)}
        return Loss(self.method.distillation_rate * (batch["weight"] * kl).sum(), metrics)

    def describe_metrics(self) -> dict[str, str]:
        """See `METRICS`."""
        return METRICS

    def learning_rate(self) -> float:
        """1, as the step sizes are factors of the losses."""
        return 1.0


def _followed(rollout: Rollout, time: int, next_seen: Observation) -> Observation:
    """The observation that followed a step, before the reset of a truncated episode.

    Args:
        rollout: The steps.
        time: The step.
        next_seen: The observation of the next step, after any reset.    (rows, ...)
    """
    final = rollout.final_obs
    if final is None:
        return next_seen
    now = final.time == time
    return {
        name: group.index_copy(0, final.rows[now], final.observation[name][now])
        for name, group in next_seen.items()
    }
