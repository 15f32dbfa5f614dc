"""Parallelised Q-learning: Q-value teachers, as the papers distil them, without replay or targets.

For each rollout of `rollout_length` steps in every environment (Gallici 2024, algorithm 1):

    1. act epsilon-greedily on Q;
    2. lambda-returns, with lambda = `gae_lambda`,
       R_t = r_t + gamma * ((1 - lambda) max_a Q(s_{t+1}, a) + lambda R_{t+1});
    3. for `epochs` epochs, for each minibatch: one step down E[(Q(s_t, a_t) - R_t)^2] / 2.

LayerNorm before each nonlinearity stands in for target networks.

Differs from the paper: none known but for the defaults, which suit small games on few cores.

Logs: `value_loss`; `q_value`, the mean of Q(s_t, a_t); `epsilon`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from rltransfer.errors import InputError, check_range
from rltransfer.learning.agent import Agent, Method, TrainingContext
from rltransfer.learning.exploration import epsilon_greedy
from rltransfer.learning.learner import Learner, Loss, PrecisionName
from rltransfer.learning.minibatches import Batch, minibatches
from rltransfer.learning.reinforcement import lambda_returns
from rltransfer.policies.network import Network
from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.rollouts.rollout import Rollout
from rltransfer.schedule import Schedule
from rltransfer.tasks.observation import Observation

from .ppo import evaluate, sequence_fields


@dataclass(frozen=True, kw_only=True)
class PQN(Method):
    """Parallelised Q-learning with lambda-returns, on tasks with discrete actions.

    Source: Gallici 2024 (arXiv 2407.04811).
    """

    num_envs: int = 128
    """Environments of each task."""
    rollout_length: int = 32
    """Steps of each environment between two updates."""
    network: Network = Network(layer_norm=True)
    """The network that learns."""
    learning_rate: float = 5e-4
    """RAdam's step size at the start; it falls to zero over the run."""
    epochs: int = 2
    """How often each rollout is gone through."""
    batch_size: int = 256
    """Samples a minibatch."""
    gamma: float = 0.99
    """gamma."""
    gae_lambda: float = 0.65
    """lambda."""
    epsilon: str | float | Schedule = "1->0.05@0.1"
    """Share of random actions over the run."""
    max_grad_norm: float = 10.0
    """Norm that gradients are clipped to."""
    precision: PrecisionName = "float32"
    """Arithmetic of the learner."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "at least 1", "epochs", "batch_size")
        check_range(self, "finite and at least 0", "learning_rate")
        check_range(self, "above 0", "max_grad_norm")
        check_range(self, "from 0 to 1", "gamma", "gae_lambda")
        self.epsilon_schedule.check("epsilon", "from 0 to 1")

    @functools.cached_property
    def epsilon_schedule(self) -> Schedule:
        """The fraction of random actions; the field keeps what the user wrote."""
        return Schedule.of(self.epsilon)

    def build(self, context: TrainingContext) -> PQNAgent:
        """Returns the agent."""
        if not context.spaces.is_discrete:
            raise InputError(
                f"pqn needs discrete actions, but those of {context.suite.tasks[0].id!r} are "
                "continuous: take ppo."
            )
        spec = PolicySpec.of_suite(
            self.network,
            context.spaces,
            q_values=True,
            value=False,
        )
        return PQNAgent(self, Policy(spec).to(context.device), context)


class PQNAgent(Agent):
    """Acts epsilon-greedily and learns lambda-returns."""

    def __init__(self, method: PQN, policy: Policy, context: TrainingContext) -> None:
        learner = Learner(
            policy,
            learning_rate=method.learning_rate,
            optimizer="radam",
            max_grad_norm=method.max_grad_norm,
            precision=method.precision,
        )
        super().__init__(policy, learner, context.seed, context.device)
        self.method = method
        self.epsilon = method.epsilon_schedule
        self.num_actions = context.spaces.num_actions(context.device)
        self.current_epsilon = torch.zeros((), device=context.device)

    def begin_rollout(self, progress: float) -> None:
        """Sets the share of random actions."""
        super().begin_rollout(progress)
        self.current_epsilon.fill_(self.epsilon(progress))

    def act(
        self, observation: Observation, task: Tensor, state: Tensor, start: Tensor
    ) -> dict[str, Tensor]:
        """Returns the best action, or at times a random one."""
        output: PolicyOutput = self.policy(observation, task, state, start)
        assert output.q_values is not None
        best_value, best = output.q_values.max(-1)
        action = epsilon_greedy(best, self.num_actions[task], self.current_epsilon, self.generator)
        kept = {"action": action, "best_value": best_value}
        if output.state is not None and self.state_size:
            kept["state"] = output.state
        return kept

    def batches(self, rollout: Rollout) -> Iterable[Batch]:
        """Returns shuffled minibatches with lambda-returns."""
        with torch.no_grad():
            target = self._targets(rollout)
        batch: Batch = {
            **sequence_fields(rollout, self.policy),
            "action": rollout.extras["action"],
            "target": target,
        }
        return minibatches(
            batch, self.method.batch_size, self.method.epochs, self.order, self.state_size > 0
        )

    def _targets(self, rollout: Rollout) -> Tensor:
        """Returns the lambda-returns of a rollout.    (time, rows)"""

        def best(observation: Observation, task: Tensor, state: Tensor | None) -> Tensor:
            output: PolicyOutput = self.policy(observation, task, state)
            return output.preferences().amax(-1)

        next_value = torch.empty_like(rollout.reward)
        next_value[:-1] = rollout.extras["best_value"][1:]
        next_value[-1] = best(rollout.last_observation, rollout.task[-1], rollout.last_state)
        if rollout.final_obs is not None:
            # A recurrent state after the last step is gone: the zero state stands in for it.
            where = rollout.final_obs.time, rollout.final_obs.rows
            next_value[where] = best(rollout.final_obs.observation, rollout.task[where], None)
        return lambda_returns(
            rollout.reward, next_value, rollout.terminated, rollout.done,
            self.method.gamma, self.method.gae_lambda,
        )  # fmt: skip

    def loss(self, batch: Batch) -> Loss:
        """Scores a minibatch."""
        values = evaluate(self.policy, batch).preferences()
        chosen = values.gather(-1, batch["action"].unsqueeze(-1)).squeeze(-1).float()
        value_loss = 0.5 * (chosen - batch["target"]).square().mean()
        metrics = {
            "value_loss": value_loss,
            "q_value": chosen.mean(),
            "epsilon": self.current_epsilon,
        }
        return Loss(value_loss, metrics)

    def learning_rate(self) -> float:
        """Returns the step size, which falls to zero over the run."""
        return self.method.learning_rate * (1 - self.progress)
