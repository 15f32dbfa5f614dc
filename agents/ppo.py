"""Proximal policy optimisation: the teachers' teacher, and the baseline of every method.

For each rollout of `rollout_length` steps in every environment (Schulman 2017, algorithm 1):

    1. act by sampling pi;
    2. advantages by generalised advantage estimation (Schulman 2015, eq. 16), normalised;
    3. for `epochs` epochs, for each minibatch: one step down
       L = E[L_clip] + value_coefficient * E[(V - R)^2] / 2 - entropy_coefficient * E[H(pi)]
       (Schulman 2017, eq. 9).

Differs from the paper: Adam's step size falls to zero over the run, as in its Atari runs;
advantages are normalised in each minibatch, as its authors' code does; episodes that were cut short
bootstrap from the observation that followed.

Logs: `policy_loss`, `value_loss`, `entropy` in nats, `approximate_kl` = E[(rho - 1) - log rho],
which estimates KL(pi_old || pi), `clip_fraction` = share of samples whose ratio lies outside
1 +- clip_range, `explained_variance` = 1 - Var(R - V) / Var(R).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from rltransfer.errors import check_range
from rltransfer.learning.agent import Agent, Method, TrainingContext
from rltransfer.learning.learner import Learner, Loss, PrecisionName
from rltransfer.learning.minibatches import Batch, minibatches
from rltransfer.learning.reinforcement import clipped_policy_loss, generalized_advantage
from rltransfer.policies.network import Network
from rltransfer.policies.output import PolicyOutput
from rltransfer.policies.policy import Policy, PolicySpec
from rltransfer.rollouts.rollout import Rollout
from rltransfer.tasks.observation import Observation


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """The reinforcement objective: advantages and the loss that is made of them."""

    gamma: float = 0.99
    """gamma."""
    gae_lambda: float = 0.95
    """lambda of generalised advantage estimation."""
    clip_range: float = 0.2
    """How far the ratio of new to old probability may move."""
    entropy_coefficient: float = 0.01
    """Weight of the entropy bonus."""
    value_coefficient: float = 0.5
    """Weight of the value loss."""

    def __post_init__(self) -> None:
        check_range(self, "from 0 to 1", "gamma", "gae_lambda")
        check_range(self, "above 0", "clip_range")
        check_range(self, "finite and at least 0", "entropy_coefficient", "value_coefficient")

    def advantages(self, rollout: Rollout, policy: Policy) -> Batch:
        """Returns what the loss needs of a rollout in which `act` kept "value" and "log_prob".

        Args:
            rollout: What happened.
            policy: Says the values of the states after the last step and of cut-off episodes.
        """
        value = rollout.extras["value"]
        next_value = torch.empty_like(value)
        next_value[:-1] = value[1:]
        next_value[-1] = policy(
            rollout.last_observation, rollout.task[-1], rollout.last_state, None
        ).value
        if rollout.final_obs is not None:
            # A recurrent state after the last step is gone: the zero state stands in for it.
            where = rollout.final_obs.time, rollout.final_obs.rows
            next_value[where] = policy(rollout.final_obs.observation, rollout.task[where]).value
        advantage = generalized_advantage(
            rollout.reward, value, next_value, rollout.terminated, rollout.done,
            self.gamma, self.gae_lambda,
        )  # fmt: skip
        return {
            "advantage": advantage,
            "return": advantage + value,
            "old_value": value,
            "old_log_prob": rollout.extras["log_prob"],
            "action": rollout.extras["action"],
        }

    def loss(self, output: PolicyOutput, batch: Batch) -> Loss:
        """Scores what the policy now says of a minibatch (Schulman 2017, eq. 9).

        Args:
            output: Of the minibatch's observations.
            batch: With the fields of `advantages`; "weight", if there, weighs each sample.
        """
        assert output.value is not None
        weight: Tensor | None = batch.get("weight")

        def mean(samples: Tensor) -> Tensor:
            if weight is None:
                return samples.mean()
            return (samples * weight).sum() / weight.sum().clamp(min=1.0)

        advantage = batch["advantage"]
        center = mean(advantage)
        advantage = (advantage - center) / (mean((advantage - center).square()).sqrt() + 1e-8)
        log_prob = output.log_prob(batch["action"])
        policy_loss = mean(
            clipped_policy_loss(log_prob, batch["old_log_prob"], advantage, self.clip_range)
        )
        error = output.value.float() - batch["return"]
        value_loss = 0.5 * mean(error.square())
        entropy = mean(output.entropy())
        total = (
            policy_loss + self.value_coefficient * value_loss - self.entropy_coefficient * entropy
        )
        with torch.no_grad():
            log_ratio = log_prob - batch["old_log_prob"]
            ratio = log_ratio.exp()
            spread = mean((batch["return"] - mean(batch["return"])).square())
            explained = 1 - mean((error - mean(error)).square()) / spread.clamp(min=1e-8)
            outside = ((ratio - 1).abs() > self.clip_range).float()
            metrics = {
                "policy_loss": policy_loss,
                "value_loss": value_loss,
                "entropy": entropy,
                "approximate_kl": mean(ratio - 1 - log_ratio),
                "clip_fraction": mean(outside),
                "explained_variance": explained,
            }
        return Loss(total, metrics)


@dataclass(frozen=True, kw_only=True)
class PPO(Method):
    """Proximal policy optimisation, on any task.

    Source: Schulman 2017 (arXiv 1707.06347).
    """

    network: Network = Network()
    """The network that learns."""
    surrogate: Surrogate = Surrogate()
    """The reinforcement objective."""
    learning_rate: float = 1e-3
    """Adam's step size at the start; it falls to zero over the run."""
    epochs: int = 3
    """How often each rollout is gone through."""
    batch_size: int = 1024
    """Samples a minibatch."""
    max_grad_norm: float = 0.5
    """Norm that gradients are clipped to."""
    precision: PrecisionName = "float32"
    """Arithmetic of the learner."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "at least 1", "epochs", "batch_size")
        check_range(self, "finite and at least 0", "learning_rate")
        check_range(self, "above 0", "max_grad_norm")

    def build(self, context: TrainingContext) -> PPOAgent:
        """Returns the agent."""
        spec = PolicySpec.of_suite(self.network, context.spaces)
        return PPOAgent(self, Policy(spec).to(context.device), context)


class PPOAgent(Agent):
    """Acts by sampling its policy and learns from the clipped surrogate."""

    def __init__(self, method: PPO, policy: Policy, context: TrainingContext) -> None:
        learner = Learner(
            policy,
            learning_rate=method.learning_rate,
            epsilon=1e-5,
            max_grad_norm=method.max_grad_norm,
            precision=method.precision,
        )
        super().__init__(policy, learner, context.seed, context.device)
        self.method = method

    def act(
        self, observation: Observation, task: Tensor, state: Tensor, start: Tensor
    ) -> dict[str, Tensor]:
        """Samples an action."""
        return sample(self.policy, observation, task, state, start, self.generator)

    def batches(self, rollout: Rollout) -> Iterable[Batch]:
        """Returns shuffled minibatches with advantages."""
        with torch.no_grad():
            batch = self.method.surrogate.advantages(rollout, self.policy)
        batch.update(sequence_fields(rollout, self.policy))
        return minibatches(
            batch, self.method.batch_size, self.method.epochs, self.order, self.state_size > 0
        )

    def loss(self, batch: Batch) -> Loss:
        """Scores a minibatch."""
        return self.method.surrogate.loss(evaluate(self.policy, batch), batch)

    def learning_rate(self) -> float:
        """Returns the step size, which falls to zero over the run."""
        return self.method.learning_rate * (1 - self.progress)


def sample(
    policy: Policy,
    observation: Observation,
    task: Tensor,
    state: Tensor,
    start: Tensor,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Returns a sampled action with its log-probability and the state's value.

    Args:
        policy: Who acts.
        observation: The groups.            (rows, ...)
        task: Index of each row's task.     (rows,)
        state: The recurrent state.         (rows, state_size)
        start: Whether an episode begins.   (rows,)
        generator: The source of randomness.
    """
    output = policy(observation, task, state, start)
    action = output.sample(generator)
    kept = {"action": action, "log_prob": output.log_prob(action), "value": output.value}
    if policy.state_size:
        kept["state"] = output.state
    return kept


def sequence_fields(rollout: Rollout, policy: Policy) -> Batch:
    """Returns what `evaluate` needs to run a policy over a rollout again."""
    fields: Batch = {"observation": rollout.observation, "task": rollout.task}
    if policy.state_size:
        fields.update(start=rollout.start, initial_state=rollout.initial_state)
    return fields


def evaluate(policy: Policy, batch: Batch) -> PolicyOutput:
    """Returns what a policy says of a minibatch, from its sequences' first state if recurrent."""
    output: PolicyOutput = policy(
        batch["observation"], batch["task"], batch.get("initial_state"), batch.get("start")
    )
    return output
