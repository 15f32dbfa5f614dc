"""Parallelised Q-learning (PQN): trains Q-value teachers without replay or target networks.

For each rollout of `rollout_length` steps in every environment (Gallici 2024, algorithm 1):

    1. act epsilon-greedily on Q;
    2. compute lambda-returns, with lambda = `gae_lambda`,
       R_t = r_t + gamma * ((1 - lambda) max_a Q(s_{t+1}, a) + lambda R_{t+1});
    3. for `epochs` epochs, for each minibatch: take one step down E[(Q(s_t, a_t) - R_t)^2] / 2.

LayerNorm before each nonlinearity replaces target networks.

Differs from the paper: only in the defaults, which suit small games on few cores.

Logs: `METRICS`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from rltransfer.errors import InputError, check_range
from rltransfer.learning.agent import Agent, GradientMethod, TrainingContext
from rltransfer.learning.exploration import epsilon_greedy
from rltransfer.learning.learner import Loss
from rltransfer.learning.minibatches import Batch, minibatches
from rltransfer.learning.reinforcement import lambda_returns, next_values
from rltransfer.policies.network import Network
from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.rollouts.rollout import Rollout
from rltransfer.schedule import Schedule
from rltransfer.tasks.observation import Observation

from .ppo import evaluate, sequence_fields

METRICS = {
    "value_loss": "Half the mean squared error of the Q-value, E[(Q(s_t, a_t) - R_t)^2] / 2, in "
    "units of the squared return.",
    "q_value": "Mean of Q(s_t, a_t), in units of return.",
    "epsilon": "Probability of a random action, 0 to 1.",
}
"""What PQN logs."""


@dataclass(frozen=True, kw_only=True)
class PQN(GradientMethod):
    """Parallelised Q-learning with lambda-returns, for tasks with discrete actions.

    Source: Gallici 2024 (arXiv 2407.04811).
    """

    num_envs: int = 128
    rollout_length: int = 32
    learning_rate: float = 5e-4
    batch_size: int = 256
    network: Network = Network(layer_norm=True)
    """The Q-network."""
    epochs: int = 2
    """Passes over each rollout."""
    gamma: float = 0.99
    """Discount factor."""
    gae_lambda: float = 0.65
    """Lambda of the lambda-returns."""
    epsilon: str | float | Schedule = "1->0.05@0.1"
    """Probability of a random action: a number or a schedule."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "at least 1", "epochs")
        check_range(self, "at most 10,000", "epochs")
        check_range(self, "from 0 to 1", "gamma", "gae_lambda")
        self.epsilon_schedule.check("epsilon", "from 0 to 1")

    @functools.cached_property
    def epsilon_schedule(self) -> Schedule:
        """The fraction of random actions; the field keeps what the user wrote."""
        return Schedule.of(self.epsilon)

    def build(self, context: TrainingContext) -> PQNAgent:
        """Builds the agent."""
        policy = self.policy_spec(context).build()
        return PQNAgent(self, policy.to(context.device), context)

    def policy_spec(self, context: TrainingContext) -> PolicySpec:
        """The specification of the policy.

        Raises:
            InputError: The actions are continuous.
        """
        if not context.spaces.is_discrete:
            raise InputError(
                f"pqn needs discrete actions, but those of {context.suite.tasks[0].id!r} are "
                "continuous: use ppo."
            )
        return PolicySpec.of_suite(self.network, context.spaces, q_values=True, value=False)


class PQNAgent(Agent):
    """Acts epsilon-greedily and learns lambda-returns."""

    def __init__(self, method: PQN, policy: Policy, context: TrainingContext) -> None:
        super().__init__(policy, method.learner(policy, "radam"), context)
        self.method = method
        self.epsilon = method.epsilon_schedule
        self.num_actions = context.spaces.num_actions(context.device)
        self.current_epsilon = torch.zeros((), device=context.device)

    def begin_rollout(self, progress: float) -> None:
        """Sets the probability of a random action."""
        super().begin_rollout(progress)
        self.current_epsilon.fill_(self.epsilon(progress))

    def act(self, observation: Observation, task: Tensor, state: Tensor, start: Tensor) -> Batch:
        """Chooses the best action, or with probability epsilon a random one."""
        output: PolicyOutput = self.policy(observation, task, state, start)
        assert output.q_values is not None
        best_value, best = output.q_values.max(-1)
        action = epsilon_greedy(best, self.num_actions[task], self.current_epsilon, self.generator)
        step = {"action": action, "best_value": best_value}
        if output.state is not None and self.state_size:
            step["state"] = output.state
        return step

    def batches(self, rollout: Rollout) -> Iterable[Batch]:
        """Shuffled minibatches with lambda-returns."""
        method, batch = self.method, sequence_fields(rollout, self.policy)
        batch["action"] = rollout.extras["action"]
        with torch.no_grad():
            batch["target"] = self._targets(rollout)
        return minibatches(batch, method.batch_size, method.epochs, self.order, self.state_size > 0)

    def _targets(self, rollout: Rollout) -> Tensor:
        """The lambda-returns of a rollout.    (time, rows)"""

        def best(observation: Observation, task: Tensor, state: Tensor | None = None) -> Tensor:
            output: PolicyOutput = self.policy(observation, task, state)
            return output.preferences().amax(-1)

        last_value = best(rollout.last_observation, rollout.task[-1], rollout.last_state)
        next_value = next_values(rollout, rollout.extras["best_value"], last_value, best)
        return lambda_returns(
            rollout.reward, next_value, rollout.terminated, rollout.done,
            self.method.gamma, self.method.gae_lambda,
        )  # fmt: skip

    def loss(self, batch: Batch) -> Loss:
        """The loss of a minibatch."""
        values = evaluate(self.policy, batch).preferences()
        chosen = values.gather(-1, batch["action"].unsqueeze(-1)).squeeze(-1).float()
        value_loss = 0.5 * (chosen - batch["target"]).square().mean()
        metrics = {
            "value_loss": value_loss,
            "q_value": chosen.mean(),
            "epsilon": self.current_epsilon,
        }
        return Loss(value_loss, metrics)

    def describe_metrics(self) -> dict[str, str]:
        """See `METRICS`."""
        return METRICS
